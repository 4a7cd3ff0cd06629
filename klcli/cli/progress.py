"""Progress on stderr: live bars on a terminal; elsewhere plain lines, for every evaluation of a training and every
finished stack of a study, and between them whenever the time so far has doubled, at least once a minute.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from klcli.cli.invocation import Invocation
from klcli.procedures.observer import Observer
from klcli.report.tables.table import duration, fraction
from klcli.report.words import counted

if TYPE_CHECKING:
    from klcli.studies.execution import StackOutcome, StackTask
    from klcli.training.budget import Budget
    from klcli.training.result import TrainResult

REDRAW_SECONDS = 0.1  # a bar that is redrawn at every update would cost more than the update
LINE_SECONDS = 60.0  # between two plain lines, at most
FEW = 8  # with up to this many stacks, each has a line throughout; with more, only those in training


class Pace:
    """Says plain lines: the first is due after the patience of the reader, another whenever the time has doubled."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation, self._patience, self._begun = invocation, invocation.patience, time.monotonic()
        first = max(invocation.last_word + self._patience, self._begun + self._patience / 2)  # none for what is short
        self.due = min(first, self._begun + LINE_SECONDS)

    def say(self, words: str) -> None:
        self._invocation.say(words)
        now = time.monotonic()
        self.due = now + min(max(self._patience, now - self._begun), LINE_SECONDS)


class Step:
    """Shows a step of the work inside `with`: nothing while it is short, then a bar, or plain lines.

    A thread shows it, because the step itself may be one long call.
    """

    def __init__(self, invocation: Invocation, name: str, total: float | None = None, pace: Pace | None = None) -> None:
        self._invocation, self._pace = invocation, pace or Pace(invocation)
        self._ended = threading.Event()
        self.begin(name, total)

    def begin(self, name: str, total: float | None = None, done: float = 0.0) -> None:
        """Begin, or go on to another part of the step, of whose `total` so much is done already."""
        self.name, self.total, self.done = name, total, done
        self._first, self._begun = done, time.monotonic()

    def __call__(self, done: float) -> None:
        self.done += done

    def __enter__(self) -> "Step":
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)
        with suppress(RuntimeError):  # no more threads for this user: the step goes on, unseen
            self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._ended.set()
        if self._thread.ident:
            self._thread.join()

    def words(self) -> str:
        """`20000 of 60000, 2.1 s left`, or the time so far if there is nothing to count."""
        total, done = self.total, self.done  # read once: `begin` can change them in the other thread
        elapsed, here = time.monotonic() - self._begun, done - self._first
        if not total:
            return f"{done:.0f}, {duration(elapsed)}" if done else duration(elapsed)
        rest = total - done
        if here <= 0:  # the first part can be long: without the time, each line would be the same
            return f"{done:.0f} of {total:.0f}, {duration(elapsed)} so far"
        left = f", {duration(rest * elapsed / here)} left" if rest > 0 else ""
        return f"{done:.0f} of {total:.0f}{left}"

    def _show(self) -> None:
        while not self._ended.wait(max(0.0, self._pace.due - time.monotonic())):
            if self._invocation.is_live:
                self._draw()  # until the end
            else:
                self._pace.say(f"{self.name}: {self.words()}")

    def _draw(self) -> None:
        from rich.progress import BarColumn, TextColumn

        texts = (TextColumn("{task.description}", markup=False), TextColumn("{task.fields[words]}", markup=False))
        with self._invocation.bar(texts[0], BarColumn(bar_width=20), texts[1]) as bar:
            task = bar.add_task(self.name, total=self.total, words=self.words())
            while not self._ended.wait(REDRAW_SECONDS):
                how: dict[str, Any] = {"description": self.name, "total": self.total, "words": self.words()}
                bar.update(task, completed=self.done, **how)
        self._invocation.spoke()


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

    def __init__(self, invocation: Invocation, budget: "Budget") -> None:
        from rich.progress import BarColumn, TextColumn

        self._invocation, self._budget = invocation, budget
        self._planned = budget.epoch_at(budget.total_updates)
        self._forecast = Forecast([budget.total_updates], [0])
        self._next_redraw, self._pace = 0.0, Pace(invocation)
        self._metrics: dict[str, Any] = {"cost": "-", "train": "-", "validation": "-"}
        # The most useful first: a narrow terminal shows fewer columns and truncates none.
        columns = {
            TextColumn("epoch {task.fields[epoch]}"): 14,
            TextColumn("validation {task.fields[validation]}"): 19,
            TextColumn("{task.fields[left]}"): 17,
            BarColumn(bar_width=20): 22,
            TextColumn("train {task.fields[train]}"): 14,
            TextColumn("cost {task.fields[cost]}"): 13,
            TextColumn("eta {task.fields[eta]:.4g}"): 13,
            TextColumn("{task.fields[speed]} updates/s"): 16,
        }
        used = itertools.accumulate(columns.values())
        self.bar = invocation.bar(*(one for one, n in zip(columns, used, strict=True) if n <= invocation.err.width))
        self.bar.add_task("", total=budget.total_updates)
        self._draw(0)

    def on_update(self, step: int) -> None:
        self._forecast.update(0, step, now := time.monotonic())
        if now >= self._next_redraw and self._invocation.is_live:
            self._draw(step)
        elif now >= self._pace.due and not self._invocation.is_live:
            self._pace.say(f"{self._forecast.line()}, validation {self._metrics['validation']}")

    def step(self, name: str, total: float | None = None) -> AbstractContextManager[Callable[[float], None]]:
        """Show the name in place of the time left, or in a line once one is due."""
        if not self._invocation.is_live:
            return Step(self._invocation, name, total, self._pace)
        self.bar.update(self.bar.task_ids[0], left=name)
        return super().step(name, total)

    def on_evaluation(self, result: "TrainResult") -> None:
        last = result.epochs[-1]
        self._forecast.update(0, last.step, time.monotonic())
        values = (last.train.cost, last.train.accuracy, last.validation.accuracy)
        self._metrics = {name: fraction(value) for name, value in zip(self._metrics, values, strict=True)}
        if self._invocation.is_live:
            self._draw(last.step)
        else:
            metrics = "  ".join(f"{name} {value}" for name, value in self._metrics.items())
            epoch = f"epoch {last.epoch:g}/{self._planned:g}"
            words = f"{epoch}  {metrics}  eta {last.learning_rate:.4g}  {last.seconds:.1f} s"
            self._pace.say("  ".join(filter(None, (words, self._forecast.words()))))
            if last.step == self._budget.total_updates:  # no other epoch will end the silence
                self._pace = Pace(self._invocation)

    def _draw(self, step: int) -> None:
        self._next_redraw = time.monotonic() + REDRAW_SECONDS
        [task] = self.bar.tasks
        epoch, left = f"{self._budget.epoch_at(step):.1f}/{self._planned:g}", self._forecast.words()
        eta = self._budget.learning_rate(step, self._budget.config)
        speed = "-" if task.speed is None else f"{task.speed:.0f}"
        self.bar.update(task.id, completed=step, epoch=epoch, eta=eta, left=left, speed=speed, **self._metrics)


