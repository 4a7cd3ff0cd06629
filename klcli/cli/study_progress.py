"""Progress of a study on stderr: a bar for the study and a line per stack, or a plain line per finished stack."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from klcli.cli.invocation import Invocation
from klcli.procedures.observer import StudyObserver

if TYPE_CHECKING:
    from klcli.studies.execution import StackOutcome, StackTask

FEW = 8  # stacks that have a line each from beginning to end; of more, those in training


class StudyProgress(StudyObserver):
    """Shows a study while it runs."""

    def __init__(
        self, invocation: Invocation, title: str, tasks: "Sequence[StackTask]", updates: Sequence[int]
    ) -> None:
        """Show nothing yet; `showing` opens the display."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._invocation = invocation
        self._title = title
        self._positions = [task.positions for task in tasks]
        self._updates = updates
        self._done = 0
        self._best = 0.0
        self._live = invocation.err.is_terminal and not invocation.quiet
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),  # all of a line fits into 80 columns
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            TextColumn("{task.fields[news]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=invocation.err,
            disable=not self._live,
            transient=True,
        )
        few = len(tasks) <= FEW
        self._study = self._bar.add_task(title, total=sum(updates), news="")
        self._stacks = [
            self._bar.add_task(f"  {index}: {describe(task)}", total=total, news="", start=False, visible=few)
            for index, (task, total) in enumerate(zip(tasks, updates, strict=True), start=1)
        ]

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the bars inside the block, where there is a terminal for them."""
        with self._bar:
            yield

    def on_progress(self, index: int, step: int, best: float) -> None:
        """Move the bar of a stack."""
        if step and self._live:
            stack = self._stacks[index]
            self._bar.start_task(stack)
            self._bar.update(stack, completed=step, news=f"best {best:.4f}" if best else "", visible=True)
            self._redraw(best)

    def on_outcome(self, outcome: "StackOutcome") -> None:
        """Show that a stack is done."""
        index = self._positions.index(outcome.positions)
        accuracies = [r.epochs[-1].validation.accuracy for r in outcome.results if r.epochs and r.diverged_at is None]
        best = max(accuracies, default=0.0)
        self._done += 1
        stack = self._stacks[index]
        self._bar.start_task(stack)
        news = f"best {best:.4f}" if accuracies else "diverged"
        self._bar.update(stack, completed=self._updates[index], news=news, visible=len(self._stacks) <= FEW)
        self._redraw(best)
        if not self._live:
            result = f"best validation {best:.4f}" if accuracies else "diverged"
            self._invocation.say(
                f"{self._title}: stack {index + 1} done ({self._done} of {len(self._stacks)}), "
                f"{result}, {outcome.seconds:.1f} s"
            )

    def _redraw(self, best: float) -> None:
        self._best = max(self._best, best)
        done = sum(self._bar.tasks[stack].completed for stack in self._stacks)
        self._bar.update(self._study, completed=done, news=f"best {self._best:.4f}" if self._best else "")


def describe(task: "StackTask") -> str:
    """What the replicas of a stack are: `4 x lambda 1.2e-05 to 0.003`."""
    first = task.configs[0]
    name, what = ("lam", "lambda") if first.sigma is None else ("sigma", "sigma")
    values = [getattr(config, name) for config in task.configs]
    low, high = min(values), max(values)
    between = f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
    bn = " with BN" if first.batch_norm and first.sigma is not None else ""
    return f"{len(task.configs)} x {what} {between}{bn}"
