"""Environment: determines, with the config, the bits and the time of a run."""

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import threadpoolctl

import klcli

# Numbers in NumPy's buffer for ufuncs. If several non-contiguous rows fit into it, as rows of half of W or of a
# minibatch fit into the default of 8192, NumPy copies them there and back; in place takes a third of the time.
BUFFER = 1024


@dataclass(frozen=True)
class Environment:
    """Stored with every run: the same config in the same environment gives the same bits."""

    threads: int  # of BLAS; one and two threads differ in the last bits
    versions: dict[str, str]  # of klcli, Python, NumPy, BLAS and the processor that it was built for


def environment() -> Environment:
    """Return the actual settings of NumPy's BLAS in this process, whatever the environment variables are."""
    blas = [pool for pool in threadpoolctl.threadpool_info() if pool.get("user_api") == "blas"]
    # NumPy's and SciPy's copies of BLAS may both be loaded, in either order.
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
    """Set the number of BLAS threads, whatever the environment variables are: in a `with` block or permanently."""
    return threadpoolctl.threadpool_limits(limits=threads, user_api="blas")


@contextmanager
def arithmetic() -> Iterator[None]:
    """Configure NumPy for training inside the block. Diverging replicas reach infinity and NaN without warnings."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        np.setbufsize(BUFFER)  # errstate restores it
        yield
