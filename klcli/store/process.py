"""Which process a run belongs to, and whether that process still lives."""

import os
import socket
from dataclasses import dataclass

import psutil

START_TOLERANCE = 10.0  # seconds, for a system clock that was set meanwhile; a reused pid comes much later


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, told apart from a later one with the same number."""

    host: str
    pid: int
    started_at: float  # seconds since 1970

    @classmethod
    def current(cls) -> "ProcessIdentity":
        """Return this process."""
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())

    def is_gone(self) -> bool:
        """Whether the process has certainly ended; one on another host cannot be seen and counts as alive."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True  # ended, only its parent has not asked yet
            return abs(process.create_time() - self.started_at) > START_TOLERANCE
        except psutil.NoSuchProcess:
            return True
