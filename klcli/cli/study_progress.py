"""Progress of a study on stderr: a bar for the study and a line per group, or a plain line per finished group."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from klcli.cli.session import Session

if TYPE_CHECKING:
    from klcli.experiments.execution import GroupOutcome, GroupTask


class StudyProgress:
    """What is told of a study while it runs."""

    def __init__(self, session: Session, title: str, tasks: "Sequence[GroupTask]", updates: Sequence[int]) -> None:
        """Tell nothing yet; `showing` opens the display."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._session = session
        self._title = title
        self._positions = [task.positions for task in tasks]
        self._updates = updates
        self._done = 0
        self._best = 0.0
        self._live = session.err.is_terminal and not session.quiet
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[news]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=session.err,
            disable=not self._live,
            transient=True,
        )
        self._study = self._bar.add_task(title, total=sum(updates), news="")
        self._groups = [
            self._bar.add_task(f"  group {index}: {describe(task)}", total=total, news="waiting")
            for index, (task, total) in enumerate(zip(tasks, updates, strict=True), start=1)
        ]

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the bars inside the block, where there is a terminal for them."""
        with self._bar:
            yield

    def on_progress(self, index: int, step: int, best: float) -> None:
        """Move the bar of a group."""
        if step:
            self._bar.update(self._groups[index], completed=step, news=f"best validation {best:.4f}")
            self._redraw()

    def on_outcome(self, outcome: "GroupOutcome") -> None:
        """Tell that a group is done."""
        index = self._positions.index(outcome.positions)
        best = max((r.epochs[-1].validation.accuracy for r in outcome.results if r.epochs), default=0.0)
        self._done += 1
        self._best = max(self._best, best)
        self._bar.update(self._groups[index], completed=self._updates[index], news=f"best validation {best:.4f}, done")
        self._redraw()
        if not self._live:
            self._session.say(
                f"{self._title}: group {index + 1} done ({self._done} of {len(self._groups)}), "
                f"best validation {best:.4f}, {outcome.seconds:.1f} s"
            )

    def _redraw(self) -> None:
        done = sum(self._bar.tasks[group].completed for group in self._groups)
        self._bar.update(self._study, completed=done, news=f"best so far {self._best:.4f}" if self._best else "")


def describe(task: "GroupTask") -> str:
    """What the members of a group differ in: `4 lambdas 1.2e-05 to 0.003`."""
    for name, what in (("sigma", "sigma"), ("lam", "lambda"), ("seed", "seed")):
        values = {getattr(config, name) for config in task.configs}
        if len(values) > 1:
            bn = " with BN" if task.configs[0].batch_norm and what == "sigma" else ""
            return f"{len(task.configs)} members, {what} {min(values):.3g} to {max(values):.3g}{bn}"
    return f"{len(task.configs)} members" if len(task.configs) > 1 else "1 member"
