"""Comparison: decides whether the numbers of a published report agree with ours.

A report trains once: its number is one draw from the distribution over seeds, which n trainings of ours estimate. It is
compared with the *prediction interval* of one more run,

    mean +- t * s * sqrt(1 + 1 / n)

with t of n - 1 + PRIOR degrees of freedom. Three seeds estimate the standard deviation s badly, so their variance is
combined with a prior variance s0^2, which counts as PRIOR degrees of freedom and is also a lower bound:

    s^2 = max(s0^2, ((n - 1) s_own^2 + PRIOR s0^2) / (n - 1 + PRIOR))
    s0  = max(sampling error of the images, median of s_own over all settings of the report with this quantity)

The sampling error on N images is sqrt(p (1 - p) / N) of an accuracy p, and LOSS_SPREAD / sqrt(N) of a loss or cost: the
published run had a different validation split.

The error of a gradient has no seeds. It is reproduced if ours is at most of the published order of magnitude, or if
the tensor passes klcli's own check, which is then the more precise one.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from klcli.published.report import GradientExperiment, Line, Report
from klcli.settings.sameness import without_seeds
from klcli.settings.train_config import TrainConfig
from klcli.store.records import GradientError, Run
from klcli.studies.statistics import Sample, quantile

REPRODUCED, DIFFERS, INCOMPARABLE = VERDICTS = ("reproduced", "differs", "cannot be compared")
PRIOR = 8  # degrees of freedom of the prior variance
LOSS_SPREAD = 1.1  # standard deviation of the cross-entropy over images, measured in trained networks of these sizes
ORDER_OF_MAGNITUDE = 10.0
UNEXPLAINED = "outside the prediction interval, for an unknown reason"
Runs = Mapping[TrainConfig, Run]
Noises = Mapping[str, float]  # median standard deviation over seeds, by quantity
Errors = Mapping[GradientExperiment, Sequence[GradientError]]


@dataclass(frozen=True)
class Comparison:
    """One line of a report, with our result."""

    line: Line
    verdict: str
    why: str  # the reason, the known difference, or a remark that the reader needs; may be empty
    ours: Sample | None = None  # over the seeds that did not diverge; for a gradient, its one error
    diverged: int = 0
    standard_error: float | None = None  # s sqrt(1 + 1 / n): standard error of a single run around our mean
    margin: float | None = None  # half of the prediction interval
    failed: bool = False  # whether klcli's own gradient is wrong

    @property
    def difference(self) -> float | None:
        """Ours minus the published number, of a training."""
        published = None if self.line.check else self.line.published
        return None if self.ours is None or published is None else self.ours.mean - published

    @property
    def standard_errors(self) -> float | None:
        difference, error = self.difference, self.standard_error
        return difference / error if difference is not None and error else None


def compare(
    report: Report, runs: Runs, errors: Errors, *, incomparable: str | None = None, others: Mapping[str, Runs] = {}
) -> list[Comparison]:
    """Compare every line of a report with runs and checks; `incomparable` is the reason why no training can be.

    `others` are the runs of each method of its own.
    """
    settings = {method: by_setting(mine.values()) for method, mine in {"": runs, **others}.items()}
    own = [
        settings.get(line.method, {}).get(without_seeds(line.config), ()) if line.config else ()
        for line in report.lines
    ]
    # Over seeds, by quantity; each training counts once.
    samples, stds = [], dict[str, dict[tuple[str, TrainConfig], float]]()
    for line, mine in zip(report.lines, own, strict=True):
        values = [float(getattr(run, line.quantity)) for run in mine if run.state == "complete" and line.quantity]
        samples.append(sample := Sample(tuple(values)) if values else None)
        if line.quantity and line.config and sample and sample.std is not None:
            stds.setdefault(line.quantity, {})[line.method, line.config] = sample.std
    noises = {quantity: statistics.median(by_config.values()) for quantity, by_config in stds.items()}
    return [
        _gradient(line, errors.get(line.check, ()))
        if line.check
        else _training(line, sample, sum(run.state == "diverged" for run in mine), noises, incomparable)
        for line, mine, sample in zip(report.lines, own, samples, strict=True)
    ]


def by_setting(runs: Iterable[Run]) -> dict[TrainConfig, list[Run]]:
    """Return the runs of each setting, by the key that its seeds have in common."""
    settings: dict[TrainConfig, list[Run]] = {}
    for run in runs:
        settings.setdefault(without_seeds(run.config), []).append(run)
    return settings


def noise(sample: Sample, quantity: str, images: int, known: float) -> tuple[float, float]:
    """Return s and its degrees of freedom; `known` is the median standard deviation of all settings of the report."""
    p = min(max(sample.mean, 0.0), 1.0)
    spread = math.sqrt(p * (1 - p)) if quantity.endswith("accuracy") else LOSS_SPREAD
    floor = max(spread / math.sqrt(images), known)
    freedom = sample.n - 1 + PRIOR
    moderated = ((sample.n - 1) * (sample.std or 0.0) ** 2 + PRIOR * floor**2) / freedom
    return max(floor, math.sqrt(moderated)), freedom


def _training(line: Line, sample: Sample | None, diverged: int, noises: Noises, incomparable: str | None) -> Comparison:
    if line.quantity is None or line.published is None or line.config is None:
        return Comparison(line, INCOMPARABLE, line.reason or "no number", sample, diverged)
    if sample is None and diverged:
        return Comparison(line, DIFFERS, f"all {diverged} of our trainings diverged", diverged=diverged)
    if sample is None:
        return Comparison(line, INCOMPARABLE, "not trained")
    sizes = dict(zip(("train", "validation", "test"), line.config.split.sizes(), strict=True))
    images = sizes[line.quantity.removeprefix("best_").partition("_")[0]]
    s, freedom = noise(sample, line.quantity, images, noises.get(line.quantity, 0.0))
    error = s * math.sqrt(1 + 1 / sample.n)
    margin = quantile(freedom) * error
    lost = f"{diverged} of {diverged + sample.n} diverged" if diverged else None
    verdict, why = _verdict(line, abs(sample.mean - line.published) <= margin, incomparable, lost)
    return Comparison(line, verdict, why, sample, diverged, error, margin)


def _gradient(line: Line, errors: Sequence[GradientError]) -> Comparison:
    mine = [error for error in errors if line.tensor in (None, error.tensor)]
    if not mine or line.quantity is None or line.published is None:
        return Comparison(line, INCOMPARABLE, line.reason or "not checked")
    ours = max((float(getattr(error, line.quantity)) for error in mine), key=abs)
    passed = all(error.passed for error in mine)
    verdict, why = _verdict(line, passed or ours <= ORDER_OF_MAGNITUDE * line.published)
    return Comparison(line, verdict, why, Sample((ours,)), failed=not passed)


def _verdict(line: Line, agrees: bool, incomparable: str | None = None, lost: str | None = None) -> tuple[str, str]:
    verdict, reason = (REPRODUCED, None) if agrees else (DIFFERS, line.if_differs or UNEXPLAINED)
    if incomparable or line.reason:
        verdict, reason = INCOMPARABLE, incomparable or line.reason
    return verdict, "; ".join(filter(None, (lost, reason, line.note)))


def counts(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """Count the lines of each verdict, without those of variants."""
    counted = [one.verdict for one in comparisons if one.line.variant is None]
    return {verdict: counted.count(verdict) for verdict in VERDICTS}


def counts_of_variants(comparisons: Sequence[Comparison]) -> dict[str, dict[str, int]]:
    """Count the lines of each variant, by its name, and verdict."""
    names = dict.fromkeys(one.line.variant for one in comparisons if one.line.variant is not None)
    own = {name: [one.verdict for one in comparisons if one.line.variant == name] for name in names}
    return {name: {verdict: own[name].count(verdict) for verdict in VERDICTS} for name in own}


def explained(comparisons: Sequence[Comparison]) -> dict[str, list[str]]:
    """Return the reasons for differences, each with the rows that it applies to."""
    found: dict[str, list[str]] = {}
    for one in comparisons:
        if one.verdict == DIFFERS and one.line.row not in found.setdefault(one.why, []):
            found[one.why].append(one.line.row)
    return found
