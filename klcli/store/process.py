"""Which process a run belongs to, and whether that process still lives."""

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

# Seconds. Linux counts the start of a process from its boot, exactly. Elsewhere it is a time of day, which
# moves when the clock is set; a reused pid comes much later.
START_TOLERANCE = 0.005 if sys.platform == "linux" else 10.0


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, told apart from a later one with the same number."""

    host: str
    pid: int
    started_at: float  # seconds since boot on Linux, since 1970 elsewhere

    @classmethod
    def current(cls) -> "ProcessIdentity":
        """Return this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity":
        """Return the process of this number on this host. Raises psutil.NoSuchProcess where there is none."""
        return cls(socket.gethostname(), pid, _started_at(pid))

    def is_gone(self) -> bool:
        """Whether the process has certainly ended; one on another host cannot be seen and counts as alive."""
        if self.host != socket.gethostname():
            return False
        try:
            if psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE:
                return True  # ended, only its parent has not asked yet
            return abs(_started_at(self.pid) - self.started_at) > START_TOLERANCE
        except psutil.NoSuchProcess:
            return True


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs on this host."""
    return psutil.pid_exists(pid)


def _started_at(pid: int) -> float:
    """When a process started, in a way that setting the clock does not change where the system has one.

    A machine that was suspended, or a virtual one that was, may set its clock by hours while a run lives.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            raise psutil.NoSuchProcess(pid) from None
        # The name of the program stands in parentheses and may hold anything; starttime is field 22.
        return int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return psutil.Process(pid).create_time()
