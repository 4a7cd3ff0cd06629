"""The second core: work done there while this thread goes on, or here where that core is busy.

How work is divided depends on its shape alone, never on the number of cores or on how busy they are, so the
digits of a result do not depend on them either. That is what the threads of BLAS cannot promise, and they wait
for each other where another process wants a core; here the part that nobody has begun is simply done as well.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache
from threading import Event
from typing import TypeVar

T = TypeVar("T")
First = TypeVar("First")

_allowed = Event()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use(wanted: bool = True) -> None:
    """Let this process use a second core from now on, where there is one, or no longer.

    For a process that trains one network; workers that share the cores among them stay with one.
    """
    if wanted and cores() > 1:
        _allowed.set()
    else:
        _allowed.clear()


def ahead(work: Callable[[], T]) -> Callable[[], T]:
    """Begin work on the second core; the function returned gives its result, and does the work if nobody has begun."""
    if not _allowed.is_set():
        return work
    # With the context goes NumPy's errstate, in which a diverging network is trained.
    begun = _helper().submit(copy_context().run, work)
    return lambda: work() if begun.cancel() else begun.result()


def both(first: Callable[[], First], second: Callable[[], T]) -> tuple[First, T]:
    """Return `(first(), second())`; neither may depend on the other."""
    rest = ahead(second)
    try:
        result = first()
    except BaseException:
        rest()
        raise
    return result, rest()


@lru_cache(maxsize=1)
def _helper() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="second-core")
