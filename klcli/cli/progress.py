"""Progress on stderr: live bars on a terminal; elsewhere plain lines, for every evaluation of a training and every
finished stack of a study, and once a minute between them.
"""

import heapq
import itertools
import time
from collections.abc import Sequence
from typing import Any

from rich.progress import BarColumn, TextColumn

from klcli.cli.invocation import Invocation
from klcli.procedures.observer import Observer
from klcli.report.tables.table import duration
from klcli.studies.execution import StackOutcome, StackTask
from klcli.training.budget import Budget
from klcli.training.result import TrainResult

REDRAW_SECONDS = 0.1  # a bar that is redrawn at every update would cost more than the update
LINE_SECONDS = 60.0  # between two plain lines
FEW = 8  # with up to this many stacks, each has a line throughout; with more, only those in training


class Forecast:
    """The time left of stacks that several workers train in order, by the mean time of all updates so far.

    Some seconds alone would vary with every evaluation. `done` are the updates of each stack, at first those before a
    resumption; a stack begins at its first update, so that the start of a worker does not count.
    """

    def __init__(self, totals: Sequence[int], done: Sequence[int]) -> None:
        self.totals, self.done = [*totals], [*done]
        self._first: dict[int, tuple[float, int]] = {}  # time and number of the first update here, by stack
        self._ends: dict[int, float] = {}

    def update(self, index: int, step: int, now: float) -> None:
        self._first.setdefault(index, (now, step))
        self.done[index] = step

    def end(self, index: int, now: float, *, diverged: bool = False) -> None:
        if diverged:
            self.totals[index] = self.done[index]
        self.update(index, self.totals[index], now)
        self._ends[index] = now

    def seconds_left(self, now: float) -> float | None:
        """Return the time until the last worker ends, None before the second update."""
        updates = sum(self.done[index] - first for index, (_, first) in self._first.items())
        seconds = sum(self._ends.get(index, now) - begun for index, (begun, _) in self._first.items())
        if updates <= 0 or seconds <= 0:
            return None
        elapsed = now - min(begun for begun, _ in self._first.values())
        workers = [0] * max(1, round(seconds / elapsed))  # the updates that each has to do
        waiting = [index for index in range(len(self.totals)) if index not in self._first]
        for index in [*(self._first.keys() - self._ends), *waiting]:  # each begins where a worker is free first
            heapq.heapreplace(workers, workers[0] + self.totals[index] - self.done[index])
        return max(workers) * seconds / updates

    def words(self) -> str:
        """`3 min 5 s left`, empty before the second update and after the last one."""
        seconds = self.seconds_left(time.monotonic())
        return f"{duration(seconds)} left" if seconds else ""

    def line(self) -> str:
        """`1200 of 9000 updates, 3 min 5 s left`."""
        return ", ".join(filter(None, (f"{sum(self.done)} of {sum(self.totals)} updates", self.words())))


class TrainingProgress(Observer):
    """Shows the progress of one training, inside `with progress.bar`."""

    def __init__(self, invocation: Invocation, budget: Budget) -> None:
        self._invocation, self._budget = invocation, budget
        self._planned = budget.epoch_at(budget.total_updates)
        self._forecast = Forecast([budget.total_updates], [0])
        self._next_redraw, self._next_line = 0.0, time.monotonic() + LINE_SECONDS
        self._metrics: dict[str, Any] = {"cost": "-", "train": "-", "validation": "-"}
        # The most useful first: a narrow terminal shows fewer columns and truncates none.
        columns = {
            TextColumn("epoch {task.fields[epoch]}"): 14,
            TextColumn("validation {task.fields[validation]}"): 19,
            TextColumn("{task.fields[left]}"): 17,
            BarColumn(bar_width=20): 22,
            TextColumn("train {task.fields[train]}"): 14,
            TextColumn("cost {task.fields[cost]}"): 13,
            TextColumn("eta {task.fields[eta]:.3f}"): 11,
            TextColumn("{task.fields[speed]} updates/s"): 16,
        }
        used = itertools.accumulate(columns.values())
        self.bar = invocation.bar(*(one for one, n in zip(columns, used, strict=True) if n <= invocation.err.width))
        self.bar.add_task("", total=budget.total_updates, epoch="", left="", eta=0.0, speed="-", **self._metrics)
        self._draw(0)

    def on_update(self, step: int) -> None:
        self._forecast.update(0, step, now := time.monotonic())
        if now >= self._next_redraw and self._invocation.is_live:
            self._draw(step)
        elif now >= self._next_line and not self._invocation.is_live:
            self._next_line = now + LINE_SECONDS
            self._invocation.say(f"{self._forecast.line()}, validation {self._metrics['validation']}")

    def on_evaluation(self, result: TrainResult) -> None:
        if not result.epochs:
            return
        last = result.epochs[-1]
        self._forecast.update(0, last.step, time.monotonic())
        values = (last.train.cost, last.train.accuracy, last.validation.accuracy)
        self._metrics = {name: f"{value:.4f}" for name, value in zip(self._metrics, values, strict=True)}
        if self._invocation.is_live:
            self._draw(last.step)
        else:
            metrics = "  ".join(f"{name} {value}" for name, value in self._metrics.items())
            epoch = f"epoch {last.epoch:g}/{self._planned:g}"
            self._next_line = time.monotonic() + LINE_SECONDS
            words = f"{epoch}  {metrics}  eta {last.learning_rate:.5f}  {last.seconds:.1f} s"
            self._invocation.say("  ".join(filter(None, (words, self._forecast.words()))))

    def _draw(self, step: int) -> None:
        self._next_redraw = time.monotonic() + REDRAW_SECONDS
        [task] = self.bar.tasks
        self.bar.update(
            task.id,
            completed=step,
            epoch=f"{self._budget.epoch_at(step):.1f}/{self._planned:g}",
            eta=self._budget.learning_rate(step, self._budget.config),
            left=self._forecast.words(),
            speed="-" if task.speed is None else f"{task.speed:.0f}",
            **self._metrics,
        )


