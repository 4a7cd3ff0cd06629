"""Environment: determines, with the config, the bits and the time of a run."""

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import threadpoolctl

import klcli
from klcli import compiled
from klcli.compiled.blas import numpys_blas

# The versions that decide the bits, with their names.
DECIDE_BITS = {"klcli": "klcli", "engine": "the engine", "numpy": "NumPy", "blas": "BLAS", "simd": "SIMD"}


@dataclass(frozen=True)
class Environment:
    """Stored with every run: the same config in the same environment gives the same bits."""

    threads: int  # of BLAS; one and two threads differ in the last bits
    versions: dict[str, str]  # of klcli, the engine, Python, NumPy, BLAS and its kernel, NumPy's SIMD instructions


def environment() -> Environment:
    """Return the environment of a training in this process. Loads the compiled engine, if there is one."""
    plain = numpy_environment()
    return Environment(plain.threads, {"klcli": klcli.__version__, "engine": compiled.name()} | plain.versions)


def numpy_environment() -> Environment:
    """Return the actual settings of NumPy and its BLAS in this process, whatever the environment variables are."""
    blas = numpys_blas()
    names = {" ".join(str(pool.get(key)) for key in ("internal_api", "version", "architecture")) for pool in blas}
    build: Any = np.show_config(mode="dicts")
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "blas": ", ".join(sorted(names)) or build["Build Dependencies"]["blas"]["name"],  # Apple's sets no threads
        "simd": " ".join(build.get("SIMD Extensions", {}).get("found", ())),
    }
    return Environment(threads=max((pool["num_threads"] for pool in blas), default=1), versions=versions)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe the differences of two environments that change the bits; empty without any.

    `BLAS openblas 0.3.31 Haswell, now openblas 0.3.31 SkylakeX`. An older klcli recorded less, and SciPy's BLAS too.
    """
    found = [
        f"{words} {before[key]}, now {now[key]}"
        for key, words in DECIDE_BITS.items()
        if key in before and not set(now[key].split(", ")) <= set(before[key].split(", "))
    ]
    return "; ".join(found)


def continued(versions: dict[str, Any], epoch: float, now: dict[str, str]) -> tuple[dict[str, Any], str]:
    """Return the versions to record for a run that continues after `epoch` with those of `now`, and the changes.

    The versions of its beginning stay; `later` lists the others, each with the epoch after which it applies.
    """
    if epoch == 0 or not versions:  # all of it in this environment, or where it began is not known
        return now, ""
    later = [one for one in versions.get("later", []) if one["epoch"] < epoch]  # others have left no trace
    changed = changes(later[-1] if later else versions, now)
    later += [{"epoch": epoch, **now}] if changed else []
    return versions | ({"later": later} if later else {}), changed


_pinning = compiled.lock_for_forks()
_pinned = dict[object, int]()  # the threads of every block of `pin_threads` in progress, the latest last
_before = list[dict[str, Any]]()  # BLAS as it was before the first of them


@contextmanager
def pin_threads(threads: int) -> Iterator[None]:
    """Set the number of BLAS threads inside the block, whatever the environment variables are.

    The number is that of the whole process: of blocks that overlap in several threads, the last to end restores it.
    """
    block = object()
    with _pinning:
        if not _pinned:
            _before[:] = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
        _pinned[block] = threads
        _limit(threads)
    try:
        yield
    finally:
        with _pinning:
            del _pinned[block]
            _limit([*_pinned.values()][-1] if _pinned else _before)


def _limit(limits: int | list[dict[str, Any]]) -> None:
    # threadpoolctl 3.8 obeys only the thread that was the first to set a number, until that is cleared.
    release = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", lambda force: None)
    release(force=True)
    threadpoolctl.threadpool_limits(limits, user_api="blas")
    release(force=True)


def arithmetic() -> np.errstate:
    """Let diverging replicas reach infinity and NaN without warnings inside the block."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")
