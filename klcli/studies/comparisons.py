"""Comparisons: which of many means differ by more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from klcli.studies.statistics import Sample, welch

SIGNIFICANCE = 0.05


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
    """Compare every sample of at least two values with every other one."""
    pairs = combinations(range(len(samples)), 2)
    tested = [(a, b, p) for a, b in pairs if (p := welch(samples[a], samples[b])) is not None]
    adjusted = holm([p for _, _, p in tested])
    return [Comparison(*test, by_holm) for test, by_holm in zip(tested, adjusted, strict=True)]


def holm(values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by Holm's step-down method.

    With p_(1) <= ... <= p_(m): adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)).
    """
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted
