"""Executors: where the groups of a study are trained."""

import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from klcli.errors import ConfigError


class ProcessesExecutor(Executor):
    """Spawned processes that die one by one.

    The standard pool of processes gives up all of its workers when one is killed. Here each worker is
    a pool of its own: the task of the dead one fails with BrokenExecutor and its pool is replaced,
    the others go on.
    """

    def __init__(self, jobs: int) -> None:
        """Prepare `jobs` workers; a process starts with its first task."""
        self._threads = ThreadPoolExecutor(jobs)
        self._pools: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
        for _ in range(jobs):
            self._pools.put(_one_process())

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` in the next free process."""
        return self._threads.submit(self._run, fn, args, kwargs)

    def _run(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pool = self._pools.get()
        try:
            return pool.submit(fn, *args, **kwargs).result()
        except BrokenExecutor:
            pool.shutdown(wait=False)
            pool = _one_process()
            raise
        finally:
            self._pools.put(pool)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes once their tasks are done."""
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)
        while not self._pools.empty():
            self._pools.get().shutdown(wait=wait, cancel_futures=cancel_futures)


def _one_process() -> ProcessPoolExecutor:
    # Spawned, not forked: a fork inherits BLAS threads and locks in whatever state they are.
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_leave_signals_to_parent)


def _leave_signals_to_parent() -> None:
    """Ctrl-C reaches every process of the terminal; the parent decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def open_executor(jobs: int, address: str | None, tasks: int) -> Iterator[Executor]:
    """Yield the executor for this many tasks: Dask at `address`, processes, or this process for one worker.

    Raises ConfigError where Dask is not installed or does not answer.
    """
    if address is not None:
        with _dask(address) as executor:
            yield executor
        return
    jobs = min(jobs, tasks)
    executor = ProcessesExecutor(jobs) if jobs > 1 else ThreadPoolExecutor(1)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError(
            f"--executor {address}: Dask is not installed, get it with `pip install 'klcli[dask]'`"
        ) from None
    try:
        client: Any = Client(address, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ConfigError(f"--executor {address}: no Dask scheduler answers there ({error})") from error
    with client:
        # pure=False: two groups with equal arguments are still two groups.
        executor: Executor = client.get_executor(pure=False)
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)
