"""The second core: a process beside this one that computes on the same memory.

An update of a small network is a few hundred microseconds of products between many operations of two or three.
Threads do not share that: each waits for the interpreter lock of the other, and each wait puts a core to sleep
that takes 50 us to wake. A process has a lock of its own. It stays awake between two pieces of work, and finds
W and the minibatches where this process has them, so that a piece of work is handed over in 15 us.

Where it decides digits how work is divided, that depends on its shape alone, never on the number of cores or on
how busy they are, so the digits of a result do not depend on them either. A piece that the other process has not
begun when this one needs it is taken back and done here.
"""

import atexit
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

Part = tuple[int, int]  # of a piece of work: which, counted from 0, of how many

if TYPE_CHECKING:  # it brings multiprocessing along, which few commands need
    from klcli.second_core.partner import Begun, Partner


@dataclass
class _State:
    """Of this process; there is one other process at a time."""

    is_allowed: bool = False
    partner: "Partner | None" = None


_state = _State()


def cores() -> int:
    """Return how many cores this process may use: by its affinity, and by the CPU quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *map(math.ceil, _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield the cores that the control groups of this process allow: cgroups of Linux, versions 1 and 2."""
    groups = Path("/proc/self/cgroup")
    for line in groups.read_text(encoding="utf-8").splitlines() if groups.exists() else ():
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup", "cpu" if controllers else "")
        # In a container, the name may be that of the host, and only the root is there.
        for folder in (root / name.lstrip("/"), *(root / name.lstrip("/")).parents):
            files = [folder / file for file in ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")]
            with suppress(OSError, ValueError):  # no such file; "max" is no limit
                quota, period = " ".join(file.read_text() for file in files if file.exists()).split()
                if int(quota) > 0:
                    yield int(quota) / int(period)


def use(wanted: bool = True) -> None:
    """Let this process use a second core from now on, where there is one, or no longer.

    For a process that trains alone; workers that share the cores among them stay with one.
    """
    _state.is_allowed = wanted and cores() > 1


def start(size: int) -> bool:
    """Start the process that shares `size` bytes of arrays with this one, in place of the one before.

    Return whether that was possible. Where the use of a second core is not allowed nothing changes; where the
    system does not give it, all goes on with one.
    """
    if not _state.is_allowed:
        return False
    from klcli.second_core.partner import Partner

    stop()
    try:
        _state.partner = Partner(size)
    except (OSError, ImportError):  # no semaphores, or no memory to share
        return False
    atexit.unregister(stop)
    atexit.register(stop)  # last in, first out: before multiprocessing waits for it
    return True


def stop() -> None:
    """End the process, if there is one; its arrays stay."""
    if _state.partner is not None:
        _state.partner.close()
        _state.partner = None


def empty(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """Return a new array that both processes see; of this one alone where there is no room or no other."""
    partner = _state.partner
    array = partner.empty(shape, np.dtype(dtype)) if partner is not None and _state.is_allowed else None
    return np.empty(shape, dtype) if array is None else array


def begin(
    function: Callable[..., Any], *arguments: Any, out: np.ndarray | None = None, in_place: bool = False
) -> "Begun | None":
    """Let the other process begin `function(*arguments, out)`, or `function(*arguments)`; None where it cannot.

    The function is one of a module, by its name. It finds arrays of `empty` where they are and copies of all
    others, and may change `out` alone; `in_place` says that it reads `out` too, so that it cannot be done twice.
    What has begun must be asked whether it has `ended`.
    """
    if _state.partner is None or not _state.is_allowed:
        return None
    return _state.partner.begin(function, arguments, out, in_place=in_place)


def then(function: Callable[..., Any], *arguments: Any, out: np.ndarray, parts: int) -> "Begun | None":
    """Let it begin `function(*arguments, part, out)` for each part (0, parts), (1, parts)...: what can wait.

    That is offered behind the next piece of work that is begun, and what is begun later goes before the parts
    that are left then. `out` is an array of `empty`. Any division gives the same bits, as there may be one part
    (0, 1) instead. It must be asked what is `left`, to the end.
    """
    if _state.partner is None or not _state.is_allowed:
        return None
    return _state.partner.begin(function, arguments, out, parts=parts)


def left(begun: "Begun | None") -> Iterator[Part]:
    """Yield the parts to be done here, one by one while the other process does others; then all are done."""
    if begun is None:
        yield 0, 1
        return
    yield from begun.left()
    if begun.why_lost and begun.partner is _state.partner:
        stop()


def tell(function: Callable[..., Any], *arguments: Any) -> bool:
    """Let the other process call `function(*arguments)`, whose arrays it may keep; return whether it will."""
    return _state.partner is not None and _state.is_allowed and _state.partner.tell(function, arguments)


def ended(begun: "Begun | None") -> bool:
    """Return whether the other process has done the work: wait if it has begun, and withdraw the work if it has not.

    Raises PartnerLost if the other process ended in the middle of work that cannot be repeated.
    """
    if begun is None or begun.finish():
        return begun is not None
    if begun.why_lost:
        if begun.partner is _state.partner:
            stop()
        begun.require_that_it_can_be_done_again()
    return False
