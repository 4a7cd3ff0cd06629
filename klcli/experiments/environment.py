"""Environment: what, beside the config, decides the bits of a run."""

import platform
from dataclasses import dataclass

import numpy as np
import threadpoolctl

import klcli


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
