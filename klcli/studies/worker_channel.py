"""WorkerChannel: the progress of a worker on this machine and the request to stop it, as files of its parent."""

import contextlib
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

STOP = "stop"
PERIOD = 0.2  # seconds between two accesses to the folder
PROGRESS = struct.Struct("<qd")  # updates done, best validation accuracy


class Stopped(Exception):
    """The parent no longer waits for the result."""


@dataclass
class WorkerChannel:
    """Connects the parent and the worker of one stack. On another host it has no effect, and Dask stops the worker."""

    folder: Path
    index: int
    _best: float = 0.0
    _has_seen_folder: bool = False  # a folder that never exists on another host
    _next: float = 0.0  # time of the next access

    def on_update(self, step: int) -> None:
        """Report the step, at most once per PERIOD. Raises Stopped if the parent requests it."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PERIOD
        exists = self.folder.exists()
        # The parent removes the folder after a while, perhaps before a slow worker has read the stop request.
        if (self.folder / STOP).exists() or (self._has_seen_folder and not exists) or _dropped_by_dask():
            raise Stopped
        self._has_seen_folder = exists
        with contextlib.suppress(OSError):
            temporary = self.folder / f"{self.index}.new"
            temporary.write_bytes(PROGRESS.pack(step, self._best))
            temporary.replace(self.folder / str(self.index))

    def put_best(self, accuracy: float) -> None:
        self._best = max(self._best, accuracy)

    def read(self) -> tuple[int, float]:
        """Return the latest report: updates done and best validation accuracy."""
        with contextlib.suppress(OSError, struct.error):
            step, best = PROGRESS.unpack((self.folder / str(self.index)).read_bytes())
            return step, best
        return 0, 0.0

    @staticmethod
    def stop_all(folder: Path) -> None:
        with contextlib.suppress(OSError):
            (folder / STOP).touch()


def _dropped_by_dask() -> bool:
    """Whether this code runs in a cancelled task of a Dask worker, on any host."""
    try:
        worker = sys.modules["distributed"].get_worker()
    except (KeyError, ValueError):  # Dask is not loaded, or this is not one of its tasks
        return False
    task = worker.state.tasks.get(worker.get_current_task())
    return task is None or task.state == "cancelled"
