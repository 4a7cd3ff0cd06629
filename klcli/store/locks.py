"""Locks: a run is alive while its process holds a file lock, which the kernel releases, on any host, when it ends."""

import errno
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from klcli.errors import StoreError
from klcli.store.connection import BUSY_SECONDS
from klcli.termination import raise_deferred

if TYPE_CHECKING:  # imported for a run that is running, not for every report
    from filelock import FileLock

SUFFIX = ".lock"
PROBE_SECONDS = 0.02  # another process may be probing the same lock


class Locks:
    """The locks of one database: empty files, each named after its owner, random digits that are never reused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failure: str | None = None  # the reason if the file system has no locks
        self._held: dict[str, FileLock] = {}

    def take(self) -> str:
        """Lock a new file and return its owner. Sets `failure`; raises StoreError if the file cannot be made."""
        while True:
            owner = secrets.token_hex(8)
            lock = _lock(file := self._file(owner))
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                file.touch()
            except OSError as error:
                is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                cure = "free some space" if is_full else "remove what is in its place or choose another --db"
                raise StoreError(f"{file}: cannot be made ({error.strerror}), {cure}") from error
            try:
                lock.acquire()
                self._held[owner] = lock
            except TimeoutError:  # a process that removes dead locks was faster
                continue
            except OSError as error:
                self.failure = error.strerror or str(error)
            return owner

    @contextmanager
    def numbering(self) -> Iterator[None]:
        """Keep other processes out of the block: those of `y.db` and `y.sqlite` number runs in one folder of files.

        It is entered before a transaction. Raises StoreError after BUSY_SECONDS.
        """
        with ExitStack() as stack:
            if sys.platform != "win32":
                import fcntl

                with suppress(OSError):  # a file system without locks
                    self.folder.mkdir(parents=True, exist_ok=True)
                    stack.callback(os.close, folder := os.open(self.folder, os.O_RDONLY))
                    self._wait_for(partial(fcntl.flock, folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
            yield

    def _wait_for(self, lock: Callable[[], object]) -> None:
        begun = time.monotonic()
        while True:
            with suppress(BlockingIOError):
                lock()
                return
            if time.monotonic() - begun >= BUSY_SECONDS:
                words = f"another program has numbered runs here for {BUSY_SECONDS} s, close it and run again"
                raise StoreError(f"{self.folder}: {words}")
            raise_deferred()
            time.sleep(PROBE_SECONDS)

    @contextmanager
    def releasing(self, owner: str | None) -> Iterator[None]:
        try:
            yield
        finally:
            self.release(owner)

    def release(self, owner: str | None) -> None:
        if lock := self._held.pop(owner or "", None):
            with suppress(OSError):  # Windows removes no open file; filelock does it below
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def is_held(self, owner: str | None) -> bool | None:
        """Whether the process of an owner is alive; None if unknown, without locks in the file system."""
        if owner in self._held:
            return True
        with suppress(OSError):
            # Another text in a foreign database could name a file elsewhere, which probing would empty.
            if owner is None or not re.fullmatch("[0-9a-f]{16}", owner) or not self._file(owner).exists():
                return False
            with self._probing(self._file(owner)) as is_free:
                return None if is_free is None else not is_free
        return None

    def remove_dead(self) -> None:
        with suppress(OSError):
            for file in (one for one in self.folder.glob(f"*{SUFFIX}") if one.stem not in self._held):
                with self._probing(file) as is_free, suppress(OSError):
                    if is_free:  # removed while locked: a process that has just made it finds out, and makes another
                        file.unlink(missing_ok=True)  # refused by Windows, where filelock does it after the probe

    @contextmanager
    def _probing(self, file: Path) -> Iterator[bool | None]:
        """Keep other processes from locking a file inside the block, and yield whether it is free; None if unknown."""
        is_free = None
        with ExitStack() as stack:
            try:
                if sys.platform == "win32":
                    stack.enter_context(_lock(file).acquire(timeout=PROBE_SECONDS, poll_interval=PROBE_SECONDS / 5))
                else:
                    import fcntl

                    # Shared with other probes, and possible with a file that can only be read; a pipe could block.
                    stack.callback(os.close, opened := os.open(file, os.O_RDONLY | os.O_NONBLOCK))
                    fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
                is_free = True
            except (TimeoutError, BlockingIOError):
                is_free = False
            except OSError:
                pass
            yield is_free

    def _file(self, owner: str) -> Path:
        return self.folder / f"{owner}{SUFFIX}"


def _lock(file: Path) -> "FileLock":
    from filelock import FileLock

    # The fallback is a file with a pid in it, which is wrong wherever pids are.
    return FileLock(file, timeout=0, thread_local=False, fallback_to_soft=False)
