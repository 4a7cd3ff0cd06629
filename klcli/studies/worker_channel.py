"""Mailbox: a worker on this machine tells how far it is, and hears when it should stop.

Two small files in a folder of the parent's. They work alike for threads, processes and local Dask
workers; on another host the folder is not there, the worker is silent, and Dask says when to stop.
"""

import contextlib
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

STOP = "stop"
PERIOD = 0.2  # seconds between two looks at the folder
NEWS = struct.Struct("<qd")  # updates done, best validation accuracy


class Stopped(Exception):
    """Nobody waits for the result any more."""


@dataclass
class Mailbox:
    """The mailbox of one group."""

    folder: Path
    index: int
    _best: float = 0.0
    _was_there: bool = False  # the folder; on another host it never is
    _next: float = field(default=0.0, compare=False)

    def on_update(self, step: int) -> None:
        """Tell the step from time to time. Raises Stopped where the parent asks for it."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PERIOD
        is_there = self.folder.exists()
        # The parent removes the folder when it has waited long enough for those who do not look at it.
        if (self.folder / STOP).exists() or (self._was_there and not is_there) or _dropped_by_dask():
            raise Stopped
        self._was_there = is_there
        with contextlib.suppress(OSError):
            temporary = self.folder / f"{self.index}.new"
            temporary.write_bytes(NEWS.pack(step, self._best))
            temporary.replace(self.folder / str(self.index))

    def put_best(self, accuracy: float) -> None:
        """Remember the best validation accuracy for the next news."""
        self._best = max(self._best, accuracy)

    def read(self) -> tuple[int, float]:
        """Return the latest news: updates done and best validation accuracy."""
        try:
            step, best = NEWS.unpack((self.folder / str(self.index)).read_bytes())
        except (OSError, struct.error):
            return 0, 0.0
        return step, best

    @staticmethod
    def stop_all(folder: Path) -> None:
        """Ask every worker of this folder to stop."""
        with contextlib.suppress(OSError):
            (folder / STOP).touch()


def _dropped_by_dask() -> bool:
    """Whether this is a task of a Dask worker for whose result nobody waits any more, on whatever host."""
    dask = sys.modules.get("distributed")
    if dask is None:
        return False
    try:
        worker = dask.get_worker()
    except ValueError:  # this is no task of Dask's
        return False
    task = worker.state.tasks.get(worker.get_current_task())
    return task is None or task.state == "cancelled"
