"""Signals in a training: the first one takes effect between two updates."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from klcli.errors import ExitCode, KlcliError
from klcli.termination import SIGNALS, deferred


class Interrupted(KlcliError):
    """The user or the system asked the command to end."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = ExitCode(128 + signum)

    def adding(self, what: str) -> "Interrupted":
        return Interrupted(f"{self}: {what}", self.signum)


@contextmanager
def obeyed_between_updates() -> Iterator[Callable[[], None]]:
    """Defer signals inside the block, and yield a function that raises Interrupted after a signal.

    Writes are thus complete before the run is marked. A second signal ends the process immediately; the next opening
    of the database marks the run. Outside the main thread, Python delivers no signals, and none are deferred.
    """
    with deferred() as received:

        def check() -> None:
            if received:
                raise Interrupted(SIGNALS[received[0]], received[0])

        yield check
        check()  # a signal after the last update: a study must not go on to its next stage
