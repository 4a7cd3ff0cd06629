"""Budget: the number of updates of a training, and the steps of its evaluations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from klcli.engine import schedules
from klcli.errors import ConfigError
from klcli.settings.setting import require
from klcli.settings.train_config import CYCLIC, TrainConfig, check_statistics

MAX_EVALUATIONS = 1_000_000  # rows per run in the database
MAX_UPDATES = 10**11  # years; with longer ones, the products of lengths overflow


@dataclass(frozen=True)
class Budget:
    """The updates of a training."""

    config: TrainConfig
    updates_per_epoch: int  # floor(n / n_batch)
    step_size: int  # n_s, half a cycle in updates
    total_updates: int
    evaluations: tuple[int, ...]  # updates after which train and validation are evaluated, ascending

    @property
    def evaluations_with_untrained(self) -> tuple[int, ...]:
        """The evaluations, with one before the first update unless they are at the end alone or of a range test."""
        has_curves = self.config.evaluations_per_cycle != 0 and self.config.schedule != "range"
        return (0, *self.evaluations) if has_curves and self.total_updates else self.evaluations

    @property
    def ends_a_cycle(self) -> bool:
        """Whether the last update ends a cycle, at the smallest eta; True for a schedule without cycles."""
        return self.config.schedule not in CYCLIC or self.total_updates % (2 * self.step_size) == 0

    def is_end_of_cycle(self, step: int) -> bool:
        return self.config.schedule in CYCLIC and step > 0 and step % (2 * self.step_size) == 0

    @property
    def cycles(self) -> float:
        return self.total_updates / (2 * self.step_size)

    def epoch_at(self, step: int) -> float:
        return step / self.updates_per_epoch

    def learning_rate(self, step: int, replica: TrainConfig) -> float:
        """Return eta of update `step`, counted from 0, for a replica with its own eta_min and eta_max."""
        if replica.schedule == "constant":
            return replica.eta_max
        limits = {"eta_min": replica.eta_min, "eta_max": replica.eta_max}
        if replica.schedule in CYCLIC:
            schedule = schedules.cosine if replica.schedule == "cosine" else schedules.cyclical
            return schedule(step, step_size=self.step_size, decay=replica.eta_decay, **limits)
        whole = schedules.one_cycle if replica.schedule == "one-cycle" else schedules.range_test
        return whole(step, total=self.total_updates, **limits)


def budget_of(config: TrainConfig, n: int | None = None) -> Budget:
    """Return the budget of a training on n images, by default those of its split in CIFAR-10.

    Raises ConfigError if they are fewer than one minibatch, or no training has this length.
    """
    n = config.split.sizes()[0] if n is None else n
    if config.batch_size > n:
        raise ConfigError(f"--batch-size {config.batch_size}: larger than the {n} training images, give at most {n}")
    per_epoch = n // config.batch_size
    half = f"--step-size {config.step_size}" if config.step_size else f"--step-epochs {config.step_epochs:g}"
    length = f"--cycles {config.cycles} {half}" if config.epochs is None else f"--epochs {config.epochs}"
    n_s = config.step_size or config.step_epochs * per_epoch
    require(n_s <= MAX_UPDATES, f"{half}: more than {MAX_UPDATES} updates, give fewer")
    step_size = max(1, round(n_s))
    total = 2 * step_size * config.cycles if config.epochs is None else config.epochs * per_epoch
    require(total <= MAX_UPDATES, f"{length}: more than {MAX_UPDATES} updates, give fewer")
    cycle = max(total, 1) if config.schedule in ("range", "one-cycle") else 2 * step_size
    per_evaluation = cycle / config.evaluations_per_cycle if config.evaluations_per_cycle else per_epoch
    evaluations = 0 if config.evaluations_per_cycle == 0 else math.floor(total / per_evaluation)
    if evaluations > MAX_EVALUATIONS:
        often = f" --evaluations-per-cycle {config.evaluations_per_cycle}" if config.evaluations_per_cycle else ""
        raise ConfigError(f"{length}{often}: more than {MAX_EVALUATIONS} evaluations, give fewer")
    steps = {round(per_evaluation * number) for number in range(1, evaluations + 1)} - {0}
    return Budget(config, per_epoch, step_size, total, tuple(sorted(steps | {total})))


def require_trainable(config: TrainConfig) -> None:
    """Raise ConfigError for settings of which no training can begin, before any image is opened."""
    budget_of(config)
    check_statistics(config.bn_statistics if config.batch_norm else None, *config.split.sizes()[1:])


def updates_of(configs: Sequence[TrainConfig], *, is_chain: bool) -> int:
    """Return the updates of a chain of trainings, or of a stack, whose networks share them."""
    return sum(budget_of(config).total_updates for config in (configs if is_chain else configs[:1]))
