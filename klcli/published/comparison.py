"""Reproduction: what a published report says, beside what its experiments give now, and whether the two agree.

A report trains once. Its number is one draw from the distribution of all seeds, of which n trainings
give a mean and a spread; so it is held against the *prediction interval* of one more run,

    mean +- t * s * sqrt(1 + 1 / n)

s is the noise from seed to seed. Three seeds know little of it, so their variance is moderated by what is
known without them, which counts as PRIOR further degrees of freedom and is a floor as well:

    s^2 = max(s0^2, ((n - 1) s_own^2 + PRIOR s0^2) / (n - 1 + PRIOR))
    s0  = max(sampling error of the images, median of s_own over all numbers of the report of this quantity)

and t is Student's 97.5 % point with n - 1 + PRIOR degrees of freedom. The sampling error is
sqrt(p (1 - p) / N) of an accuracy p on N images, and LOSS_SPREAD / sqrt(N) of a loss or cost: the published
run had other images in its validation split.

The error of a gradient has no seeds. It is reproduced where ours is of the published order of magnitude or
below it, or where the tensor passes klcli's own check: a published error says how exact a check was, and an
exacter one confirms it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from klcli.published.report import GradientExperiment, Line, Report
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.studies.repeats import repeat
from klcli.studies.statistics import Sample, quantile

REPRODUCED, DIFFERS, INCOMPARABLE = "reproduced", "differs", "cannot be compared"
PRIOR = 8  # degrees of freedom of what is known of the noise before any seed is trained
LOSS_SPREAD = 1.1  # standard deviation of the cross-entropy over images, as measured in trained networks of these sizes
ORDER_OF_MAGNITUDE = 10.0
QUICK_SEEDS, QUICK_CYCLES = 2, 1
UNEXPLAINED = "outside of what other seeds do, for no known reason"

Row = Any


@dataclass(frozen=True)
class Comparison:
    """One line of a report with what it is compared to."""

    line: Line
    ours: Sample | None  # over the seeds that did not diverge; of a gradient, its one error
    diverged: int
    standard_error: float | None  # s sqrt(1 + 1 / n): that of a single run around our mean
    margin: float | None  # half of the prediction interval
    verdict: str
    why: str  # the reason, the known difference, or what must be known to read the line; may be empty
    failed: bool = False  # whether klcli's own gradient is wrong

    @property
    def difference(self) -> float | None:
        """Ours minus the published number."""
        if self.ours is None or self.line.published is None or self.line.check is not None:
            return None
        return self.ours.mean - self.line.published

    @property
    def standard_errors(self) -> float | None:
        """The difference in standard errors."""
        if self.difference is None or not self.standard_error:
            return None
        return self.difference / self.standard_error


@dataclass(frozen=True)
class Sizes:
    """How many images train, validate and test."""

    train: int
    validation: int
    test: int

    def of(self, quantity: str) -> int:
        """The images of `test_accuracy`, `best_validation_accuracy`."""
        split = quantity.removeprefix("best_").partition("_")[0]
        return int(getattr(self, split))


def shortened(report: Report) -> Report:
    """Return the report with trainings of one cycle."""
    return report.with_configs(lambda config: replace(config, cycles=min(config.cycles, QUICK_CYCLES)))


def on_subset(report: Report, n: int) -> Report:
    """Return the report with trainings on the first n training images, the other splits scaled alike."""
    return report.with_configs(lambda config: replace(config, split=replace(config.split, subset=n)))


def plan(report: Report, repeats: int, *, quick: bool = False) -> dict[SplitConfig, list[TrainConfig]]:
    """Return all trainings of a report by the division of the images, each once however many rows share it.

    Every setting is trained with `repeats` seeds, or with as many more as its experiment asks for where
    that is not `quick`.
    """
    plans: dict[SplitConfig, dict[TrainConfig, None]] = {}
    for experiment in report.experiments:
        n = repeats if quick else max(repeats, experiment.repeats)
        for base in experiment.configs:
            plans.setdefault(base.split, {}).update(dict.fromkeys(repeat(base, n)))
    return {split: list(configs) for split, configs in plans.items()}


@dataclass(frozen=True)
class Chain:
    """A search whose trainings go on from one another: once for every seed."""

    name: str
    plan: tuple[TrainConfig, ...]
    links: list[tuple[int, ...]]  # positions in the plan of each seed's trainings, in their order


def chains(report: Report, repeats: int) -> list[Chain]:
    """Return the warm-started searches of a report as it was published."""
    found = []
    for experiment in report.experiments:
        by_seed = zip(*(repeat(base, repeats) for base in experiment.configs), strict=True)
        n = len(experiment.configs)
        links = [tuple(range(seed * n, (seed + 1) * n)) for seed in range(repeats)]
        found.append(Chain(experiment.name, tuple(config for configs in by_seed for config in configs), links))
    return found


def compare(
    report: Report,
    runs: Mapping[TrainConfig, Row],
    errors: Mapping[GradientExperiment, Sequence[Row]],
    sizes: Mapping[SplitConfig, Sizes],
    *,
    incomparable: str | None = None,
) -> list[Comparison]:
    """Return every line of a report beside what was trained and checked, in its order.

    `runs` are stored runs by their config, `errors` the checked tensors of a gradient experiment, of all its
    lambdas. `incomparable` says why no training can be compared, where that is so: on other images.
    """
    seeds = by_setting(runs)
    samples = [_sample(line, seeds) for line in report.lines]
    noise = _noise_by_quantity(report.lines, samples)
    return [
        _gradient(line, errors.get(line.check, ()))
        if line.check is not None
        else _training(line, sample, _diverged(line, seeds), noise, sizes, incomparable)
        for line, sample in zip(report.lines, samples, strict=True)
    ]


def by_setting(runs: Mapping[TrainConfig, Row]) -> dict[TrainConfig, list[Row]]:
    """Return the runs of each setting, under the config of its first seed."""
    settings: dict[TrainConfig, list[Row]] = {}
    for config, run in runs.items():
        assert config.order_seed is not None, "repeat() gives all seeds of a setting the first one's order"
        settings.setdefault(replace(config, seed=config.order_seed, order_seed=None), []).append(run)
    return settings


def _mine(line: Line, seeds: Mapping[TrainConfig, Sequence[Row]]) -> Sequence[Row]:
    return () if line.config is None else seeds.get(line.config, ())


def _sample(line: Line, seeds: Mapping[TrainConfig, Sequence[Row]]) -> Sample | None:
    runs = [run for run in _mine(line, seeds) if run["state"] == "complete"]
    values = tuple(float(run[line.quantity]) for run in runs) if line.quantity else ()
    return Sample(values) if values else None


def _diverged(line: Line, seeds: Mapping[TrainConfig, Sequence[Row]]) -> int:
    return sum(run["state"] == "diverged" for run in _mine(line, seeds))


def _noise_by_quantity(lines: Sequence[Line], samples: Sequence[Sample | None]) -> dict[str, float]:
    """Return the median standard deviation over seeds for each quantity; each setting counts once."""
    own: dict[str, dict[TrainConfig, float]] = {}
    for line, sample in zip(lines, samples, strict=True):
        if line.quantity and line.config and sample and sample.std is not None:
            own.setdefault(line.quantity, {})[line.config] = sample.std
    return {quantity: statistics.median(stds.values()) for quantity, stds in own.items()}


def noise(sample: Sample, quantity: str, images: int, known: float) -> tuple[float, float]:
    """Return s and its degrees of freedom; `known` is the noise of the other settings of the report."""
    p = min(max(sample.mean, 0.0), 1.0)
    spread = math.sqrt(p * (1 - p)) if quantity.endswith("accuracy") else LOSS_SPREAD
    floor = max(spread / math.sqrt(images), known)
    freedom = sample.n - 1 + PRIOR
    moderated = ((sample.n - 1) * (sample.std or 0.0) ** 2 + PRIOR * floor**2) / freedom
    return max(floor, math.sqrt(moderated)), freedom


def _training(
    line: Line,
    sample: Sample | None,
    diverged: int,
    known: Mapping[str, float],
    sizes: Mapping[SplitConfig, Sizes],
    incomparable: str | None,
) -> Comparison:
    if line.quantity is None or line.published is None or line.config is None:
        return Comparison(line, sample, diverged, None, None, INCOMPARABLE, line.reason or "no number")
    if sample is None:
        if diverged:
            verdict, why = DIFFERS, f"all {diverged} of our trainings diverged"
        else:
            verdict, why = INCOMPARABLE, "not trained"
        return Comparison(line, None, diverged, None, None, verdict, why)
    images = sizes[line.config.split].of(line.quantity)
    s, freedom = noise(sample, line.quantity, images, known.get(line.quantity, 0.0))
    error = s * math.sqrt(1 + 1 / sample.n)
    margin = quantile(freedom) * error
    inside = abs(sample.mean - line.published) <= margin
    verdict, why = _verdict(line, inside, incomparable)
    lost = f"{diverged} of {diverged + sample.n} diverged" if diverged else ""
    return Comparison(line, sample, diverged, error, margin, verdict, "; ".join(filter(None, [lost, why])))


def _gradient(line: Line, errors: Sequence[Row]) -> Comparison:
    mine = [row for row in errors if line.tensor in (None, row["tensor"])]
    if not mine or line.quantity is None or line.published is None:
        return Comparison(line, None, 0, None, None, INCOMPARABLE, line.reason or "not checked")
    ours = max((float(row[line.quantity]) for row in mine), key=abs)
    passed = all(row["passed"] for row in mine)
    verdict, why = _verdict(line, passed or ours <= ORDER_OF_MAGNITUDE * line.published)
    return Comparison(line, Sample((ours,)), 0, None, None, verdict, why, failed=not passed)


def _verdict(line: Line, agrees: bool, incomparable: str | None = None) -> tuple[str, str]:
    """Return the verdict and what is said of it."""
    reason = incomparable or line.reason
    if reason is not None:
        return INCOMPARABLE, "; ".join(filter(None, [reason, line.note]))
    if agrees:
        return REPRODUCED, line.note or ""
    return DIFFERS, "; ".join(filter(None, [line.if_differs or UNEXPLAINED, line.note]))


def counts(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """Return how many lines have each verdict."""
    return {verdict: sum(one.verdict == verdict for one in comparisons) for verdict in _VERDICTS}


def explained(comparisons: Sequence[Comparison]) -> dict[str, list[str]]:
    """Return why rows differ: for every sentence the rows of which it is true."""
    found: dict[str, list[str]] = {}
    for one in comparisons:
        if one.verdict == DIFFERS and one.line.row not in found.setdefault(one.why, []):
            found[one.why].append(one.line.row)
    return found


_VERDICTS = (REPRODUCED, DIFFERS, INCOMPARABLE)