class StudyProgress(Observer):
    """Shows the progress of a study, inside `with progress.bar`: one bar for the study and a line per stack."""

    def __init__(
        self, invocation: Invocation, title: str, tasks: "Sequence[StackTask]", updates: Sequence[int]
    ) -> None:
        from rich.progress import BarColumn, TextColumn

        self._invocation, self._title, self._updates = invocation, title, updates
        self._positions = [task.positions for task in tasks]
        self._forecast = Forecast(updates, [task.snapshot.step if task.snapshot else 0 for task in tasks])
        self._done, self._best, self._shows_all = 0, 0.0, len(tasks) <= FEW
        formats = "{task.description}", "{task.percentage:>3.0f} %", "{task.fields[news]}", "{task.fields[left]}"
        first, *others = (TextColumn(one, markup=False) for one in formats)
        self.bar = invocation.bar(first, BarColumn(bar_width=10), *others)  # all of a line fits into 80 columns
        self._study = self.bar.add_task(title, total=sum(updates), news="", left="")
        how: dict[str, Any] = {"news": "", "left": "", "start": False, "visible": self._shows_all}
        every = [config for task in tasks for config in task.configs]
        differ = (key for key in ("sigma", "lam", "seed") if len({getattr(one, key) for one in every}) > 1)
        what = next(differ, "sigma")
        self._stacks = [
            self.bar.add_task(f"  {n}: {_words(task, what)}", total=total, **how)
            for n, (task, total) in enumerate(zip(tasks, updates, strict=True), start=1)
        ]
        if not invocation.is_live:  # the workers need seconds before their first update
            networks = sum(len(task.positions) for task in tasks)
            words = f"{networks} {counted(networks, 'network')} in {len(tasks)} {counted(len(tasks), 'stack')}"
            invocation.say(f"{title}: {words}, {(n := sum(updates))} {counted(n, 'update')}")
        self._pace = Pace(invocation)

    def on_progress(self, index: int, step: int, best: float) -> None:
        if not step:
            return
        self._forecast.update(index, step, now := time.monotonic())
        self._best = max(self._best, best)
        if self._invocation.is_live:
            self._draw(index, step, f"best {best:.4f}" if best else "", visible=True)
        elif now >= self._pace.due:
            accuracy = f", best validation accuracy {self._best:.4f}" if self._best else ""
            self._pace.say(f"{self._title}: {self._forecast.line()}{accuracy}")

    def on_outcome(self, outcome: "StackOutcome") -> None:
        index = self._positions.index(outcome.positions)
        accuracies = [r.epochs[-1].validation.accuracy for r in outcome.results if r.epochs and r.diverged_at is None]
        best = max(accuracies, default=0.0)
        self._best, self._done = max(self._best, best), self._done + 1
        self._forecast.end(index, time.monotonic(), diverged=not accuracies)
        news = f"best {best:.4f}" if accuracies else "diverged"
        self._draw(index, self._updates[index], news, visible=self._shows_all)
        if not self._invocation.is_live:
            which = f"stack {index + 1} done ({self._done} of {len(self._stacks)})"
            news = news.replace("best", "best validation")
            left = self._forecast.words() if self._done < len(self._stacks) else ""
            words = ", ".join(filter(None, (which, news, f"{outcome.seconds:.1f} s", left)))
            self._pace.say(f"{self._title}: {words}")

    def _draw(self, index: int, step: int, news: str, *, visible: bool) -> None:
        self.bar.start_task(self._stacks[index])
        self.bar.update(self._stacks[index], completed=step, news=news, visible=visible)
        done = sum(stack.completed for stack in self.bar.tasks[1:])
        news = f"best {self._best:.4f}" if self._best else ""
        self.bar.update(self._study, completed=done, news=news, left=self._forecast.words())


def _words(task: "StackTask", what: str) -> str:
    """Return a description of the replicas of a stack by a setting: `4 x lambda 1.2e-05 to 0.003`."""
    first = task.configs[0]
    name = "lam" if what == "sigma" and first.sigma is None else what
    values = [getattr(config, name) for config in task.configs]
    ends = dict.fromkeys(str(one) if name == "seed" else f"{one:.2g}" for one in (min(values), max(values)))
    bn = " with BN" if first.batch_norm and name == "sigma" else ""
    return f"{len(task.configs)} x {'lambda' if name == 'lam' else name} {' to '.join(ends)}{bn}"
