"""TrainResult: the result of a training for each replica, and its content in a checkpoint."""

from dataclasses import dataclass, field
from itertools import count, takewhile

import numpy as np

from klcli.data.dataset import Inputs
from klcli.engine.network import Network
from klcli.evaluation.metrics import Metrics, Score
from klcli.settings.train_config import TrainConfig

# Prefixes of the keys in a checkpoint outside the evaluated network.
OPTIMIZER = "optimizer"  # the memory of the optimizer
RAW = "training"  # the trained network, if its average is evaluated
CYCLE = "cycle"  # with a number: the network at the end of that cycle


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of one replica at one evaluation, by default at the end of an epoch."""

    epoch: float  # updates done / updates per epoch
    step: int  # updates done
    learning_rate: float  # eta of the last update
    train: Metrics
    validation: Metrics
    seconds: float  # since the evaluation before, of the whole stack


@dataclass(frozen=True)
class Snapshot:
    """A single replica after `step` updates: with the config, it determines the rest of the training."""

    step: int
    state: dict[str, np.ndarray]  # of its network and, until the last update, of its optimizer
    epochs: tuple[EpochMetrics, ...] = ()  # up to that update


@dataclass(frozen=True)
class Ensemble:
    """The mean of the probabilities of the snapshots of one training."""

    networks: int
    validation: Score
    test: Score | None  # None if the test split was not evaluated


@dataclass
class TrainResult:
    """One replica: its network, during and after training, and its metrics so far."""

    config: TrainConfig
    network: Network  # as of the last evaluation; during training its arrays are views of the stack's
    epochs: list[EpochMetrics] = field(default_factory=list)
    diverged_at: int | None = None  # the update after which its cost or network was not finite
    test: Metrics | None = None  # evaluated once, after the last update
    memory: dict[str, np.ndarray] = field(default_factory=dict)  # the other inputs of its next update, as views
    snapshots: list[dict[str, np.ndarray]] = field(default_factory=list)  # copies of its state at the end of each cycle
    ensemble: Ensemble | None = None  # of the snapshots, after the last update
    inputs: Inputs | None = None  # of its checkpoint, so that it needs no images
    seconds: float = 0.0  # of the whole stack, with evaluations and those before a resumption

    @property
    def step(self) -> int:
        return self.epochs[-1].step if self.epochs else 0

    @property
    def end(self) -> tuple[str, str | None]:
        """The state in which the training ended, and the error of one that diverged."""
        if self.diverged_at is None:
            return "complete", None
        return "diverged", f"the cost or the network was not finite after update {self.diverged_at}"

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of a checkpoint: the network, its memory, and its snapshots."""
        cycles = enumerate(self.snapshots, start=1)
        snapshots = {f"{CYCLE}{i}.{name}": array for i, state in cycles for name, array in state.items()}
        return self.network.state() | self.memory | snapshots

    def snapshot(self) -> Snapshot:
        return Snapshot(self.step, self.arrays(), tuple(self.epochs))


def snapshots_of(state: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Return the networks at the ends of the cycles that are stored in a checkpoint, in order."""
    cycles = (part(state, f"{CYCLE}{number}") for number in count(1))
    return list(takewhile(bool, cycles))


def part(state: dict[str, np.ndarray], owner: str) -> dict[str, np.ndarray]:
    """Return the arrays whose keys begin with `owner` and a dot, by the rest of the key."""
    prefix = f"{owner}."
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
