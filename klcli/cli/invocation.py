"""Invocation: the options that commands share, and the one object through which a command speaks.

Results go to stdout, messages and progress to stderr. A pipe gets plain text at full width: a table that is squeezed
to 80 columns loses digits.
"""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from klcli import DEFAULT_DATABASE
from klcli.cli.options import Command, gathers, integer_option, option
from klcli.settings.setting import Role

if TYPE_CHECKING:  # slow to import, and not needed for --version
    from rich.console import Console, RenderableType

    from klcli.lab import Lab
    from klcli.report.tables.table import Table

SCHEMA = 1  # of the JSON documents; raised when a key changes its meaning or goes away
FULL_WIDTH = 10_000  # columns of a pipe
EXECUTION = "Execution"

# The options that several commands share, by field of Invocation; the last three belong to every command.
SHARED: dict[str, Any] = {
    "repeats": Annotated[
        int,
        integer_option(
            "--repeats", panel=EXECUTION, bounds=(1, 1000),
            help="Seeds per setting, from --seed on; the mean gets an error bar.",
        ),
    ],
    "jobs": Annotated[
        int | None,
        integer_option(
            "--jobs", "-j", panel=EXECUTION, help="Processes that train stacks of networks; all cores.",
            bounds=(1, 1024),
        ),
    ],
    "executor": Annotated[
        str | None,
        option("--executor", panel=EXECUTION, metavar="ADDRESS", help="Use a Dask scheduler, as tcp://host:8786."),
    ],
    "resume": Annotated[
        bool,
        option("--resume", panel=EXECUTION, help="Complete an earlier study of this very command; repeat nothing."),
    ],
    "data": Annotated[
        str | None,
        option(
            "--data", panel=Role.DATA.value, metavar="PATH|cifar10|synthetic",
            help="A folder or archive of CIFAR-10; or cifar10, to insist on it; or synthetic, the built-in set. "
            "Without it: CIFAR-10 where it is found, the built-in set elsewhere.",
        ),
    ],
    "threads": Annotated[
        int,
        integer_option(
            "--threads", panel=Role.RANDOMNESS.value, bounds=(1, 1024),
            help="BLAS threads. Two of them differ from one in the last bits.",
        ),
    ],
    "db": Annotated[
        Path,
        option(
            "--db", panel=Role.OUTPUT.value, envvar="KLCLI_DB",
            help="The SQLite database; pictures and checkpoints are stored beside it.",
        ),
    ],
    "as_json": Annotated[
        bool, option("--json", panel=Role.OUTPUT.value, help="Print one JSON document to stdout instead of tables.")
    ],
    "quiet": Annotated[
        bool, option("--quiet", "-q", panel=Role.OUTPUT.value, help="Suppress progress and messages.")
    ],
    "debug": Annotated[bool, option("--debug", panel=Role.OUTPUT.value, help="Show the traceback of a failure.")],
}  # fmt: skip
ALWAYS = ("as_json", "quiet", "debug")


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """One call of klcli: with which images and database it works, and how it is answered."""

    repeats: int = 1
    jobs: int | None = None
    executor: str | None = None
    resume: bool = False
    data: str | None = None
    threads: int = 1
    db: Path = DEFAULT_DATABASE
    as_json: bool = False
    quiet: bool = False
    debug: bool = False

    def lab(self) -> "Lab":
        """Return the Lab that this call works in."""
        from klcli.cli.progress import Console
        from klcli.lab import Lab

        return Lab(
            self.db,
            data=self.data,
            threads=self.threads,
            jobs=self.jobs,
            executor=self.executor,
            observer=Console(self),
            command=typed_command(),
        )

    @cached_property
    def out(self) -> "Console":
        """The console of results."""
        from rich.console import Console

        # No markup and no emoji: a folder may be called [draft] or :fire:.
        width = None if sys.stdout.isatty() else FULL_WIDTH
        return Console(width=width, highlight=False, markup=False, emoji=False)

    @cached_property
    def err(self) -> "Console":
        """The console of messages and progress."""
        from rich.console import Console

        return Console(stderr=True, quiet=self.quiet, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def result(self, *parts: "Table | RenderableType") -> None:
        """Print what a person asked for; nothing where the answer is a JSON document."""
        from klcli.report.tables.table import Table

        for part in () if self.as_json else parts:
            if isinstance(part, Table):
                part.show(self.out)
            else:
                self.out.print(part, soft_wrap=isinstance(part, str))

    def document(self, command: str, content: dict[str, Any]) -> None:
        """Print the JSON document of the command, where one is wanted."""
        if self.as_json:
            json.dump({"schema": SCHEMA, "command": command, **content}, sys.stdout, indent=2, allow_nan=False)
            sys.stdout.write("\n")

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar on a terminal inside the block; what it yields takes how much was done since."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(what), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
        live = self.err.is_terminal and not self.quiet
        with Progress(*columns, console=self.err, disable=not live, transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda done: bar.advance(task, done)

    def say(self, message: str) -> None:
        """Print a message."""
        self.err.print(message, style="dim")

    def warn(self, message: str) -> None:
        """Print what the user should know before trusting the result."""
        self.err.print(message, style="bold yellow")


def invoked(*names: str, **defaults: Any) -> Callable[[Command], Command]:
    """Give a command the shared options of these names, and pass them as `invocation`."""
    chosen = {name: one for name, one in SHARED.items() if name in (*names, *defaults, *ALWAYS)}
    return gathers(Invocation, "invocation", chosen, last=True, **defaults)


def typed_command() -> str:
    """Return the command as it can be pasted into a shell; bytes that are no text become question marks."""
    return shlex.join(["klcli", *sys.argv[1:]]).encode(errors="replace").decode()
