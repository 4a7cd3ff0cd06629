"""The equations of engine/ compiled by numba, with a helper thread, for speed.

`open_team` yields a Team, an Engine that executes compiled operations, or without numba the Engine of NumPy.
"""

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from klcli.data.cifar10.prepared import cache_folder
from klcli.engine.losses import cross_entropy
from klcli.engine.network import Network
from klcli.engine.optimizers import SGD, Adam, Arrays, Rate, WeightAverage
from klcli.files import exists
from klcli.text import one_line


def lock_for_forks() -> Any:
    """Return an RLock that a forked process can take: a fork waits until no other thread holds it."""
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


loading = lock_for_forks()  # in two threads, numba would load or compile the same functions twice
PLAIN = "NumPy"  # name of engine/ in the versions of a run
COMPLETE = "complete"  # the file there once a process has compiled what `check` executes


@lru_cache
def why_not() -> str:
    """Return why this process trains in NumPy, "" if in compiled code, which the first call compiles or loads."""
    if _is_disabled():
        return "NUMBA_DISABLE_JIT is set"
    try:
        with loading, _light_blas():
            from klcli.compiled.team import check

            check()
        with suppress(OSError):
            (code_folder() / COMPLETE).touch()
    except Exception as error:  # numba, LLVM, the cache and BLAS raise many types; NumPy replaces them all
        missing = isinstance(error, ModuleNotFoundError) and f"{error.name} is not installed"  # or its llvmlite
        return missing or f"{type(error).__name__}: {one_line(error)[:200]}"
    return ""


@contextmanager
def _light_blas() -> Iterator[None]:
    """Let numba find SciPy's BLAS without importing it, which takes 0.15 s. Who uses it meanwhile gets SciPy's."""
    name, modules = "scipy.linalg.cython_blas", sys.modules
    stand_in = ModuleType(name)

    def give_way(attribute: str = "") -> Any:
        if modules.get(name) is stand_in:
            modules.pop(name, None)
        return getattr(import_module(name), attribute) if attribute else None

    vars(stand_in)["__getattr__"] = give_way  # of another thread, which imports SciPy for Matlab's files
    modules.setdefault(name, stand_in)
    try:
        yield
    finally:
        give_way()


def writable(folder: str) -> str:
    """Return the folder, made if necessary, or "" if it cannot be written."""
    with suppress(OSError):  # below another user's folder too, where Path.is_dir raises
        Path(folder).mkdir(parents=True, exist_ok=True)
        return folder if folder and os.access(folder, os.W_OK | os.X_OK) else ""
    return ""


def is_new() -> bool:
    """Whether the code will be compiled."""
    return not (exists(code_folder() / COMPLETE) or _is_disabled() or find_spec("numba") is None)


def _is_disabled() -> bool:
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


@lru_cache
def code_name() -> str:
    """Return the name of this machine code, a hash of NumPy's version and BLAS and of the sources in this folder.

    numba compiles a function again after a change of its own file, but not after a change of a file that it uses, or of
    the size of the integers that BLAS takes.
    """
    build: Any = np.show_config(mode="dicts")
    sources = [file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))]
    numpy = f"{np.__version__} {build['Build Dependencies']['blas']}".encode()
    return hashlib.sha256(b"".join([numpy, *sources])).hexdigest()[:16]


def code_folder() -> Path:
    """Return the folder of the machine code: in `NUMBA_CACHE_DIR` if this user can write there, else in the cache."""
    return Path(writable(os.environ.get("NUMBA_CACHE_DIR", "")) or cache_folder() / "compiled", code_name())


def name() -> str:
    """Return the engine that trains in this process, `NumPy` or `numba 0.61.0`. A run records it."""
    return PLAIN if why_not() else f"numba {version('numba')}"


class Engine:
    """What a training computes with: the functions of engine/; a Team has their counterparts in compiled code."""

    cross_entropy: Callable[..., Any] = staticmethod(cross_entropy)
    has_helper = False  # whether a second thread computes too

    def update(
        self, optimizer: SGD | Adam, parameters: Arrays, gradients: Mapping[str, Any], eta: Rate, lam: Rate
    ) -> None:
        """Take one step of every parameter."""
        optimizer.update(parameters, gradients, eta, lam)

    def average(self, average: WeightAverage, state: Arrays) -> None:
        """Include the arrays of a network in their average, after one more update."""
        average.update(state)

    def accelerated(self, network: Network) -> Network:
        """Return the network as this engine computes it; it shares the arrays that are in C order."""
        return network

    def repeated(self, compute: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
        """Return a function that computes `compute(X)`; that of a Team repeats it without Python."""
        return compute


NUMPY = Engine()


@contextmanager
def open_team(dtype: np.typing.DTypeLike, *, helper: bool = False) -> Iterator[Engine]:
    """Yield a Team for arrays of `dtype`, with a helper thread if `helper` is true; NUMPY without compiled code."""
    if why_not():
        yield NUMPY
        return
    from klcli.compiled.team import Team

    with Team(dtype, helper=helper) as team:
        yield team
