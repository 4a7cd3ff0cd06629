"""Comparison: decides whether the numbers of a published report agree with ours, as intervals.py defines it.

The error of a gradient has no seeds, it has a size. Rounding makes the error of a difference quotient vary by an order
of magnitude with the images, the weights and the step; so ours *differs* if it is above BAND times the published one,
whether or not our gradient is right. A smaller error is no disagreement: below 1 / BAND it is *more exact*. The size of
a gradient itself, its mean or deviation over the entries, depends on random weights: outside of that band, above or
below, it differs; inside it is *undecided*, since a band that wide could hide a wrong factor.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from klcli.published.conclusions import Epochs, Evidence, Finding, find
from klcli.published.intervals import (
    DIFFERS,
    INCOMPARABLE,
    REPRODUCED,
    UNDECIDED,
    VERDICTS,
    Noise,
    decide,
    sampling_error,
    tolerance_of,
    typical_spread,
)
from klcli.published.report import GradientExperiment, Line, Report
from klcli.settings.sameness import without_seeds
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.records import GradientError, Run
from klcli.studies.plans import repeat
from klcli.studies.statistics import Sample

BAND = 10.0  # the factor between two errors of a gradient that agree
QUICK_SEEDS, QUICK_CYCLES = 2, 1
UNEXPLAINED = "for an unknown reason, not tested"
Runs = Mapping[TrainConfig, Run]
Errors = Mapping[GradientExperiment, Sequence[GradientError]]
Plans = dict[SplitConfig, list[TrainConfig]]  # by the division of the images
Planned = tuple[str, list[TrainConfig], list[tuple[int, ...]] | None]  # name, plan and chains of a study


@dataclass(frozen=True)
class Comparison:
    """One line of a report, with our result."""

    line: Line
    verdict: str
    why: str  # the reason, the known difference, or a remark that the reader needs; may be empty
    ours: Sample | None = None  # over the seeds that did not diverge; for a gradient, its one error
    diverged: int = 0
    margin: float | None = None  # half of the prediction interval, which decides
    tolerance: float | None = None
    failed: bool = False  # whether klcli's own gradient is wrong

    @property
    def difference(self) -> float | None:
        """Ours minus the published number, of a training or of a conclusion about trainings."""
        has_size = self.line.check or self.line.quantity == "lambda"
        published = None if has_size else self.line.published
        return None if self.ours is None or published is None else self.ours.mean - published


def plan(report: Report, repeats: int, *, quick: bool = False, vary: str = "all") -> Plans:
    """Return the trainings of a report, each once; unless `quick`, with more seeds where its experiment has more."""
    plans: dict[SplitConfig, dict[TrainConfig, None]] = {}
    for one in report.experiments:
        for base in one.configs:
            configs = repeat(base, repeats if quick else max(repeats, one.repeats), vary)
            plans.setdefault(base.split, {}).update(dict.fromkeys(configs))
    return {split: list(configs) for split, configs in plans.items()}


def chains(report: Report, repeats: int, vary: str = "all") -> list[Planned]:
    """Return the searches of a report as published: a chain of one seed, each from the weights of the previous."""
    found: list[Planned] = []
    for one in report.experiments:
        by_seed, n = zip(*(repeat(base, repeats, vary) for base in one.configs), strict=True), len(one.configs)
        links = [tuple(range(start, start + n)) for start in range(0, repeats * n, n)]
        found.append((one.name, [config for configs in by_seed for config in configs], links))
    return found


def compare(
    report: Report, runs: Runs, errors: Errors, *, epochs: Epochs = lambda run: (), incomparable: str | None = None
) -> list[Comparison]:
    """Compare every line of a report with runs and checks; `incomparable` is the reason why no training can be.

    `epochs` returns the evaluations of a run by its id, for the conclusions about curves.
    """
    settings = by_setting(runs.values())
    own = [settings.get(without_seeds(line.config), ()) if line.config else () for line in report.lines]
    samples = [_sample(line, mine) for line, mine in zip(report.lines, own, strict=True)]
    spreads = dict[str, dict[TrainConfig, Sample]]()  # by quantity; each setting counts once
    for line, sample in zip(report.lines, samples, strict=True):
        if line.quantity and line.config and sample:
            spreads.setdefault(line.quantity, {})[line.config] = sample
    typical = {quantity: typical_spread(by_config.values()) for quantity, by_config in spreads.items()}
    evidence = Evidence(report, lambda config: settings.get(without_seeds(config), ()), typical, epochs)
    return [
        _gradient(line, errors.get(line.check, ()))
        if line.check
        else _conclusion(line, evidence, incomparable)
        if line.conclusion
        else _training(line, sample, mine, typical.get(line.quantity or ""), incomparable)
        for line, mine, sample in zip(report.lines, own, samples, strict=True)
    ]


def by_setting(runs: Iterable[Run]) -> dict[TrainConfig, list[Run]]:
    """Return the runs of each setting, by the key that its seeds have in common."""
    settings: dict[TrainConfig, list[Run]] = {}
    for run in runs:
        settings.setdefault(without_seeds(run.config), []).append(run)
    return settings


def _sample(line: Line, mine: Sequence[Run]) -> Sample | None:
    values = [float(getattr(run, line.quantity)) for run in mine if run.state == "complete" and line.quantity]
    return Sample(tuple(values)) if values else None


def _training(
    line: Line, sample: Sample | None, mine: Sequence[Run], typical: float | None, incomparable: str | None
) -> Comparison:
    diverged = sum(run.state == "diverged" for run in mine)
    if line.quantity is None or line.published is None or line.config is None:
        return Comparison(line, INCOMPARABLE, line.reason or "no number", sample, diverged)
    lost = f"{diverged} of {len(mine)} diverged" if sample else f"all {diverged} of our trainings diverged"
    lost = lost if diverged else ""
    if incomparable or not (sample or diverged):
        words = _words(lost, incomparable or "not trained", line.reason, line.note)
        return Comparison(line, INCOMPARABLE, words, sample, diverged)
    if sample is None:
        return Comparison(line, DIFFERS, lost, diverged=diverged)
    split_varies = len({run.split for run in mine}) > 1
    same_images = line.same_validation_images or split_varies
    sampling = 0.0 if same_images else sampling_error(line.quantity, sample.mean, line.config.split)
    noise, tolerance = Noise.of(sample, typical, sampling), line.tolerance or tolerance_of(line.quantity)
    verdict, power = decide(sample.mean - line.published, noise, tolerance)
    why = _why(line, verdict, lost, power)
    return Comparison(line, verdict, why, sample, diverged, noise.half(), tolerance)


def _gradient(line: Line, errors: Sequence[GradientError]) -> Comparison:
    mine = [error for error in errors if line.tensor in (None, error.tensor)]
    if not mine or line.quantity is None or line.published is None:
        return Comparison(line, INCOMPARABLE, line.reason or "not checked")
    ours = max((float(getattr(error, line.quantity)) for error in mine), key=abs)
    size, published, is_error = abs(ours), abs(line.published), not line.quantity.startswith("gradient_")
    is_smaller, words = size * BAND < published, ""
    if size > BAND * published or (is_smaller and not is_error):
        verdict = DIFFERS
    elif is_error:
        verdict, words = REPRODUCED, "more exact" if is_smaller else ""
    else:
        verdict, words = UNDECIDED, f"within a factor of {BAND:g}, as sizes with other weights are"
    why = _why(line, verdict, words)
    return Comparison(line, verdict, why, Sample((ours,)), failed=not all(error.passed for error in mine))


def _conclusion(line: Line, evidence: Evidence, incomparable: str | None) -> Comparison:
    found = Finding(INCOMPARABLE, incomparable) if incomparable else find(line, evidence)
    return Comparison(
        line, found.verdict, _why(line, found.verdict, found.words), found.sample, margin=found.margin,
        tolerance=found.tolerance,
    )  # fmt: skip


def _why(line: Line, verdict: str, *words: str) -> str:
    known = line.if_differs or (None if line.reason else UNEXPLAINED)
    return _words(*words, known if verdict == DIFFERS else "", line.reason, line.note)


def _words(*words: str | None) -> str:
    return "; ".join(filter(None, words))


def counts(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """Count the lines of each verdict."""
    return {verdict: sum(one.verdict == verdict for one in comparisons) for verdict in VERDICTS}


def explained(comparisons: Sequence[Comparison]) -> dict[str, list[str]]:
    """Return the reasons for differences, each with the rows that it applies to."""
    found: dict[str, list[str]] = {}
    for one in comparisons:
        if one.verdict == DIFFERS and one.line.row not in found.setdefault(one.why, []):
            found[one.why].append(one.line.row)
    return found