class StudyProgress(Observer):
    """Shows the progress of a study, inside `with progress.bar`: one bar for the study and a line per stack."""

    def __init__(self, invocation: Invocation, title: str, tasks: Sequence[StackTask], updates: Sequence[int]) -> None:
        self._invocation, self._title, self._updates = invocation, title, updates
        self._positions = [task.positions for task in tasks]
        self._forecast = Forecast(updates, [task.snapshot.step if task.snapshot else 0 for task in tasks])
        self._done, self._best, self._next_line = 0, 0.0, time.monotonic() + LINE_SECONDS
        self._shows_all = len(tasks) <= FEW
        self.bar = invocation.bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),  # all of a line fits into 80 columns
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            TextColumn("{task.fields[news]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
        )
        self._study = self.bar.add_task(title, total=sum(updates), news="", left="")
        self._stacks = [
            self.bar.add_task(
                f"  {n}: {_words(task)}", total=total, news="", left="", start=False, visible=self._shows_all
            )
            for n, (task, total) in enumerate(zip(tasks, updates, strict=True), start=1)
        ]

    def on_progress(self, index: int, step: int, best: float) -> None:
        if not step:
            return
        self._forecast.update(index, step, now := time.monotonic())
        if self._invocation.is_live:
            self._draw(index, step, best, f"best {best:.4f}" if best else "", visible=True)
        elif now >= self._next_line:
            accuracy = f", last validation accuracy {best:.4f}" if best else ""
            self._say(f"{self._forecast.line()}{accuracy}")

    def on_outcome(self, outcome: StackOutcome) -> None:
        index = self._positions.index(outcome.positions)
        accuracies = [r.epochs[-1].validation.accuracy for r in outcome.results if r.epochs and r.diverged_at is None]
        best = max(accuracies, default=0.0)
        self._done += 1
        self._forecast.end(index, time.monotonic(), diverged=not accuracies)
        news = f"best {best:.4f}" if accuracies else "diverged"
        self._draw(index, self._updates[index], best, news, visible=self._shows_all)
        if not self._invocation.is_live:
            which = f"stack {index + 1} done ({self._done} of {len(self._stacks)})"
            news = news.replace("best", "best validation")
            left = self._forecast.words() if self._done < len(self._stacks) else ""
            self._say(", ".join(filter(None, (which, news, f"{outcome.seconds:.1f} s", left))))

    def _say(self, words: str) -> None:
        self._next_line = time.monotonic() + LINE_SECONDS
        self._invocation.say(f"{self._title}: {words}")

    def _draw(self, index: int, step: int, best: float, news: str, *, visible: bool) -> None:
        self.bar.start_task(self._stacks[index])
        self.bar.update(self._stacks[index], completed=step, news=news, visible=visible)
        self._best = max(self._best, best)
        done = sum(self.bar.tasks[stack].completed for stack in self._stacks)
        news = f"best {self._best:.4f}" if self._best else ""
        self.bar.update(self._study, completed=done, news=news, left=self._forecast.words())


def _words(task: StackTask) -> str:
    """Return a description of the replicas of a stack: `4 x lambda 1.2e-05 to 0.003`."""
    first = task.configs[0]
    name, what = ("lam", "lambda") if first.sigma is None else ("sigma", "sigma")
    values = [getattr(config, name) for config in task.configs]
    low, high = min(values), max(values)
    between = f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
    bn = " with BN" if first.batch_norm and first.sigma is not None else ""
    return f"{len(task.configs)} x {what} {between}{bn}"
