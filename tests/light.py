"""`klcli` as a real process without its two slow parts: no picture is drawn, and numba is not loaded.

They are three quarters of a small training. For tests about signals, streams, disks and kills, which start many
processes; the workers of a study train in NumPy, too. Runs whose bits are compared need one engine for all:
`NUMBA_DISABLE_JIT=0` in the environment keeps the compiled one.
"""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

KLCLI = (sys.executable, "-m", "klcli")
LIGHT = (sys.executable, str(Path(__file__).resolve()))  # in place of KLCLI
COMPILED = {"NUMBA_DISABLE_JIT": "0"}


def main() -> None:
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
    from klcli import termination
    from klcli.cli import streams

    streams.protect()
    termination.obey()
    figure: Any = ModuleType("klcli.report.plots.figure")
    figure.draw = lambda chart, suffix="png": b"not drawn"
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
