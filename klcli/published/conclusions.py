"""Conclusions: what a report says about several of its trainings, each tested on ours.

lambda      The lambda that the report chose. It agrees if it is on our plateau: its mean validation accuracy is within
            one standard error of our best. If every tried lambda is, the search cannot choose, and nothing is decided.
gap         Training minus validation or test accuracy (loss, cost) of one experiment, or how much larger it is than
            another's.
difference  A quantity of one experiment minus that of another.
spread      How many points less the accuracy varies over sigma (largest minus smallest) with BN than without.
epochs      The epochs until the first experiment is ahead of the second for good (a higher accuracy, or a lower loss
            or cost); the length of the training if never.

All but the first are measured for every seed. The verdict is that of intervals.py on one more run: against a published
number, or for a claim, which the whole interval must have (`above` 0, `below` 10 epochs). The variance of a typical
setting is the sum of those of its parts, an upper bound if the parts are one network. The gap of one experiment has the
sampling errors of both its parts; where two experiments are measured on the same images, none enters. Epochs are whole
numbers: their standard deviation over seeds is at least that of rounding, 1 / sqrt(12), or seeds that agree by chance
would leave no doubt.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from klcli.published import intervals
from klcli.published.intervals import DIFFERS, INCOMPARABLE, REPRODUCED, UNDECIDED, Typical
from klcli.published.report import Comparison, Conclusion, GradientExperiment, Line, Report
from klcli.settings.sameness import without_seeds
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Epoch, GradientError, Run
from klcli.studies.lambda_search import Tried, choose
from klcli.studies.statistics import Sample

ROUNDED = 1 / math.sqrt(12)  # standard deviation of what is left of a number that is rounded to a whole one
Values = Mapping[int, float]  # by repeat


@dataclass(frozen=True)
class Evidence:
    """The stored runs and gradient checks of a reproduction."""

    runs: Mapping[tuple[str, TrainConfig], Sequence[Run]]  # of all seeds, by method and `key(config)`
    errors: Mapping[GradientExperiment, Sequence[GradientError]]
    epochs: Callable[[int], Sequence[Epoch]]  # of a run, by its id
    key: Callable[[TrainConfig], TrainConfig] = without_seeds

    def runs_of(self, base: TrainConfig | None, method: str) -> Sequence[Run]:
        return self.runs.get((method, self.key(base)), ()) if base else ()


class Trained(NamedTuple):
    """One setting of an experiment, with its runs; some may be diverged or deleted."""

    config: TrainConfig
    runs: Sequence[Run]

    def complete(self) -> dict[int, Run]:
        """Return the complete runs by repeat, from 0 on, with which the seed of the weights, the other or both rise."""
        first, complete = self.config, [run for run in self.runs if run.state == "complete"]
        return {max(run.config.seed - first.seed, run.config.shared_seed - first.shared_seed): run for run in complete}

    def values(self, quantity: str) -> Values:
        return {repeat: float(getattr(run, quantity)) for repeat, run in self.complete().items()}


def find(line: Line, report: Report, evidence: Evidence, typical: Mapping[str, Typical | None]) -> Comparison:
    """Test the conclusion of a line. `why` has our numbers alone, without the remarks of the line.

    `typical` is the typical spread of each quantity.
    """
    asked, named = line.conclusion, {one.name: one for one in report.experiments}
    assert asked is not None
    experiments = [named[name] for name in asked.experiments]
    parts = [Trained(config, evidence.runs_of(config, one.method)) for one in experiments for config in one.configs]
    if line.quantity == "lambda":
        return _lambda(line, asked, parts)
    if line.quantity == "epochs":
        values, quantities = _epochs(asked.quantity, parts, evidence.epochs), list[str]()
    else:
        values, quantities = _MEASURED[line.quantity or ""](asked.quantity, parts)
    if not values:
        return Comparison(line, INCOMPARABLE, _lost(parts))
    sample, bound = Sample(tuple(values.values())), line.published or 0.0
    spread = sample.std
    if line.quantity == "epochs" and spread is not None:
        spread = max(spread, ROUNDED)
    sampling = _sampling_error(line, parts[0], quantities) if len(parts) == 1 else 0.0
    noise = intervals.Noise(sample.n, spread, _sum([typical.get(one) for one in quantities]), sampling)
    difference = sample.mean - bound
    if asked.claim:
        verdict, power = intervals.decide_claim(difference if asked.claim == "above" else -difference, noise)
        return Comparison(line, verdict, power, sample, margin=noise.half())
    tolerance = line.tolerance or intervals.tolerance_of(asked.quantity)
    verdict, power = intervals.decide(difference, noise, tolerance)
    return Comparison(line, verdict, power, sample, margin=noise.half(), tolerance=tolerance)


def on_other_images(line: Line, runs: Sequence[Run]) -> bool:
    """Whether a report divided the training images otherwise than all our runs did, by chance."""
    return not line.same_validation_images and len({run.split for run in runs}) == 1


def _sampling_error(line: Line, part: Trained, quantities: Sequence[str]) -> float:
    if not on_other_images(line, part.runs):
        return 0.0
    means = (statistics.fmean(part.values(one).values()) for one in quantities)
    errors = zip(quantities, means, strict=True)
    return math.hypot(*(intervals.sampling_error(one, mean, part.config.split) for one, mean in errors))


def _lost(parts: Sequence[Trained]) -> str:
    """Return why experiments have no result in common."""
    states = [run.state for part in parts for run in part.runs]
    diverged = states.count("diverged")
    return f"{diverged} of {len(states)} trainings diverged: too few are left" if diverged else "not trained"


def _sum(spreads: Sequence[Typical | None]) -> Typical | None:
    """Return the typical spread of a sum of independent quantities, None if that of one is unknown."""
    known = [one for one in spreads if one is not None]
    if not known or len(known) < len(spreads):
        return None
    return Typical(math.hypot(*(one.std for one in known)), min(one.freedom for one in known))


def _lambda(line: Line, asked: Conclusion, parts: Sequence[Trained]) -> Comparison:
    tried = []
    for part in parts:
        accuracies = tuple(part.values(asked.quantity).values())
        diverged = sum(run.state == "diverged" for run in part.runs)
        if accuracies or diverged:
            tried.append(Tried(part.config.lam, asked.experiments[0], accuracies, diverged))
    published = next((one for one in tried if one.lam == line.published), None)
    if published is None or not any(one.accuracies for one in tried):
        return Comparison(line, INCOMPARABLE, _lost(parts))
    choice = choose(tried, intervals.images_of(asked.quantity, parts[0].config.split))
    plateau = choice.plateau
    words = (
        f"within one standard error of our best: {len(plateau)} of {len(tried)} lambdas, "
        f"{plateau[0].lam:.4g} to {plateau[-1].lam:.4g}"
    )
    sample = Sample((choice.chosen.lam,) * len(choice.chosen.accuracies))  # one choice by all seeds
    if published not in plateau:
        short = f"is {100 * (choice.best.accuracy - published.accuracy):.2f} points below it"
        n = published.diverged + len(published.accuracies)
        unstable = f"diverged in {published.diverged} of {n} trainings, our best in {choice.best.diverged}"
        lost = unstable if published.diverging > choice.best.diverging else short
        return Comparison(line, DIFFERS, f"{words}; the published lambda {lost}", sample)
    return Comparison(line, UNDECIDED if len(plateau) == len(tried) else REPRODUCED, words, sample)


def _gap(quantity: str, parts: Sequence[Trained]) -> tuple[Values, list[str]]:
    quantities = [f"train_{quantity.rpartition('_')[2]}", quantity]
    gaps = [_minus(*map(part.values, quantities)) for part in parts]
    return (gaps[0] if len(gaps) == 1 else _minus(*gaps)), quantities * len(gaps)


def _difference(quantity: str, parts: Sequence[Trained]) -> tuple[Values, list[str]]:
    return _minus(*(part.values(quantity) for part in parts)), [quantity] * 2


def _spread(quantity: str, parts: Sequence[Trained]) -> tuple[Values, list[str]]:
    spreads = []
    for batch_norm in (False, True):
        many = [part.values(quantity) for part in parts if part.config.batch_norm == batch_norm]
        common = [repeat for repeat in many[0] if all(repeat in values for values in many)]
        spreads.append({r: max(one[r] for one in many) - min(one[r] for one in many) for r in common})
    return _minus(*spreads), [quantity] * 4


def _epochs(quantity: str, parts: Sequence[Trained], epochs: Callable[[int], Sequence[Epoch]]) -> Values:
    ahead, behind = (part.complete() for part in parts)
    sign, found = 1 if quantity.endswith("accuracy") else -1, {}
    for repeat in [one for one in ahead if one in behind]:
        curves = (epochs(runs[repeat].id) for runs in (ahead, behind))
        # The curves of older runs begin after an epoch.
        first, second = ({one.epoch: sign * getattr(one, quantity) for one in curve if one.step} for curve in curves)
        if common := sorted(first.keys() & second.keys()):
            found[repeat] = ahead_for_good(common, [first[e] for e in common], [second[e] for e in common])
    return found


def ahead_for_good(epochs: Sequence[float], first: Sequence[float], second: Sequence[float]) -> float:
    """Return the epoch from which on the first curve is above the second, the last epoch if it never stays above."""
    ends = [epoch for epoch, a, b in zip(epochs, first, second, strict=True) if a <= b]
    return next((epoch for epoch in epochs if not ends or epoch > ends[-1]), epochs[-1])


def _minus(a: Values, b: Values) -> Values:
    return {repeat: value - b[repeat] for repeat, value in a.items() if repeat in b}


_MEASURED = {"gap": _gap, "difference": _difference, "spread": _spread}
