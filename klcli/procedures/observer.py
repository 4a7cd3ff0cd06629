"""Observer: receives the messages and progress of a procedure. This one ignores them; the command line shows them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from klcli.studies.execution import StackOutcome, StackTask
    from klcli.training.budget import Budget
    from klcli.training.result import TrainResult


class Observer:
    """The callbacks of all procedures."""

    def say(self, message: str) -> None:
        """Called with the current activity."""

    def warn(self, message: str) -> None:
        """Called with a warning about the validity of the result."""

    def step(self, name: str, total: float | None = None) -> AbstractContextManager[Callable[[float], None]]:
        """Enter a step that may take seconds; yield a function to call with the amount of `total` done since then."""
        return nullcontext(lambda done: None)

    def training(self, budget: "Budget") -> AbstractContextManager["Observer"]:
        """Enter a training; yield its observer."""
        return nullcontext(self)

    def on_update(self, step: int) -> None:
        """Called in a training after every update, with the number of updates done."""

    def on_evaluation(self, result: "TrainResult") -> None:
        """Called in a training after every evaluation with a finite cost: the last of `result.epochs`."""

    def study(
        self, title: str, tasks: "Sequence[StackTask]", updates: Sequence[int]
    ) -> AbstractContextManager["Observer"]:
        """Enter a study of these stacks, each with its number of updates; yield its observer."""
        return nullcontext(self)

    def on_progress(self, index: int, step: int, best: float) -> None:
        """Called in a study a few times a second with a task's index, its updates and best validation accuracy."""

    def on_outcome(self, outcome: "StackOutcome") -> None:
        """Called in a study when a stack is done."""
