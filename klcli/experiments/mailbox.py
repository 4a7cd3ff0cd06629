"""Mailbox: a worker on this machine tells how far it is, and hears when it should stop.

Two small files in a folder of the parent's. They work alike for threads, processes and local Dask
workers; on another host the folder is not there, and the worker is silent.
"""

import contextlib
import os
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

STOP = "stop"
PERIOD = 0.2  # seconds between two looks at the folder
NEWS = struct.Struct("<qd")  # updates done, best validation accuracy


class Stopped(Exception):
    """The parent asked the worker to stop, or is gone."""


@dataclass
class Mailbox:
    """The mailbox of one group."""

    folder: Path
    index: int
    parent: int  # process id of who waits for the result
    _best: float = 0.0
    _is_child: bool | None = None  # of the parent's; a Dask worker is not
    _next: float = field(default=0.0, compare=False)

    def on_update(self, step: int) -> None:
        """Tell the step from time to time. Raises Stopped where nobody waits for the result any more."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PERIOD
        if (self.folder / STOP).exists():
            raise Stopped
        if self._is_child is None:
            self._is_child = os.getppid() == self.parent
        if self._is_child and os.getppid() != self.parent:
            raise Stopped  # a killed parent could not say so
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
