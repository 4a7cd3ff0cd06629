"""ProcessIdentity: identifies the process that trains a run, and checks whether it is alive."""

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

# Seconds. Linux counts the start of a process from boot, exactly. Elsewhere it is a time of day, which
# changes when the clock is set; a reused pid starts much later.
START_TOLERANCE = 0.005 if sys.platform == "linux" else 10.0


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, distinguished from a later one with the same pid; the fields are columns of runs."""

    host: str
    pid: int
    process_started_at: float  # seconds since boot on Linux, since 1970 elsewhere

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity":
        """Return the process of this number on this host. Raises psutil.NoSuchProcess where there is none."""
        return cls(socket.gethostname(), pid, _started_at(pid))

    @classmethod
    def current(cls) -> "ProcessIdentity":
        return cls.of(os.getpid())

    def is_gone(self) -> bool:
        """Whether the process has certainly ended; one on another host counts as running."""
        try:
            return self.host == socket.gethostname() and (
                psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE  # ended, not yet reaped by its parent
                or abs(_started_at(self.pid) - self.process_started_at) > START_TOLERANCE
            )
        except psutil.NoSuchProcess:
            return True


def _started_at(pid: int) -> float:
    # On Linux independent of the clock, which can jump by hours when the machine was suspended.
    if sys.platform != "linux":
        return psutil.Process(pid).create_time()
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    # The program name is in parentheses and may contain any character; starttime is field 22.
    return int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
