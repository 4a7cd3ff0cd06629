"""The lambda search: draw values, narrow their range, choose one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from klcli.settings.setting import require
from klcli.settings.train_config import TrainConfig
from klcli.studies.plans import repeat
from klcli.studies.statistics import Sample, binomial_variance

VALUES = 2  # spawn key of the generator that draws lambdas, distinct from those of training and data


@dataclass(frozen=True)
class Range:
    """The range in which lambdas are drawn. Raises ConfigError if no value can be drawn."""

    low: float
    high: float
    scale: str = "log"  # or "linear"

    def __post_init__(self) -> None:
        ends = f"--range {self.low:g} {self.high:g}: give two numbers of at least 0, the smaller first"
        require(0 <= self.low < self.high < math.inf, ends)
        no_zero = "--range from 0: a logarithmic scale has no 0, give a number above it or --scale linear"
        require(self.low > 0 or self.scale != "log", no_zero)


@dataclass(frozen=True)
class Tried:
    """One value of lambda, with the validation accuracies of its repeats at the end of the last cycle."""

    lam: float
    stage: str
    accuracies: tuple[float, ...]  # of the complete repeats; empty if all diverged
    diverged: int = 0  # number of repeats

    @property
    def accuracy(self) -> float:
        return Sample(self.accuracies).mean if self.accuracies else -math.inf

    @property
    def diverging(self) -> float:
        """The share of the finished repeats that diverged, 1 if none converged: without a result, it is the last."""
        return self.diverged / (self.diverged + len(self.accuracies)) if self.accuracies else 1.0

    @property
    def order(self) -> tuple[float, float]:
        """The key that sorts the best value first.

        The mean of the repeats that happened to converge favours a value of which others diverged: it comes later.
        """
        return self.diverging, -self.accuracy


@dataclass(frozen=True)
class Choice:
    """The chosen lambda and the values that do not differ from the best by more than chance."""

    chosen: Tried
    best: Tried
    plateau: tuple[Tried, ...]  # within one standard error of the best, ascending in lambda
    standard_error: float


def draw(where: Range, trials: int, seed: int, stage: int) -> list[float]:
    """Draw `trials` lambdas, ascending: a pure function. On the log scale, `lambda = 10^l` with l uniform."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(VALUES, stage))))
    if where.scale == "linear":
        return sorted(rng.uniform(where.low, where.high, trials).tolist())
    return sorted((10 ** rng.uniform(math.log10(where.low), math.log10(where.high), trials)).tolist())


def narrow(tried: Sequence[Tried], where: Range) -> Range:
    """Return the range of the three best values, extended half way, on its scale, to the next or the old ends."""
    best = sorted((one for one in tried if one.accuracies), key=lambda one: one.order)[:3]
    lowest, highest = min(one.lam for one in best), max(one.lam for one in best)
    below = max((one.lam for one in tried if one.lam < lowest), default=where.low)
    above = min((one.lam for one in tried if one.lam > highest), default=where.high)
    if where.scale == "linear":
        return Range((below + lowest) / 2, (highest + above) / 2, where.scale)
    return Range(math.sqrt(below * lowest), math.sqrt(highest * above), where.scale)


def choose(tried: Sequence[Tried], n_validation: int) -> Choice:
    """Choose by validation accuracy, ties towards the middle of the plateau, the values within one standard error.

    Only values of which the fewest repeats diverged can be chosen: usually, all of them converged.
    The standard error is that of the best value's mean over its repeats, at least the binomial one, sqrt(p (1 - p) / n)
    for one training. Repeats divide it although they share their images, because all values share them: of means of 6
    repeats on 5 000 images, the difference between two lambdas had an error of 0.0021 by the images; this gives 0.0029.
    A training of at least one value has converged.
    """
    converged = sorted((one for one in tried if one.accuracies), key=lambda one: one.lam)
    best = min(converged, key=lambda one: one.order)
    error = math.sqrt(binomial_variance(best.accuracy, n_validation) / len(best.accuracies))
    if len(best.accuracies) > 1:
        error = max(error, Sample(best.accuracies).standard_error)
    equals = [one for one in converged if one.diverging == best.diverging]
    plateau = [one for one in equals if one.accuracy >= best.accuracy - error]
    logs = {one.lam: math.log10(max(one.lam, 1e-300)) for one in plateau}
    middle = sum(logs[one.lam] for one in plateau) / len(plateau)
    tied = [one for one in plateau if one.accuracy == best.accuracy]
    return Choice(min(tied, key=lambda one: (abs(logs[one.lam] - middle), one.lam)), best, tuple(plateau), error)


def plan(base: TrainConfig, lambdas: Sequence[float], repeats: int, vary: str = "all") -> list[TrainConfig]:
    """Return the configs of a stage, every lambda with the same repeats: the same initial weights, the same images."""
    return [replace(config, lam=lam) for lam in dict.fromkeys(lambdas) for config in repeat(base, repeats, vary)]


def final(base: TrainConfig, lam: float, repeats: int, vary: str = "all") -> list[TrainConfig]:
    """Return the configs of the final training with the chosen lambda."""
    # As in the course: three cycles with n_s = 5 floor(n / n_batch).
    return repeat(replace(base, lam=lam, cycles=3, step_epochs=5, step_size=None, epochs=None), repeats, vary)
