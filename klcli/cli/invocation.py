"""Invocation: the shared options of all commands, and their output: results to stdout, messages to stderr."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from klcli.cli.options import Command, takes
from klcli.errors import Interrupted, KlcliError
from klcli.procedures.observer import Observer
from klcli.settings.procedures import MOST_REPEATS, MOST_THREADS, VARY
from klcli.settings.run_command import DEFAULT_DATABASE, database_in_use
from klcli.settings.setting import Role, Settings, flag, setting
from klcli.text import command_text, one_line, visible

if TYPE_CHECKING:  # slow to import, and not needed for --version
    from rich.console import Console
    from rich.progress import Progress

    from klcli.cli.progress import StudyProgress, TrainingProgress
    from klcli.lab import Lab
    from klcli.report.plots.chart import Chart, Look
    from klcli.report.tables.table import Table
    from klcli.store.store import Store
    from klcli.studies.execution import StackTask
    from klcli.training.budget import Budget

SCHEMA = 2  # version of the JSON documents; raised when a key changes its meaning or is removed
FULL_WIDTH = 10_000  # columns assumed for a pipe: a table limited to 80 columns loses digits
EXECUTION = "Execution"
ALWAYS = ("as_json", "quiet", "debug")


@dataclass(frozen=True, kw_only=True)
class Invocation(Settings, Observer):
    """One call of klcli: its images, its database and the form of its output."""

    last_word: ClassVar[float] = time.monotonic()  # when this process last wrote something for a person, or began
    # fmt: off
    repeats: int = setting(
        1, EXECUTION, "Train with this many seeds per setting, from --seed or 0 on; the mean gets an error bar.",
        at_least=1, at_most=MOST_REPEATS)
    vary: str = setting(
        "all", EXECUTION, "What differs between repeats: everything; the weights, with one order of the images; "
        "order, dropout and augmentation, with the same weights; everything and the validation images.", choices=VARY)
    jobs: int | None = setting(
        None, EXECUTION, "Train stacks of networks in this many processes; one per core if omitted.",
        short="-j", at_least=1, at_most=MOST_THREADS)
    executor: str | None = setting(None, EXECUTION, "Use a Dask scheduler, as tcp://host:8786.", metavar="ADDRESS")
    resume: bool = flag(EXECUTION, "Complete an earlier study of the same command; complete runs are kept.")
    data: str | None = setting(
        None, Role.DATA, "Use this folder or archive; cifar10 insists on CIFAR-10, synthetic is the built-in set. "
        "If omitted: CIFAR-10 if it is found, else the built-in set.", metavar="PATH|cifar10|synthetic")
    threads: int = setting(
        1, Role.RANDOMNESS, "Number of BLAS threads. With 1, klcli computes on a second core itself, which is faster "
        "than --threads 2. Results with 1 and 2 differ in the last bits.", at_least=1, at_most=MOST_THREADS)
    db: Path = setting(
        DEFAULT_DATABASE, Role.OUTPUT, "Use this SQLite database; pictures and checkpoints are stored beside it.",
        envvar="KLCLI_DB")
    as_json: bool = flag(Role.OUTPUT, "Print one JSON document to stdout instead of tables.", option="--json")
    quiet: bool = flag(Role.OUTPUT, "Suppress progress and messages.", short="-q")
    debug: bool = flag(Role.OUTPUT, "Show the traceback of a failure.")
    # fmt: on

    @cached_property
    def lab(self) -> "Lab":
        from klcli.lab import Lab

        own = {key: getattr(self, key) for key in ("data", "threads", "jobs", "executor")}
        return Lab(self.db, **own, observer=self, command=typed_command())

    def existing_store(self) -> "Store":
        """Open the database. Raises StoreError if there is none."""
        from klcli.store.store import Store

        with self.step("opening the database"):
            return Store.existing(self.db)

    @property
    def seeds(self) -> dict[str, Any]:
        """How a study is repeated over seeds, for the methods of the Lab."""
        return {"repeats": self.repeats, "vary": self.vary, "resume": self.resume}

    @cached_property
    def out(self) -> "Console":
        return _console(width=None if sys.stdout.isatty() else FULL_WIDTH)

    @cached_property
    def err(self) -> "Console":
        return _console(stderr=True, quiet=self.quiet, soft_wrap=True)

    def result(self, *parts: "Table | str") -> None:
        """Print a result for a person; nothing with --json."""
        from klcli.report.tables.table import Table
        from klcli.report.tables.terminal import show

        for part in () if self.as_json else parts:
            if isinstance(part, Table):
                show(part, self.out)
            else:
                self.out.print(_lines(part, self.out), soft_wrap=True)
        self.spoke()

    def places(self, *then: str, **paths: Path | None) -> None:
        """Print where the results are stored, None is omitted, and name the next useful commands, as `then` does."""
        self.result(*(f"{kind:<12}{path}" for kind, path in {"database": self.db, **paths}.items() if path is not None))
        self.then(*then)

    def then(self, *commands: str) -> None:
        """Name the next useful commands, given without `klcli` and without the database."""
        self.say(*(f"{'next':<12}klcli {words}{self.database_words}" for words in commands if not self.as_json))

    @property
    def database_words(self) -> str:
        """The option that names the database at the end of a command, empty for the default one."""
        return "" if self.db == database_in_use() else f" {command_text(['--db', str(self.db)])}"

    def document(self, command: str, content: dict[str, Any]) -> None:
        if self.as_json:
            whole = {"schema": SCHEMA, "command": command, **content}
            print(json.dumps(whole, indent=2, allow_nan=False, default=os.fspath))

    def picture(self, file: Path | str, chart: Callable[[], "Chart"], *look: "Look") -> Path | None:
        """Draw a chart into a PNG, SVG or PDF file, return its path; whatever fails is one warning, and None.

        A name is that of a file beside the database.
        """
        try:
            from klcli.store.checkpoints import write_atomically

            path = file if isinstance(file, Path) else self.lab.store.folder("plots") / file
            with self.step("drawing"):
                from klcli.report.plots import figure

                write_atomically(path, figure.draw(chart(), path.suffix.removeprefix("."), *look))
            return path
        except Interrupted:
            raise
        except Exception as error:  # a broken matplotlib can raise anything
            self.warn(f"no picture: {reason(error)}")
            return None

    def say(self, *messages: str) -> None:
        for message in messages:
            self.err.print(_lines(message, self.err), style="dim")
        self.spoke()

    @cached_property
    def _warned(self) -> set[str]:
        return set()

    def warn(self, message: str) -> None:
        """Print a warning, once: an assignment has many trainings on the same images."""
        if message not in self._warned:
            self._warned.add(message)
            self.err.print(_lines(message, self.err), style="bold yellow")

    @property
    def is_live(self) -> bool:
        """Whether progress is shown as bars, not as lines: FORCE_COLOR asks for colour, not for bars in a log file."""
        is_shown = not self.quiet and sys.stderr.isatty()
        return is_shown and self.err.is_terminal and self.err.is_interactive and not self.err.no_color

    def spoke(self) -> None:
        """Remember that a person has just seen something."""
        Invocation.last_word = time.monotonic()

    @property
    def patience(self) -> float:
        """Seconds that a step may take before its progress is shown: fewer on a terminal than in a log."""
        return 0.6 if sys.stderr.isatty() else 1.5

    def bar(self, *columns: Any) -> "Progress":
        from rich.progress import Progress

        return Progress(*columns, console=self.err, disable=not self.is_live, transient=True, refresh_per_second=4)

    def step(self, name: str, total: float | None = None) -> AbstractContextManager[Callable[[float], None]]:
        if self.quiet:
            return super().step(name, total)
        from klcli.cli.progress import Step

        return Step(self, name, total)

    def training(self, budget: "Budget") -> AbstractContextManager[Observer]:
        from klcli.cli.progress import TrainingProgress

        return self._shown(TrainingProgress(self, budget))

    def study(
        self, title: str, tasks: "Sequence[StackTask]", updates: Sequence[int]
    ) -> AbstractContextManager[Observer]:
        from klcli.cli.progress import StudyProgress

        return self._shown(StudyProgress(self, title, tasks, updates))

    @contextmanager
    def _shown(self, progress: "TrainingProgress | StudyProgress") -> Iterator[Observer]:
        with progress.bar:
            yield progress
        self.spoke()


def invoked(*names: str, **defaults: Any) -> Callable[[Command], Command]:
    """Add to a command the named shared options and the options that every command has."""
    return takes(Invocation, only=(*names, *defaults, *ALWAYS), **defaults)


def _console(**how: Any) -> "Console":
    """Return a console without markup and emoji: a folder may be named [draft] or :fire:."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False, **how)
    # A bar would hide the cursor, and the shell would get it back so after Ctrl-Z or SIGKILL.
    console.show_cursor = lambda show=True: False  # type: ignore[method-assign]
    return console


def _lines(text: str, console: "Console") -> str:
    """Return a text for a console: in a terminal, it wraps between words, except a command to paste into a shell.

    Such a command, if it does not fit into the line, begins a line.
    """
    text = visible(text)
    if not console.file.isatty():
        return text
    from klcli.report.tables.terminal import wrapped

    if " klcli " not in f" {text}" or "`" in text:
        return wrapped(text, console.width)
    return text if len(text) <= console.width else text.replace(": klcli ", ":\n  klcli ", 1)


def reason(error: Exception) -> str:
    """Return the cause of a failure on one line."""
    return str(error) if isinstance(error, KlcliError) else f"{type(error).__name__}: {one_line(error)}"


def typed_command() -> str:
    """Return the command line as it can be pasted into a shell."""
    return command_text(["klcli", *sys.argv[1:]])
