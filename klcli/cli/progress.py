"""Progress of a training on stderr: a live bar on a terminal, one plain line per evaluation elsewhere."""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from klcli.cli.invocation import Invocation

if TYPE_CHECKING:
    from klcli.training.budget import Budget
    from klcli.training.result import TrainResult

REDRAW_SECONDS = 0.1  # a bar that is redrawn at every update would cost more than the update


class TrainingProgress:
    """What is told of a training while it runs."""

    def __init__(self, session: Invocation, times: "Budget") -> None:
        """Tell nothing yet; `showing` opens the display."""
        self._session = session
        self._times = times
        self._live = session.err.is_terminal and not session.quiet
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
        fitting = [column for (_, column), used in zip(columns, room, strict=True) if used <= self._session.err.width]
        self._bar = Progress(*fitting, console=self._session.err, disable=not self._live, transient=True)
        total = self._times.total_updates
        with self._bar:
            self._task = self._bar.add_task("", total=total, epoch="", eta=0.0, speed="-", **self._metrics)
            self._draw(0)
            yield

    def on_update(self, step: int) -> None:
        """Move the bar."""
        if self._live and time.monotonic() >= self._next_redraw:
            self._draw(step)

    def on_evaluation(self, result: "TrainResult") -> None:
        """Tell the metrics of an evaluation."""
        if not result.epochs:
            return
        last = result.epochs[-1]
        planned = self._times.epoch_at(self._times.total_updates)
        self._metrics = {
            "cost": f"{last.train.cost:.4f}",
            "train": f"{last.train.accuracy:.4f}",
            "validation": f"{last.validation.accuracy:.4f}",
        }
        if self._live:
            self._draw(last.step)
        else:
            metrics = "  ".join(f"{name} {value}" for name, value in self._metrics.items())
            self._session.say(
                f"epoch {last.epoch:g}/{planned:g}  {metrics}  eta {last.learning_rate:.5f}  {last.seconds:.1f} s"
            )

    def _draw(self, step: int) -> None:
        self._next_redraw = time.monotonic() + REDRAW_SECONDS
        task = self._bar.tasks[0]
        planned = self._times.epoch_at(self._times.total_updates)
        self._bar.update(
            self._task,
            completed=step,
            epoch=f"{self._times.epoch_at(step):.1f}/{planned:g}",
            **self._metrics,
            eta=self._times.learning_rate(step, self._times.config),
            speed="-" if task.speed is None else f"{task.speed:.0f}",
        )
