"""Session: the one object through which a command speaks.

Results go to stdout, talk and progress to stderr. A pipe gets plain text at full width: a table
that is squeezed to 80 columns loses digits.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # slow to import, and not needed for --version
    from rich.console import Console, RenderableType

    from klcli.report.tables.table import Table

SCHEMA = 1  # of the JSON documents; raised when a key changes its meaning or goes away
FULL_WIDTH = 10_000  # columns of a pipe


@dataclass(frozen=True)
class Session:
    """How this call of klcli wants to be answered."""

    as_json: bool = False
    quiet: bool = False

    @cached_property
    def out(self) -> "Console":
        """The console of results."""
        from rich.console import Console

        # No markup and no emoji: a folder may be called [draft] or :fire:.
        width = None if sys.stdout.isatty() else FULL_WIDTH
        return Console(width=width, highlight=False, markup=False, emoji=False)

    @cached_property
    def err(self) -> "Console":
        """The console of talk and progress."""
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
        """Tell what is going on."""
        self.err.print(message, style="dim")

    def warn(self, message: str) -> None:
        """Tell what the user should know before trusting the result."""
        self.err.print(message, style="bold yellow")
