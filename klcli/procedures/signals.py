"""Ctrl-C and SIGTERM: the first signal takes effect between two updates, the second immediately."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from klcli.errors import ExitCode, KlcliError


class Interrupted(KlcliError):
    """The user or the system asked the command to end."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = ExitCode.INTERRUPTED if signum == signal.SIGINT else ExitCode.TERMINATED

    def adding(self, what: str) -> "Interrupted":
        """Return the same interruption with an additional message."""
        return Interrupted(f"{self}: {what}", self.signum)


@contextmanager
def obeyed_between_updates() -> Iterator[Callable[[], None]]:
    """Defer signals inside the block, and yield a function that raises Interrupted after a signal.

    Writes are thus complete before the run is marked. A second signal ends the process immediately; the next opening
    of the database marks the run. Outside the main thread, Python delivers no signals, and none are deferred.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        if received:
            os._exit(128 + signum)
        received.append(signum)

    def check() -> None:
        if received:
            raise Interrupted("interrupted" if received[0] == signal.SIGINT else "terminated", received[0])

    previous = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def end_at_the_next_signal() -> None:
    """Let another signal end the process immediately, while the command prints its last message."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda number, frame: os._exit(128 + number))
