"""Statistics of repeats: mean, spread, interval, and tests of the differences between means."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, combinations

SIGNIFICANCE = 0.05
EQUAL = 1e-12  # relative: a smaller deviation is rounding


@dataclass(frozen=True)
class Sample:
    """Values of one quantity for different seeds; at least one."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)

    @cached_property
    def mean(self) -> float:
        """The arithmetic mean, rounded once: the mean of equal values is exactly their value."""
        return statistics.mean(self.values)

    @cached_property
    def std(self) -> float | None:
        """The standard deviation with n - 1; None for a single value."""
        return statistics.stdev(self.values) if self.n > 1 else None

    @cached_property
    def standard_error(self) -> float:
        """The standard error of the mean, std / sqrt(n). Raises ValueError for a single value."""
        if self.std is None:
            raise ValueError("one value has no standard error")
        return self.std / math.sqrt(self.n)

    @cached_property
    def half_interval(self) -> float | None:
        """Half the width of the 95 % interval of the mean by Student's t; None for a single value, or equal ones.

        Values that are equal but for rounding, as accuracies on few images, do not say how much others would differ.
        """
        is_spread = self.n > 1 and self.standard_error > EQUAL * max(map(abs, self.values))
        return quantile(self.n - 1) * self.standard_error if is_spread else None


def binomial_variance(p: float, n: int) -> float:
    """Return the variance p (1 - p) / n of an accuracy p on n images, for p of 0 and 1 that of 1 / (n + 2)."""
    p = min(max(p, 1 / (n + 2)), 1 - 1 / (n + 2))
    return p * (1 - p) / n


def quantile(freedom: float) -> float:
    """Return the 97.5 % point t of Student's distribution: 95 % of it is between -t and t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def welch(a: Sample, b: Sample) -> float | None:
    """Return the two-sided p value of equal means by Welch's t-test.

    None if one sample has a single value, or if the means differ and neither sample has a deviation.

    t = (mean_a - mean_b) / sqrt(se_a^2 + se_b^2), degrees of freedom by Welch and Satterthwaite.
    """
    if a.n < 2 or b.n < 2:
        return None
    from scipy.special import stdtr

    squares = (a.standard_error**2, b.standard_error**2)
    if sum(squares) == 0:
        return 1.0 if a.mean == b.mean else None
    t = abs(a.mean - b.mean) / math.sqrt(sum(squares))
    freedom = sum(squares) ** 2 / (squares[0] ** 2 / (a.n - 1) + squares[1] ** 2 / (b.n - 1))
    return float(2 * stdtr(freedom, -t))


@dataclass(frozen=True)
class Comparison:
    """Two samples, by their positions, and the p value of their difference."""

    a: int
    b: int
    p: float  # two-sided, by Welch
    adjusted: float  # by Holm, for all comparisons made together

    @property
    def differs(self) -> bool:
        return self.adjusted < SIGNIFICANCE


def compare(samples: Sequence[Sample]) -> list[Comparison]:
    """Compare all pairs of samples with at least two values."""
    pairs = combinations(range(len(samples)), 2)
    tested = [(a, b, p) for a, b in pairs if (p := welch(samples[a], samples[b])) is not None]
    return [Comparison(*test, by_holm) for test, by_holm in zip(tested, holm([p for *_, p in tested]), strict=True)]


def holm(values: Sequence[float]) -> list[float]:
    """Return p values adjusted for multiple comparisons by Holm's step-down method.

    With p_(1) <= ... <= p_(m): adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)).
    """
    ranked = sorted(range(len(values)), key=values.__getitem__)
    adjusted = accumulate((min(1.0, (len(values) - rank) * values[index]) for rank, index in enumerate(ranked)), max)
    return [p for _, p in sorted(zip(ranked, adjusted, strict=True))]
