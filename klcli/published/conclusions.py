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
setting is the sum of those of its parts, an upper bound if the parts are one network. The parts of a conclusion are
measured on the same images, so no sampling error enters. Epochs are whole numbers: their standard deviation over seeds
is at least that of rounding, 1 / sqrt(12), or seeds that agree by chance would leave no doubt.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from klcli.published import intervals
from klcli.published.intervals import DIFFERS, INCOMPARABLE, REPRODUCED, UNDECIDED, Typical
from klcli.published.report import Comparison, Conclusion, Experiment, Line, Report
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Epoch, Run
from klcli.studies.lambda_search import Tried, choose
from klcli.studies.statistics import Sample

ROUNDED = 1 / math.sqrt(12)  # standard deviation of what is left of a number that is rounded to a whole one
Epochs = Callable[[int], Sequence[Epoch]]
Values = Mapping[int, float]  # by repeat


@dataclass(frozen=True)
class Evidence:
    """The runs of a report, and what is known of their spread."""

    report: Report
    runs_of: Callable[[TrainConfig, str], Sequence[Run]]  # of a setting and method, in the order of their repeats
    typical: Mapping[str, Typical | None]  # by quantity
    epochs: Epochs

    def experiment(self, name: str) -> Experiment:
        return next(one for one in self.report.experiments if one.name == name)

    def runs(self, name: str, config: TrainConfig) -> dict[int, Run]:
        """Return the complete runs of a setting of an experiment, by repeat; a run may have been deleted."""
        found = {_repeat(run.config, config): run for run in self.runs_of(config, self.experiment(name).method)}
        return {repeat: run for repeat, run in found.items() if run.state == "complete"}

    def lost(self, names: Sequence[str]) -> str:
        """Return why experiments have no result in common."""
        parts = [(self.experiment(name), config) for name in names for config in self.experiment(name).configs]
        states = [run.state for one, config in parts for run in self.runs_of(config, one.method)]
        diverged = states.count("diverged")
        return f"{diverged} of {len(states)} trainings diverged: too few are left" if diverged else "not trained"

    def values(self, name: str, config: TrainConfig, quantity: str) -> Values:
        return {repeat: float(getattr(run, quantity)) for repeat, run in self.runs(name, config).items()}

    def typical_of(self, *quantities: str) -> Typical | None:
        """Return the typical spread of a sum of independent quantities, None if that of one is unknown."""
        known = [one for quantity in quantities if (one := self.typical.get(quantity)) is not None]
        if not len(known) == len(quantities) > 0:
            return None
        return Typical(math.hypot(*(one.std for one in known)), min(one.freedom for one in known))


def find(line: Line, evidence: Evidence) -> Comparison:
    """Test the conclusion of a line. `why` has our numbers alone, without the remarks of the line."""
    assert line.conclusion is not None
    if line.quantity == "lambda":
        return _lambda(line, line.conclusion, evidence)
    values, parts = _MEASURED[line.quantity or ""](line.conclusion, evidence)
    if not values:
        return Comparison(line, INCOMPARABLE, evidence.lost(line.conclusion.experiments))
    sample, bound = Sample(tuple(values.values())), line.published or 0.0
    spread = sample.std
    if line.quantity == "epochs" and spread is not None:
        spread = max(spread, ROUNDED)
    noise = intervals.Noise(sample.n, spread, evidence.typical_of(*parts))
    difference, claim = sample.mean - bound, line.conclusion.claim
    if claim:
        verdict, power = intervals.decide_claim(difference if claim == "above" else -difference, noise)
        return Comparison(line, verdict, power, sample, margin=noise.half())
    tolerance = line.tolerance or intervals.tolerance_of(line.conclusion.quantity)
    verdict, power = intervals.decide(difference, noise, tolerance)
    return Comparison(line, verdict, power, sample, margin=noise.half(), tolerance=tolerance)


def _lambda(line: Line, asked: Conclusion, evidence: Evidence) -> Comparison:
    [name] = asked.experiments
    configs = evidence.experiment(name).configs
    tried = []
    for config in configs:
        if accuracies := tuple(evidence.values(name, config, asked.quantity).values()):
            states = [run.state for run in evidence.runs_of(config, evidence.experiment(name).method)]
            tried.append(Tried(config.lam, name, accuracies, states.count("diverged")))
    published = next((one for one in tried if one.lam == line.published), None)
    if published is None:
        return Comparison(line, INCOMPARABLE, evidence.lost([name]))
    choice = choose(tried, intervals.images_of(asked.quantity, configs[0].split))
    plateau = choice.plateau
    words = (
        f"within one standard error of our best: {len(plateau)} of {len(tried)} lambdas, "
        f"{plateau[0].lam:.4g} to {plateau[-1].lam:.4g}"
    )
    sample = Sample((choice.chosen.lam,) * len(choice.chosen.accuracies))  # one choice by all seeds
    if published not in plateau:
        short = 100 * (choice.best.accuracy - published.accuracy)
        return Comparison(line, DIFFERS, f"{words}; the published lambda is {short:.2f} points below it", sample)
    return Comparison(line, UNDECIDED if len(plateau) == len(tried) > 1 else REPRODUCED, words, sample)


def _gap(asked: Conclusion, evidence: Evidence) -> tuple[Values, list[str]]:
    quantities = [f"train_{asked.quantity.rpartition('_')[2]}", asked.quantity]
    gaps = []
    for name in asked.experiments:
        [config] = evidence.experiment(name).configs
        gaps.append(_minus(*(evidence.values(name, config, one) for one in quantities)))
    return (gaps[0] if len(gaps) == 1 else _minus(*gaps)), quantities * len(gaps)


def _difference(asked: Conclusion, evidence: Evidence) -> tuple[Values, list[str]]:
    a, b = (evidence.values(*one, asked.quantity) for one in _settings(asked, evidence))
    return _minus(a, b), [asked.quantity] * 2


def _spread(asked: Conclusion, evidence: Evidence) -> tuple[Values, list[str]]:
    settings, spreads = _settings(asked, evidence), []
    for batch_norm in (False, True):
        many = [evidence.values(name, one, asked.quantity) for name, one in settings if one.batch_norm == batch_norm]
        common = [repeat for repeat in many[0] if all(repeat in values for values in many)]
        spreads.append({r: max(one[r] for one in many) - min(one[r] for one in many) for r in common})
    return _minus(*spreads), [asked.quantity] * 4


def _epochs(asked: Conclusion, evidence: Evidence) -> tuple[Values, list[str]]:
    ahead, behind = (evidence.runs(*one) for one in _settings(asked, evidence))
    pairs = [(repeat, ahead[repeat].id, behind[repeat].id) for repeat in ahead if repeat in behind]
    quantity, found = asked.quantity, {}
    sign = 1 if quantity.endswith("accuracy") else -1
    for repeat, *ids in pairs:
        curves = ([one for one in evidence.epochs(run) if one.step] for run in ids)  # older runs begin after an epoch
        first, second = ({one.epoch: sign * getattr(one, quantity) for one in curve} for curve in curves)
        if common := sorted(first.keys() & second.keys()):
            found[repeat] = ahead_for_good(common, [first[e] for e in common], [second[e] for e in common])
    return found, []


def ahead_for_good(epochs: Sequence[float], first: Sequence[float], second: Sequence[float]) -> float:
    """Return the epoch from which on the first curve is above the second, the last epoch if it never stays above."""
    ends = [epoch for epoch, a, b in zip(epochs, first, second, strict=True) if a <= b]
    return next((epoch for epoch in epochs if not ends or epoch > ends[-1]), epochs[-1])


def _settings(asked: Conclusion, evidence: Evidence) -> list[tuple[str, TrainConfig]]:
    """Return the settings of the experiments of a conclusion, each with the name of its experiment."""
    return [(name, config) for name in asked.experiments for config in evidence.experiment(name).configs]


def _repeat(config: TrainConfig, base: TrainConfig) -> int:
    """Return the number of a repeat, from 0 on, of which the seed of the weights, the other one or both rise."""
    return max(config.seed - base.seed, config.shared_seed - base.shared_seed)


def _minus(a: Values, b: Values) -> Values:
    return {repeat: value - b[repeat] for repeat, value in a.items() if repeat in b}


_MEASURED = {"gap": _gap, "difference": _difference, "spread": _spread, "epochs": _epochs}
