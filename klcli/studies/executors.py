"""Executors: the processes or hosts that train the stacks of a study."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import klcli
from klcli.errors import ConfigError, KlcliError
from klcli.termination import TERMINAL_SIGNALS, kept_from_children

DASK_SCHEMES = ("tcp", "tls", "ucx", "ws", "wss")
ANSWER_SECONDS = 5  # seconds for a Dask scheduler, and for the first of its workers, to answer


class WorkersLost(KlcliError):
    """A stack cannot be trained: its workers die or cannot be started, or the Dask scheduler has ended."""


class ProcessesExecutor(ThreadPoolExecutor):
    """Spawned processes, each in a pool of its own, because a pool ends all its workers when one is killed.

    The pool of a dead worker is replaced; the others continue.
    """

    def __init__(self, jobs: int) -> None:
        if multiprocessing.current_process().daemon:
            raise OSError("a process of multiprocessing.Pool may start none")
        Path.cwd()  # raises FileNotFoundError in a folder that was removed, where no process can be started
        super().__init__(jobs)
        self._all: list[ProcessPoolExecutor] = []
        self._is_killed = False
        self._pools = [self._new_pool() for _ in range(jobs)]  # pools without a task; append and pop are atomic

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(self._run, fn, *args, **kwargs)

    def _run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        pool = self._pools.pop()
        try:
            future = self._started(pool, fn, *args, **kwargs)
            _leave_results_to_the_worker(pool)
            if self._is_killed:  # just before the process was started
                _kill(pool)
            return future.result()
        except BrokenExecutor:
            pool.shutdown(wait=False)
            pool = self._new_pool()
            raise
        finally:
            self._pools.append(pool)

    def _started(self, pool: ProcessPoolExecutor, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        try:
            with kept_from_children(), _isolated():
                return pool.submit(fn, *args, **kwargs)
        except BrokenExecutor:
            raise
        except (OSError, RuntimeError) as error:  # no more files, processes or threads for this user
            cure = "give fewer --jobs, or raise the limit with `ulimit`"
            raise WorkersLost(f"no worker can be started ({error}), {cure}") from error

    def kill(self) -> None:
        """End all workers at once; one that still imports libraries reads no request to stop for seconds."""
        self._is_killed = True
        for pool in self._all:
            _kill(pool)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown(wait, cancel_futures=cancel_futures)

    def _new_pool(self) -> ProcessPoolExecutor:
        # Spawned, not forked: a fork inherits the threads and locks of BLAS in an undefined state.
        with kept_from_children(), _isolated():  # the process that removes lost semaphores starts here
            pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _follow)
        self._all.append(pool)
        return pool


@contextmanager
def _isolated() -> Iterator[None]:
    """Start processes that do not import the script of the caller: it would begin again there, down to this study.

    Like `klcli`, they take no file of the current folder, such as random.py, for a module of the standard library.
    The script may still choose how it starts processes itself: for a spawned one, multiprocessing sets the default.
    """
    with _starting:
        safe_path, os.environ["PYTHONSAFEPATH"] = os.environ.get("PYTHONSAFEPATH"), "1"
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        is_open = multiprocessing.get_start_method(allow_none=True) is None
        try:
            yield
        finally:
            sys.modules["__main__"] = script
            del os.environ["PYTHONSAFEPATH"]
            if safe_path is not None:
                os.environ["PYTHONSAFEPATH"] = safe_path
            if is_open:
                multiprocessing.set_start_method(None, force=True)


_starting = threading.Lock()  # the thread of each worker starts it


def _leave_results_to_the_worker(pool: Any) -> None:
    """Close this end of the pipe for results: else the pool waits forever for the rest of one whose worker was killed.

    The worker has its own since it was started. Python keeps this one open, and so sees no end of the pipe.
    """
    with suppress(AttributeError):  # names of another Python
        pool._result_queue._writer.close()


def _kill(pool: ProcessPoolExecutor) -> None:
    for process in [*(getattr(pool, "_processes", None) or {}).values()]:  # as `kill_workers` of Python 3.14 does
        process.kill()


def _follow() -> None:
    """End this worker when its parent ends, even if the parent was killed."""
    for signum in TERMINAL_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()  # Windows keeps the number of a parent that has ended
            os._exit(1)

    threading.Thread(target=watch, name="follow the parent", daemon=True).start()


@contextmanager
def open_executor(
    jobs: int, address: str | None, tasks: int, warn: Callable[[str], None] = lambda message: None
) -> Iterator[Executor]:
    """Yield an executor: Dask at `address`, else processes, else this process (for one worker, or with a warning).

    Raises ConfigError if no Dask scheduler with a worker answers, or if these have another klcli or none.
    """
    with nullcontext() if address is None else _dask_client(address) as client:
        if client:
            _require_klcli(client, f"--executor {address}")
        # Not pure: otherwise Dask runs two tasks with equal arguments only once.
        executor: Executor = client.get_executor(pure=False) if client is not None else ThreadPoolExecutor(1)
        if not client and min(jobs, tasks) > 1:
            try:
                executor = ProcessesExecutor(min(jobs, tasks))
            # Their queues need semaphores. Without /dev/shm, Linux has none.
            except (OSError, ImportError, NotImplementedError) as error:
                warn(f"no processes beside this one ({error}): the runs are trained one after the other in this one")
        try:
            yield executor
        finally:
            executor.shutdown(wait=False) if client else executor.shutdown(wait=True, cancel_futures=True)


def _dask_client(address: str) -> Any:
    """Return a client of the scheduler at `address`, which has a worker. Raises ConfigError."""
    refused = f"--executor {address}: no Dask scheduler answers there"
    cure = "give the address that `dask scheduler` prints at its start, such as tcp://localhost:8786"
    try:
        url = urlsplit(address if "://" in address else f"tcp://{address}")
        is_complete = url.scheme in DASK_SCHEMES and url.hostname and url.port and not url.path
    except ValueError:  # the port is no number
        is_complete = False
    if not is_complete:
        raise ConfigError(f"{refused}, {cure}")
    try:
        import asyncio

        import distributed
    except ImportError:
        cure = "get it with `pip install 'klcli[dask]'`"
        raise ConfigError(f"--executor {address}: Dask is not installed, {cure}") from None
    # Without this, Dask logs a traceback when the scheduler has ended, and when another program answers.
    for name in ("distributed.client", "distributed.protocol.core"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    def connected() -> Any:
        async def answer() -> None:
            own: Any = distributed.Security().get_connection_args("client")  # type: ignore[no-untyped-call]  # for tls
            comm = await distributed.comm.core.connect(address, ANSWER_SECONDS, **own)  # type: ignore[no-untyped-call]
            await comm.close()

        asyncio.run(asyncio.wait_for(answer(), ANSWER_SECONDS))  # a Client that fails to connect can hang later
        client: Any = distributed.Client(address, timeout=ANSWER_SECONDS)  # type: ignore[no-untyped-call]
        try:
            client.wait_for_workers(1, timeout=ANSWER_SECONDS)
        except TimeoutError:
            client.close()
            start = f"start one: `dask worker {address}`"
            raise ConfigError(f"--executor {address}: this scheduler has no worker, {start}") from None
        return client

    try:
        return _within(4 * ANSWER_SECONDS, connected)
    except ConfigError:
        raise
    except Exception as error:  # another program may answer anything, to which Dask may react in any way
        is_clear = isinstance(error, OSError | ImportError) or url.scheme == "tls"  # which asks for a certificate
        reason = str(error) if is_clear else "another program does"
        raise ConfigError(f"{refused} ({reason or f'nothing in {ANSWER_SECONDS} s'}), {cure}") from error


def _require_klcli(client: Any, option: str) -> None:
    """Raise ConfigError for another klcli: workers that cannot read a task end, and a study would wait for others."""
    version = klcli.__version__
    probe = f"import klcli\nif klcli.__version__ != {version!r}: raise ImportError(f'klcli {{klcli.__version__}}')"
    try:
        with suppress(OSError):  # one answers too late, or has just ended
            for run in (client.run_on_scheduler, client.run):
                _within(ANSWER_SECONDS, partial(run, exec, probe))
    except ImportError as error:
        differs = f"{error} on its scheduler or a worker, klcli {version} here: install the same on both"
        raise ConfigError(f"{option}: {differs}") from None


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return the result of `call`. Raises TimeoutError if it takes longer, and leaves it to its thread."""
    result: Future[Any] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="connecting", daemon=True).start()
    return result.result(seconds)
