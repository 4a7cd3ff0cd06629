"""The second core: work done there while this thread goes on, or here where that core is busy.

How work is divided depends on its shape alone, never on the number of cores or on how busy they are, so the
digits of a result do not depend on them either. That is what the threads of BLAS cannot promise, and they wait
for each other where another process wants a core; here the part that nobody has begun is simply done as well.
"""

import os
from collections.abc import Callable
from contextvars import copy_context
from functools import lru_cache
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Generic, TypeVar

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
    begun = _Work(work)
    _waiting().put(begun)
    return begun.result


def both(first: Callable[[], First], second: Callable[[], T]) -> tuple[First, T]:
    """Return `(first(), second())`; neither may depend on the other."""
    rest = ahead(second)
    try:
        result = first()
    except BaseException:
        rest()
        raise
    return result, rest()


class _Work(Generic[T]):
    """A piece of work that is done once, by whoever claims it first.

    The executors of the standard library do the same, and take 40 us from the thread that waits: several times
    in an update that is a tenth of it.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        # With the context goes NumPy's errstate, in which a diverging network is trained.
        self._work, self._context = work, copy_context()
        self._claim, self._busy = Lock(), Lock()
        self._busy.acquire()
        self._results: list[T] = []
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Do it, unless somebody has begun."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._results.append(self._context.run(self._work))
        except BaseException as error:
            self._error = error
        finally:
            self._busy.release()

    def result(self) -> T:
        """Return what it gives, or raise what it raises."""
        self.begin()
        with self._busy:  # until it is done, by whomever
            pass
        if self._error is not None:
            raise self._error
        return self._results[0]


@lru_cache(maxsize=1)
def _waiting() -> "SimpleQueue[_Work[Any]]":
    """The work that waits for the second core, and the thread that does it there."""
    queue: SimpleQueue[_Work[Any]] = SimpleQueue()

    def serve() -> None:
        while True:
            queue.get().begin()

    Thread(target=serve, name="second-core", daemon=True).start()
    return queue
