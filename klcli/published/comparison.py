"""Comparison: decides whether the numbers of a published report agree with ours, as intervals.py defines it.

The error of a gradient has no seeds, it has a size. Rounding makes the error of a difference quotient vary by an order
of magnitude with the images, the weights and the step; so ours *differs* if it is above BAND times the published one,
whether or not our gradient is right. A smaller error is no disagreement: below 1 / BAND it is *more exact*. The size of
a gradient itself, its mean or deviation over the entries, depends on random weights, which we draw many times.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace

from klcli.published import intervals
from klcli.published.conclusions import Evidence, find, on_other_images
from klcli.published.intervals import DIFFERS, INCOMPARABLE, REPRODUCED, VERDICTS
from klcli.published.report import Comparison, GradientExperiment, Line, Report, joined
from klcli.settings.train_config import TrainConfig
from klcli.store.records import GradientError
from klcli.studies.statistics import Sample

BAND = 10.0  # the factor between two errors of a gradient that agree
UNEXPLAINED = "for an unknown reason, not tested"


def compare(report: Report, evidence: Evidence, incomparable: str | None = None) -> list[Comparison]:
    """Compare every line of a report with runs and checks; `incomparable` is the reason why no training can be."""
    spreads = dict[str, dict[tuple[str, TrainConfig], Sample]]()  # by quantity; each training counts once
    for line in report.lines:
        if line.quantity and line.config and (sample := _sample(line, evidence)):
            spreads.setdefault(line.quantity, {})[line.method, line.config] = sample
    typical = {quantity: intervals.typical_spread(by_config.values()) for quantity, by_config in spreads.items()}
    found = []
    for line in report.lines:
        if line.check:
            found.append(_gradient(line, line.check, evidence.errors.get(line.check, ())))
        elif line.conclusion and incomparable:
            found.append(Comparison(line, INCOMPARABLE, _why(line, INCOMPARABLE, incomparable)))
        elif line.conclusion:
            tested = find(line, report, evidence, typical)
            found.append(replace(tested, why=_why(line, tested.verdict, tested.why)))
        else:
            found.append(_training(line, evidence, typical.get(line.quantity or ""), incomparable))
    return found


def _sample(line: Line, evidence: Evidence) -> Sample | None:
    complete = [run for run in evidence.runs_of(line.config, line.method) if run.state == "complete"]
    return Sample(tuple(float(getattr(run, line.quantity or "")) for run in complete)) if complete else None


def _training(
    line: Line, evidence: Evidence, typical: intervals.Typical | None, incomparable: str | None
) -> Comparison:
    if line.quantity is None or line.published is None or line.config is None:
        return Comparison(line, INCOMPARABLE, line.reason or "no number")
    sample, mine = _sample(line, evidence), evidence.runs_of(line.config, line.method)
    diverged = sum(run.state == "diverged" for run in mine)
    lost = f"{diverged} of {len(mine)} diverged" if diverged else ""
    if incomparable or not (sample or diverged):
        why = _why(line, INCOMPARABLE, lost, incomparable or "not trained")
        return Comparison(line, INCOMPARABLE, why, sample, diverged)
    if sample is None:
        return Comparison(line, DIFFERS, _why(line, DIFFERS, lost, cause=""), diverged=diverged)
    other_images = on_other_images(line, mine)
    sampling = intervals.sampling_error(line.quantity, sample.mean, line.config.split) if other_images else 0.0
    noise = intervals.Noise(sample.n, sample.std, typical, sampling)
    tolerance = line.tolerance or intervals.tolerance_of(line.quantity)
    verdict, power = intervals.decide(sample.mean - line.published, noise, tolerance)
    scatter = f"ours have {min(sample.values):.4f} to {max(sample.values):.4f}" if power and sample.n > 1 else ""
    why = _why(line, verdict, lost, power, scatter)
    return Comparison(line, verdict, why, sample, diverged, noise.half(), tolerance)


def _gradient(line: Line, check: GradientExperiment, errors: Sequence[GradientError]) -> Comparison:
    mine = [error for error in errors if line.tensor in (None, error.tensor)]
    if check.settings.images == 1 and check.config.batch_norm:
        # BN maps one image to beta, whose 0 is the kink of the ReLU: no quotient of beta says anything.
        mine = [error for error in mine if error.kinks < error.entries]
        if errors and not mine:
            return Comparison(line, INCOMPARABLE, joined(line.reason, "of one image, BN leaves the kink of the ReLU"))
    if not mine or line.quantity is None or line.published is None:
        return Comparison(line, INCOMPARABLE, line.reason or "not checked")
    values, failed = [float(getattr(error, line.quantity)) for error in mine], not all(error.passed for error in mine)
    kind, _, moment = line.quantity.partition("_")
    if kind in ("gradient", "numerical"):
        if line.tensor is None:
            return Comparison(line, INCOMPARABLE, line.reason or "each tensor has its own size, name one")
        deviations = values if moment == "std" else [float(getattr(error, f"{kind}_std")) for error in mine]
        unit = statistics.median(deviations) if moment == "mean" else None
        verdict, words = intervals.decide_draw(line.published, values, BAND, unit)
        return Comparison(line, verdict, _why(line, verdict, words), Sample(tuple(values)), failed=failed)
    if line.quantity == "equal_decimals":  # an exponent: the fewest count, as the size of an error
        ours = min(values)
        size, published = 10 ** min(line.published - ours, 9.0), 1.0  # exact at the ends of the band
    else:
        ours = max(values, key=abs)
        size, published = abs(ours), abs(line.published)
    verdict = DIFFERS if size > BAND * published else REPRODUCED
    cause = _zero_gradients(check.config, mine, line.quantity, BAND * published)
    why = _why(line, verdict, "more exact" if size * BAND < published else "", cause=cause or UNEXPLAINED)
    return Comparison(line, verdict, why, Sample((ours,)), failed=failed)


def _zero_gradients(config: TrainConfig, errors: Sequence[GradientError], quantity: str, limit: float) -> str:
    """Return, in words, that the errors above the limit are those of biases whose gradient BN makes 0; else nothing."""
    zero = {f"linear{index + 1}.b": f"b{index + 1}" for index in range(len(config.hidden))}
    above = {error.tensor for error in errors if abs(getattr(error, quantity)) > limit}
    is_zero = config.batch_norm and config.bn_position == "before"
    if not (is_zero and quantity.startswith(("relative_", "ratio_of_sums")) and above <= zero.keys()):
        return ""
    names = ", ".join(zero.values())
    return f"the gradient of a bias before BN is 0 ({names}): rounding alone gives relative errors up to 1"


def _why(line: Line, verdict: str, *words: str, cause: str = UNEXPLAINED) -> str:
    known = line.if_differs or (None if line.reason else cause)
    return joined(*words, known if verdict == DIFFERS else "", line.reason, line.note)


def counts(comparisons: Sequence[Comparison], variant: str | None = None) -> dict[str, int]:
    """Count the lines of each verdict, of a variant or of none."""
    counted = [one.verdict for one in comparisons if one.line.variant == variant]
    return {verdict: counted.count(verdict) for verdict in VERDICTS}


def counts_of_variants(comparisons: Sequence[Comparison]) -> dict[str, dict[str, int]]:
    """Count the lines of each variant, by its name, and verdict."""
    names = dict.fromkeys(one.line.variant for one in comparisons if one.line.variant is not None)
    return {name: counts(comparisons, name) for name in names}


def explained(comparisons: Sequence[Comparison]) -> dict[str, list[str]]:
    """Return the reasons for differences, each with the rows that it applies to."""
    found: dict[str, list[str]] = {}
    for one in comparisons:
        if one.verdict == DIFFERS and one.line.row not in found.setdefault(one.why, []):
            found[one.why].append(one.line.row)
    return found
