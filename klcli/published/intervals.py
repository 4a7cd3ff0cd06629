"""Intervals: whether one published run could be one more run of ours, and whether we could tell if it could not.

A report trains once. Its number x is one draw of a distribution over seeds, and we know the mean m of n draws of ours:
x - m has the variance s^2 of one run plus the variance s^2 / n of our mean. If the images of x and of m are different
random splits of the same M training images, the mean over N images adds v / N (1 - N / M) for each of the two splits:

    |x - m| <= h = t sqrt(s^2 (1 + 1 / n) + e^2)        in 95 of 100 cases, if the report did what we did
    e^2 = 2 v / N (1 - N / M),    v = p (1 - p) of an accuracy p, LOSS_SPREAD^2 of a loss or cost

e is 0 for the test images, which are everybody's, for a report that validates on our images, and if our own split
varies with the seed, because then s contains the share of a split, in our runs as in the published one.

Three seeds estimate s badly. Its square is therefore the mean of two variances, weighted by their degrees of freedom:
that of the n seeds, n - 1, and that of a typical setting of the report, s0^2, at most PRIOR, and at most those of the
other settings: seeds that are already counted are no further evidence. t has the sum of both, and more of them with e,
which is known. s0 is the median over the settings of the report of the standard deviation over seeds, each divided by
(1 - 2 / (9 (n - 1)))^1.5, the median of that estimate for s = 1 (Wilson and Hilferty), which is .69 for two seeds.

The verdict: x outside the interval *differs*. Inside, it is *reproduced* if h is at most the tolerance, and *undecided*
if h is larger, since then a difference as large as the tolerance could be inside as well.

The tolerance is 2 points of accuracy, or .06 of loss and cost, which go together: over the ten networks of report 001
that learn, the published training costs fall by .057 for 2 points of training accuracy (correlation -.96).

The size of a gradient is that of one draw of the weights, from a skewed distribution of which we have n draws. One more
draw of any continuous distribution is between the k-th smallest and the k-th largest of them with the probability
1 - 2 k / (n + 1), which is .95 or more for k = (n + 1) / 40, rounded down; 39 draws are the fewest. A published size
outside of that interval differs. Inside, it is reproduced if the interval is narrow enough to show a wrong gradient,
and undecided if not: the ends of the interval of a deviation may be a given factor apart; a mean of entries of both
signs may be near 0, so half of its interval may be as large as the deviation of the entries.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from klcli.settings.split_config import SplitConfig
from klcli.studies.statistics import Sample, quantile

REPRODUCED, DIFFERS, UNDECIDED, INCOMPARABLE = VERDICTS = "reproduced", "differs", "undecided", "cannot be compared"
PRIOR = 8  # most degrees of freedom of a typical setting
LOSS_SPREAD = 1.1  # standard deviation of the cross-entropy over images, measured in trained networks of these sizes
ACCURACY_TOLERANCE, LOSS_TOLERANCE = 0.02, 0.06
MAX_SEEDS = 1000  # of the search for a number that would decide
EVERY = 40  # one draw in 40 is below the interval of 95 %, one above
ROUNDING = 1e-14  # a mean that is such a part of the deviation of its entries, or less, is 0


class Typical(NamedTuple):
    """The spread over seeds in a typical setting of a report."""

    std: float  # s0
    freedom: int  # degrees of freedom of all settings together


@dataclass(frozen=True)
class Noise:
    """What makes one run of ours differ from the next, and a published run from all of them."""

    n: int  # seeds
    own: float | None  # standard deviation over these seeds, None for one seed
    typical: Typical | None  # None if no setting has more than one seed
    sampling: float = 0.0  # e

    def half(self, n: int | None = None) -> float | None:
        """Return h for n seeds, by default ours; None if nothing is known of the spread over seeds."""
        n, s0 = n or self.n, self.typical or Typical(0.0, 0)
        own, prior = n - 1, max(0, min(PRIOR, s0.freedom - (self.n - 1)))
        if self.own is None and not prior:
            return None
        s = s0.std if self.own is None else self.own  # further seeds of one seed scatter as is typical
        s2 = (own * s**2 + prior * s0.std**2) / (own + prior)
        seeds, images = s2 * (1 + 1 / n), self.sampling**2
        freedom = (own + prior) * (1 + images / seeds) ** 2 if seeds else math.inf  # by Satterthwaite: e is known
        return quantile(freedom) * math.sqrt(seeds + images)

    def seeds_for(self, width: float) -> int | None:
        """Return the smallest larger number of seeds for which h is at most `width`, if their spread stays as it is."""
        numbers = range(self.n + 1, MAX_SEEDS + 1)
        return next((n for n in numbers if (half := self.half(n)) is not None and half <= width), None)


def images_of(quantity: str, split: SplitConfig) -> int:
    """Return the number of images over which a quantity is the mean."""
    sizes = dict(zip(("train", "validation", "test"), split.sizes(), strict=True))
    return sizes[quantity.removeprefix("best_").partition("_")[0]]


def sampling_error(quantity: str, mean: float, split: SplitConfig) -> float:
    """Return e of a quantity that the report and we measured on different splits of the training images."""
    if quantity.startswith("test"):
        return 0.0
    p, images = min(max(mean, 0.0), 1.0), images_of(quantity, split)
    v = p * (1 - p) if quantity.endswith("accuracy") else LOSS_SPREAD**2
    return math.sqrt(2 * v / images * (1 - images / sum(split.sizes()[:2])))


def typical_spread(samples: Iterable[Sample]) -> Typical | None:
    """Return s0, the median standard deviation of samples of one quantity; None if all have a single value."""
    known = [(one.std / (1 - 2 / (9 * (one.n - 1))) ** 1.5, one.n - 1) for one in samples if one.std is not None]
    return Typical(statistics.median(std for std, _ in known), sum(freedom for _, freedom in known)) if known else None


def tolerance_of(quantity: str) -> float:
    """Return the tolerance of an accuracy, a loss or a cost."""
    return LOSS_TOLERANCE if quantity.endswith(("loss", "cost")) else ACCURACY_TOLERANCE


def decide(difference: float, noise: Noise, tolerance: float) -> tuple[str, str]:
    """Return the verdict on a number, and why it is undecided."""
    half = noise.half()
    if half is not None and abs(difference) > half:
        return DIFFERS, ""
    return (REPRODUCED, "") if half is not None and half <= tolerance else (UNDECIDED, _power(noise, tolerance))


def decide_claim(distance: float, noise: Noise) -> tuple[str, str]:
    """Return the verdict on a claim that holds for a positive distance: one more run of ours has it, or has it not."""
    half = noise.half()
    if half is not None and abs(distance) > half:
        return (REPRODUCED if distance > 0 else DIFFERS), ""
    return UNDECIDED, _power(noise, abs(distance))


def decide_draw(published: float, draws: Sequence[float], band: float, unit: float | None) -> tuple[str, str]:
    """Return the verdict on the size of a gradient by draws of it, and their interval, in words.

    `unit` is the deviation of the entries, for draws of their mean; without it, the draws are deviations, and `band` is
    the largest factor between the ends of an interval that decides.
    """
    zero = ROUNDING * (unit or 0.0)
    if unit and abs(published) <= zero and max(map(abs, draws)) <= zero:
        return REPRODUCED, "both are rounding errors of 0"
    k = (len(draws) + 1) // EVERY
    if not k:
        return UNDECIDED, f"an interval of single draws of the weights takes {EVERY - 1} of them, not {len(draws)}"
    low, high = sorted(draws)[k - 1], sorted(draws)[-k]
    words = f"95 % of {len(draws)} draws of the weights give {low:.1e} to {high:.1e}"
    if not low <= published <= high:
        return DIFFERS, words
    if unit is None:
        width, limit = high / low if low > 0 else math.inf, band
        words += f", a factor of {width:.1f}"
    else:
        width, limit = (high - low) / 2 / unit if unit else math.inf, 1.0
        words += f", half of it {width:.2f} deviations of the entries"
    too_wide = f"{words}, above {limit:g}: single draws scatter too much to decide"
    return (REPRODUCED, words) if width <= limit else (UNDECIDED, too_wide)


def _power(noise: Noise, width: float) -> str:
    if noise.half() is None:
        return "one seed has no spread, train at least 2"
    if (n := noise.seeds_for(width)) is not None:
        return f"{n} seeds would decide"
    return f"not even {MAX_SEEDS} seeds would decide: single runs scatter this much, and the report has one"
