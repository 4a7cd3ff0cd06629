"""`klcli` as a real process without its slow parts: no picture is drawn, numba is not loaded, the disk not waited for.

They are three quarters of a small training. For tests about signals, streams, disks and kills, which start many
processes; the workers of a study train in NumPy, too. Runs whose bits are compared need one engine for all:
`NUMBA_DISABLE_JIT=0` in the environment keeps the compiled one.
"""

import os
import sqlite3
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

KLCLI = (sys.executable, "-m", "klcli")
LIGHT = (sys.executable, str(Path(__file__).resolve()))  # in place of KLCLI
COMPILED = {"NUMBA_DISABLE_JIT": "0"}
_connect = sqlite3.connect


class Unsynced(sqlite3.Connection):
    """A connection that waits for no disk: a kill loses nothing that was written, only a power cut does."""

    def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
        return super().execute("PRAGMA synchronous = OFF" if sql.startswith("PRAGMA synchronous") else sql, *more)


def connect(*args: Any, **named: Any) -> sqlite3.Connection:
    """Stand in for `sqlite3.connect`."""
    return _connect(*args, **{"factory": Unsynced, **named})


def fsync(descriptor: int) -> None:
    """Stand in for `os.fsync`."""


def main() -> None:
    sqlite3.connect, os.fsync = connect, fsync
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
    from klcli import termination
    from klcli.cli import streams

    streams.protect()
    termination.obey()
    figure: Any = ModuleType("klcli.report.plots.figure")
    figure.draw = lambda chart, *form: b"not drawn"
    sys.modules |= {figure.__name__: figure, "matplotlib": ModuleType("matplotlib")}
    from klcli.cli.app import main
    from klcli.cli.invocation import Invocation

    warn = Invocation.warn
    # What a test expects on stderr is what a usual process says.
    Invocation.warn = lambda self, message: None if "NUMBA_DISABLE_JIT" in message else warn(self, message)  # type: ignore[method-assign]
    main()


if __name__ == "__main__":
    sys.path[0] = ""  # as -m has it, not the folder of this file
    main()
