"""Environment: what decides the bits and the time of a run beside its config."""

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import threadpoolctl

import klcli

# Numbers in NumPy's buffer for ufuncs. Rows that are not contiguous are copied into it and back where several of them
# fit, as with its default of 8192 those of half of W or of a minibatch: in place they take a third of the time.
BUFFER = 1024


@dataclass(frozen=True)
class Environment:
    """Stored with every run: the same config in the same environment gives the same bits."""

    threads: int  # of BLAS; one and two threads differ in the last bits
    versions: dict[str, str]  # of klcli, Python, NumPy, BLAS and the processor it was built for


def environment() -> Environment:
    """Return what NumPy's BLAS really uses in this process, whatever the environment variables are."""
    blas = [pool for pool in threadpoolctl.threadpool_info() if pool.get("user_api") == "blas"]
    # NumPy's and SciPy's copies may both be loaded, in either order.
    names = {" ".join(str(pool.get(key)) for key in ("internal_api", "version", "architecture")) for pool in blas}
    versions = {
        "klcli": klcli.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "blas": ", ".join(sorted(names)),
    }
    return Environment(threads=max((pool["num_threads"] for pool in blas), default=1), versions=versions)


def pin_threads(threads: int) -> AbstractContextManager[Any]:
    """Give BLAS this many threads, whatever the environment variables are: in a `with` block or for good."""
    return threadpoolctl.threadpool_limits(limits=threads, user_api="blas")


@contextmanager
def arithmetic() -> Iterator[None]:
    """Set NumPy up for training inside the block. Replicas that diverge reach infinity and NaN without a warning."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        np.setbufsize(BUFFER)  # errstate restores it
        yield
