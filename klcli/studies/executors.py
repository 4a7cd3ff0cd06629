"""Executors: the processes or hosts that train the stacks of a study."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from klcli.errors import ConfigError

ANSWER_SECONDS = 5  # seconds for a Dask scheduler, and for the first of its workers, to answer
WATCH_SECONDS = 1.0  # seconds between two checks by a worker that its parent is alive


class ProcessesExecutor(ThreadPoolExecutor):
    """Spawned processes, each in its own pool, because a pool ends all of its workers when one is killed.

    The task of a dead worker fails with BrokenExecutor and its pool is replaced; the others continue.
    """

    def __init__(self, jobs: int) -> None:
        super().__init__(jobs)
        self._pools = [_one_process() for _ in range(jobs)]  # pools without a task; append and pop are atomic

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(self._run, fn, *args, **kwargs)

    def _run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        pool = self._pools.pop()
        # New processes inherit this: Ctrl-C reaches all processes of the terminal, but only the parent handles it.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return pool.submit(fn, *args, **kwargs).result()
        except BrokenExecutor:
            pool.shutdown(wait=False)
            pool = _one_process()
            raise
        finally:
            self._pools.append(pool)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown(wait, cancel_futures=cancel_futures)


def _one_process() -> ProcessPoolExecutor:
    # Spawned, not forked: a fork inherits the threads and locks of BLAS in an undefined state.
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _follow, (os.getpid(),))


def _follow(parent: int) -> None:
    """End this worker when its parent ends, even if the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="follow the parent", daemon=True).start()


@contextmanager
def open_executor(jobs: int, address: str | None, tasks: int) -> Iterator[Executor]:
    """Yield the executor for a number of tasks: Dask at `address`, processes, or this process for one worker.

    Raises ConfigError if Dask is not installed, does not answer or has no worker.
    """
    if address is None:
        jobs = min(jobs, tasks)
        executor: Executor = ProcessesExecutor(jobs) if jobs > 1 else ThreadPoolExecutor(1)
        try:
            yield executor
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
        return
    refused = f"--executor {address}: "
    import asyncio

    try:
        from distributed import Client
    except ImportError:
        raise ConfigError(f"{refused}Dask is not installed, get it with `pip install 'klcli[dask]'`") from None
    # Without this, Dask logs a traceback when the scheduler has ended.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        asyncio.run(_require_answer(address))
        client: Any = Client(address, timeout=ANSWER_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{refused}no Dask scheduler answers there ({error})") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=ANSWER_SECONDS)
        except TimeoutError:
            raise ConfigError(f"{refused}this scheduler has no worker, start one: `dask worker {address}`") from None
        executor = client.get_executor(pure=False)  # otherwise Dask runs two tasks with equal arguments only once
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)


async def _require_answer(address: str) -> None:
    """Raise OSError or ValueError if no scheduler answers; a Client that fails to connect can hang later."""
    from distributed.comm.core import connect

    comm = await connect(address, timeout=ANSWER_SECONDS)  # type: ignore[no-untyped-call]
    await comm.close()
