"""The equations of engine/ compiled by numba, with a helper thread, for speed.

`open_team` yields a Team, which executes compiled operations. With a team, the other functions return compiled
counterparts of what engine/ has. Without numba, the team is None, and they return engine/'s own.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from klcli.data.cifar10.places import cache_folder
from klcli.engine.losses import cross_entropy
from klcli.engine.network import Network
from klcli.engine.optimizers import SGD, Adam, WeightAverage
from klcli.text import one_line

if TYPE_CHECKING:
    from klcli.compiled.team import Team

_loading = threading.Lock()
PLAIN = "NumPy"  # name of engine/ in the versions of a run


def why_not() -> str:
    """Return why this process trains in NumPy, "" if in compiled code, which the first call compiles or loads."""
    with _loading:
        return _why_not()


@lru_cache
def _why_not() -> str:
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "NUMBA_DISABLE_JIT is set"
    try:
        import numba

        users_folder = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = users_folder or str(code_folder())
        try:
            from klcli.compiled.check import check

            check()
        finally:
            numba.config.CACHE_DIR = users_folder
    except Exception as error:  # numba, LLVM, the cache and BLAS raise many types; NumPy replaces them all
        missing = isinstance(error, ModuleNotFoundError) and "numba is not installed"
        return missing or f"{type(error).__name__}: {one_line(error)[:200]}"
    return ""


def is_new() -> bool:
    """Whether the code is not compiled yet; False if the user names a cache, whose contents are not examined."""
    return not (os.environ.get("NUMBA_CACHE_DIR") or code_folder().exists())


@lru_cache
def code_folder() -> Path:
    """Return the cache folder of the machine code, named by a hash of NumPy's version and the sources in this folder.

    numba compiles a function again after a change of its own file, but not after a change of a file that it uses.
    """
    about = hashlib.sha256(np.__version__.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        about.update(file.read_bytes())
    return cache_folder() / "compiled" / about.hexdigest()[:16]


def name() -> str:
    """Return the engine that trains in this process, `NumPy` or `numba 0.61.0`. A run records it."""
    return PLAIN if why_not() else f"numba {version('numba')}"


@contextmanager
def open_team(dtype: np.typing.DTypeLike, *, helper: bool = False) -> "Iterator[Team | None]":
    """Yield a team for arrays of `dtype`, with a helper thread if `helper` is true; None without compiled code."""
    if why_not():
        yield None
        return
    from klcli.compiled.team import Team

    with Team(dtype, helper=helper) as team:
        yield team


def accelerated(network: Network, team: "Team | None") -> Network:
    """Return the network with compiled layers, which share its arrays if these are in C order."""
    if team is None:
        return network
    from klcli.compiled import layers

    return layers.accelerated(network, team)


def plain(network: Network) -> Network:
    """Return the network with the layers of engine/, which share its arrays."""
    if team_of(network) is None:
        return network
    from klcli.compiled import layers

    return layers.plain(network)


def team_of(network: Network) -> "Team | None":
    """Return the team of a network with compiled layers, None for one of engine/."""
    return next((getattr(layer, "team", None) for layer in network.layers.values()), None)


def optimizer_classes(team: "Team | None") -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return the classes SGD, Adam and WeightAverage, bound to the team."""
    if team is None:
        return SGD, Adam, WeightAverage
    from klcli.compiled import optimizers as own

    return partial(own.SGD, team=team), partial(own.Adam, team=team), partial(own.WeightAverage, team=team)


def cross_entropy_of(team: "Team | None") -> Callable[..., Any]:
    """Return `cross_entropy`, bound to the team."""
    if team is None:
        return cross_entropy
    from klcli.compiled import layers

    return partial(layers.cross_entropy, team=team)


def repeated(compute: Callable[[np.ndarray], Any], team: "Team | None") -> Callable[[np.ndarray], Any]:
    """Return a function that computes `compute(X)`, and repeats it without Python for an array X that it has recorded.

    The first call of all is not recorded, because it initialises the running averages. After it, the first call with
    an array X is recorded, and later calls with the same array execute the recorded operations on its new contents.
    `compute` must therefore execute the same operations on the same arrays in every call; whatever changes is written
    into these arrays, if necessary by a function given to `Team.each_time`. A call overwrites the result of the one
    before with the same X.
    """
    if team is None:
        return compute
    programs: dict[int, Any] = {}

    def repeat(X: np.ndarray) -> Any:
        if not programs:
            programs[0] = None
            return compute(X)
        program = programs.get(id(X))
        if program is None:
            with team.recording() as program:
                program.result = compute(X)
            program.arrays.append(X)
            programs[id(X)] = program
        else:
            team.repeat(program)
        return program.result

    return repeat
