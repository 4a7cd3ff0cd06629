"""The failures that a user can cause or encounter, each with its exit code.

Every message is one line that names the offending value and the cure. Any other exception is a defect (exit 1).
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of `klcli`, part of its public surface (README, Exit codes)."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    DATA = 3
    STORE = 4
    GRADIENT_CHECK = 5
    DIVERGED = 6
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class KlcliError(Exception):
    """Base class of failures with a one-line message for the user. Raise a subclass."""

    exit_code = ExitCode.UNEXPECTED


class ConfigError(KlcliError, ValueError):
    """A setting is out of range, or in a combination that is not allowed."""

    exit_code = ExitCode.USAGE


class DataError(KlcliError):
    """A data set is missing, damaged or different from the expected one."""

    exit_code = ExitCode.DATA


class StoreError(KlcliError):
    """A database, checkpoint, picture or disk cannot be read or written."""

    exit_code = ExitCode.STORE


class GradientCheckFailed(KlcliError):
    """An engine gradient disagrees with the numerical one."""

    exit_code = ExitCode.GRADIENT_CHECK


class Diverged(KlcliError):
    """The cost is no longer finite; a run is stored in the state `diverged`, an evaluation is not stored."""

    exit_code = ExitCode.DIVERGED


class Interrupted(KlcliError):
    """The user or the system asked the command to end."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum, self.exit_code = signum, ExitCode(128 + signum)

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[str, int]]:
        return type(self), (str(self), self.signum)  # a pool of processes hands it on
