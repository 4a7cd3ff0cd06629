"""Environment: what, beside the config, decides the bits of a run, and its time."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import threadpoolctl

import klcli

# Numbers. NumPy copies rows that do not lie behind each other into a buffer of 8192, where several of them fit into
# it, and back. Half of W or a minibatch has rows of one to three thousand, which take a third of the time in place.
BUFFER = 1024


@dataclass(frozen=True)
class Environment:
    """Kept with every run: the same config in the same environment gives the same bits."""

    threads: int  # of BLAS; one and two threads differ in the last bits
    versions: dict[str, str]  # of klcli, Python, NumPy, BLAS and the processor it was built for


def environment() -> Environment:
    """Return what NumPy's BLAS really uses in this process, not what was asked of it."""
    blas = [pool for pool in threadpoolctl.threadpool_info() if pool.get("user_api") == "blas"]
    versions = {
        "klcli": klcli.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
    # NumPy's and SciPy's copies may both be loaded, in either order.
    names = {" ".join(str(pool.get(key)) for key in ("internal_api", "version", "architecture")) for pool in blas}
    versions["blas"] = ", ".join(sorted(names))
    return Environment(threads=max((pool["num_threads"] for pool in blas), default=1), versions=versions)


def pin_threads(threads: int) -> None:
    """Give BLAS this many threads for the rest of the process, whatever the environment said."""
    threadpoolctl.threadpool_limits(limits=threads, user_api="blas")


@contextmanager
def pinned_threads(threads: int) -> Iterator[None]:
    """Give BLAS this many threads inside the block, whatever the environment said."""
    with threadpoolctl.threadpool_limits(limits=threads, user_api="blas"):
        yield


@contextmanager
def arithmetic() -> Iterator[None]:
    """Set NumPy up for training, for as long as the context lasts.

    A member that diverges runs through infinities to NaN; it is reported by name and needs no warning.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        before = np.setbufsize(BUFFER)
        try:
            yield
        finally:
            np.setbufsize(before)
