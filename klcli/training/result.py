"""TrainResult: what a training gives for each of its members, and what a checkpoint keeps of it."""

from dataclasses import dataclass, field

import numpy as np

from klcli.engine.network import Network
from klcli.evaluation.metrics import Metrics, Score
from klcli.settings.train_config import TrainConfig

# How keys in a checkpoint begin that do not belong to the network that was evaluated.
OPTIMIZER = "optimizer"  # its memory
RAW = "training"  # the network that is trained, where its average is evaluated
CYCLE = "cycle"  # with a number: the network at the end of that cycle


@dataclass(frozen=True)
class EpochMetrics:
    """One member at one evaluation, by default the end of an epoch."""

    epoch: float  # updates done / updates per epoch
    step: int  # updates done
    learning_rate: float  # eta of the last update
    train: Metrics
    validation: Metrics
    seconds: float  # since the evaluation before, of the whole group


@dataclass(frozen=True)
class Snapshot:
    """A single member after so many updates: with its config, all that the rest of its training depends on.

    The learning rate and whatever is drawn are functions of the step and need no memory.
    """

    step: int
    state: dict[str, np.ndarray]  # of its network and, until the last update, its memory


@dataclass(frozen=True)
class Ensemble:
    """The mean of the probabilities of the snapshots of one training."""

    networks: int
    validation: Score
    test: Score | None  # None where the test split was not looked at


@dataclass
class TrainResult:
    """One member: its network while it is trained, its metrics so far."""

    config: TrainConfig
    network: Network  # views of the group's arrays, as of the last evaluation
    epochs: list[EpochMetrics] = field(default_factory=list)
    diverged_at: int | None = None  # the update after which its cost was not finite
    test: Metrics | None = None  # looked at once, after the last update
    memory: dict[str, np.ndarray] = field(default_factory=dict)  # what else its next update depends on; views as well
    snapshots: list[dict[str, np.ndarray]] = field(default_factory=list)  # its state at the end of each cycle, copies
    ensemble: Ensemble | None = None  # of the snapshots, after the last update

    @property
    def step(self) -> int:
        """The updates done at the last evaluation."""
        return self.epochs[-1].step if self.epochs else 0

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all that a checkpoint keeps: the network, its memory, and its snapshots."""
        snapshots = {
            f"{CYCLE}{number}.{name}": array
            for number, snapshot in enumerate(self.snapshots, start=1)
            for name, array in snapshot.items()
        }
        return self.network.state() | self.memory | snapshots

    @property
    def best_validation_accuracy(self) -> float | None:
        """The highest validation accuracy of all evaluations."""
        return max((epoch.validation.accuracy for epoch in self.epochs), default=None)


def snapshots_of(state: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Return the networks at the ends of the cycles that a checkpoint has kept, in order."""
    snapshots: list[dict[str, np.ndarray]] = []
    while cycle := part(state, f"{CYCLE}{len(snapshots) + 1}"):
        snapshots.append(cycle)
    return snapshots


def part(state: dict[str, np.ndarray], owner: str) -> dict[str, np.ndarray]:
    """Return the arrays whose keys begin with `owner` and a dot, under the rest of their keys."""
    prefix = f"{owner}."
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
