"""Progress of a training on stderr: a live bar on a terminal, one plain line per evaluation elsewhere."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from klcli.cli.invocation import Invocation
from klcli.procedures.observer import Observer, StudyObserver, TrainingObserver

if TYPE_CHECKING:
    from klcli.studies.execution import StackTask
    from klcli.training.budget import Budget
    from klcli.training.result import TrainResult

REDRAW_SECONDS = 0.1  # a bar that is redrawn at every update would cost more than the update


class TrainingProgress(TrainingObserver):
    """Shows a training while it runs."""

    def __init__(self, invocation: Invocation, budget: "Budget") -> None:
        """Show nothing yet; `showing` opens the display."""
        self._invocation = invocation
        self._budget = budget
        self._live = invocation.err.is_terminal and not invocation.quiet
        self._next_redraw = 0.0
        self._metrics: dict[str, Any] = {"cost": "-", "train": "-", "validation": "-"}

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the bar inside the block, where there is a terminal for it."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        # The most useful first: a narrow terminal shows fewer of them, none of them cut.
        columns = [
            (14, TextColumn("epoch {task.fields[epoch]}")),
            (19, TextColumn("validation {task.fields[validation]}", markup=False)),
            (7, TimeRemainingColumn(compact=True)),
            (22, BarColumn(bar_width=20)),
            (14, TextColumn("train {task.fields[train]}", markup=False)),
            (13, TextColumn("cost {task.fields[cost]}", markup=False)),
            (11, TextColumn("eta {task.fields[eta]:.3f}")),
            (16, TextColumn("{task.fields[speed]} updates/s")),
        ]
        room = itertools.accumulate(width for width, _ in columns)
        fitting = [
            column for (_, column), used in zip(columns, room, strict=True) if used <= self._invocation.err.width
        ]
        self._bar = Progress(*fitting, console=self._invocation.err, disable=not self._live, transient=True)
        total = self._budget.total_updates
        with self._bar:
            self._task = self._bar.add_task("", total=total, epoch="", eta=0.0, speed="-", **self._metrics)
            self._draw(0)
            yield

    def on_update(self, step: int) -> None:
        """Move the bar."""
        if self._live and time.monotonic() >= self._next_redraw:
            self._draw(step)

    def on_evaluation(self, result: "TrainResult") -> None:
        """Show the metrics of an evaluation."""
        if not result.epochs:
            return
        last = result.epochs[-1]
        planned = self._budget.epoch_at(self._budget.total_updates)
        self._metrics = {
            "cost": f"{last.train.cost:.4f}",
            "train": f"{last.train.accuracy:.4f}",
            "validation": f"{last.validation.accuracy:.4f}",
        }
        if self._live:
            self._draw(last.step)
        else:
            metrics = "  ".join(f"{name} {value}" for name, value in self._metrics.items())
            self._invocation.say(
                f"epoch {last.epoch:g}/{planned:g}  {metrics}  eta {last.learning_rate:.5f}  {last.seconds:.1f} s"
            )

    def _draw(self, step: int) -> None:
        self._next_redraw = time.monotonic() + REDRAW_SECONDS
        task = self._bar.tasks[0]
        planned = self._budget.epoch_at(self._budget.total_updates)
        self._bar.update(
            self._task,
            completed=step,
            epoch=f"{self._budget.epoch_at(step):.1f}/{planned:g}",
            **self._metrics,
            eta=self._budget.learning_rate(step, self._budget.config),
            speed="-" if task.speed is None else f"{task.speed:.0f}",
        )


class Console(Observer):
    """Shows on stderr what a procedure reports."""

    def __init__(self, invocation: Invocation) -> None:
        """Write as this call of klcli asks for."""
        self._invocation = invocation

    def say(self, message: str) -> None:
        """Print a message."""
        self._invocation.say(message)

    def warn(self, message: str) -> None:
        """Print a warning."""
        self._invocation.warn(message)

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar on a terminal."""
        with self._invocation.progress(what, total) as advance:
            yield advance

    @contextmanager
    def training(self, budget: "Budget") -> Iterator[TrainingObserver]:
        """Show a training."""
        progress = TrainingProgress(self._invocation, budget)
        with progress.showing():
            yield progress

    @contextmanager
    def study(self, title: str, tasks: "Sequence[StackTask]", updates: Sequence[int]) -> Iterator[StudyObserver]:
        """Show a study."""
        from klcli.cli.study_progress import StudyProgress

        progress = StudyProgress(self._invocation, title, tasks, updates)
        with progress.showing():
            yield progress
