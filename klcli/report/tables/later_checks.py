"""Tables of what is measured after a training: evaluations of stored networks, classified pictures, gradient checks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, product
from typing import Any

from klcli.report.tables.table import SPLITS, Row, Table, columns, signed
from klcli.report.words import IN_NAME, counted, network_name, not_counted, options_words
from klcli.settings.procedures import IN_GRADIENT
from klcli.settings.sameness import SETTINGS, numbers_key
from klcli.store.records import Evaluation, GradientCheck, Run
from klcli.studies.statistics import Sample

MEASURED = SPLITS[1:]
SCORES = ("accuracy", "loss")
_OMITTED = (*IN_NAME, "lam", *(key for key in SETTINGS if key not in IN_GRADIENT))
_MEASURES = {
    "errors": "max_absolute:.1e=max abs; relative_to_sum:.1e=rel to sum",
    "ratios": "relative_to_maximum:.1e=rel to max; ratio_of_maxima:.1e=of maxima; ratio_of_sums:.1e=of sums",
    "decimals": "equal_decimals:=equal decimals; mismatches:.1%=mismatches",
    "moments": "gradient_mean:.1e=mean ga; gradient_std:.1e=std ga; numerical_mean:.1e=mean gn; "
    "numerical_std:.1e=std gn; difference_mean:.1e=mean ga - gn; &difference_std:.1e=std; &difference_max:.1e=max",
}


def evaluation_words(evaluation: Evaluation) -> str:
    """Describe an evaluation: `adaptive statistics (1000 images, transductive), flips, ensemble of runs 3, 4`."""
    one, policies = evaluation, " and ".join((evaluation.bn_statistics or "").split())
    remarks = ", ".join([f"{one.bn_samples} images"] * bool(one.bn_samples) + ["transductive"] * one.transductive)
    words = {
        f"{policies} statistics" + (f" ({remarks})" if remarks else ""): policies,
        f"seed {one.seed}": one.seed is not None,
        "snapshots": one.snapshots,
        "flips": one.flips,
        f"shifts by {one.shifts}": one.shifts,
        f"ensemble of runs {', '.join(map(str, one.runs))}": len(one.runs) > 1,
    }
    return ", ".join(word for word, is_true in words.items() if is_true) or "as trained"


def evaluation_table(title: str, evaluations: Sequence[Evaluation], runs: Sequence[Run]) -> Table:
    """One evaluation per run beside its stored numbers, or an ensemble beside the mean and the best of its runs."""
    is_ensemble = len(evaluations[0].runs) > 1
    parts = [runs] if is_ensemble else [[run] for run in runs]
    rows: list[Row] = []
    for (evaluation, part), split in product(zip(evaluations, parts, strict=True), MEASURED):
        rows.append({"run": part[0].id, "split": split})
        for name in SCORES:
            now = rows[-1][name] = evaluation.measure(split, name)
            known = tuple(value for run in part if (value := run.measure(split, name)) is not None)
            if now is not None and len(known) == len(part):
                mean = Sample(known).mean
                rows[-1] |= {f"{name}_stored": mean, f"{name}_difference": now - mean, f"{name}_best": max(known)}
    stored = "mean of runs" if is_ensemble else "stored"
    own = "; ".join(f"{name}:.4f; &{name}_stored:.4f={stored}; &{name}_difference:+.4f=difference" for name in SCORES)
    run, best = "*run:; " * (len(parts) > 1), "; accuracy_best:.4f=best accuracy of a run" * is_ensemble
    return Table(title, columns(f"{run}*split=; {own}{best}"), rows)


def difference_notes(evaluations: Sequence[Evaluation], runs: Sequence[Run]) -> list[str]:
    """State the mean over several runs that are repeats, and the mean difference and whether it is more than chance."""
    firsts: dict[Any, tuple[Evaluation, Run]] = {}  # the same settings with the same seed are one training
    for evaluation, run in zip(evaluations, runs, strict=True):
        key = numbers_key(run.config, run.step_size, run.epochs)
        firsts.setdefault((run.dataset_sha256, run.method, *key), (evaluation, run))
    trainings, are_repeats = [*firsts.values()], len({key[:-1] for key in firsts}) == 1
    notes = []
    for split in MEASURED:
        now, before = ([one.measure(split, "accuracy") for one in many] for many in zip(*trainings, strict=True))
        own = Sample(tuple(value for value in now if value is not None))
        if are_repeats and own.half_interval is not None:
            means = f"{own.mean:.4f} ± {own.half_interval:.4f}"
            notes.append(f"{split} accuracy {means}, mean of {own.n} runs with its 95 % interval")
        pairs = zip(now, before, strict=True)
        sample = Sample(tuple(a - b for a, b in pairs if a is not None and b is not None))
        if (half := sample.half_interval) is not None:
            low, high = sample.mean - half, sample.mean + half
            interval = f"95 % interval from {signed(low)} to {signed(high)}"
            differs = f"{split} accuracy differs by {signed(sample.mean)} on the mean of {sample.n} runs"
            notes.append(f"{differs}, {interval}: {'no more' if low <= 0 <= high else 'more'} than chance")
        elif sample.n > 1:
            differs = f"{split} accuracy differs by {signed(sample.mean)} in each of {sample.n} runs"
            notes.append(f"{differs}: equal differences have no interval")
    if repeated := {run.id for run in runs} - {run.id for _, run in trainings}:
        notes.append(not_counted(repeated))
    return notes


def evaluations_table(title: str, evaluations: Sequence[Evaluation]) -> Table:
    """Stored evaluations, the best validation accuracy first."""
    rows = []
    for one in sorted(evaluations, key=lambda one: -one.validation_accuracy):
        yes_or_no = {key: "yes" if getattr(one, key) else "no" for key in ("snapshots", "flips")}
        policy = (one.bn_statistics or "-") + (", transductive" if one.transductive else "")
        rows.append(vars(one) | yes_or_no | {"run_numbers": ", ".join(map(str, one.runs)), "policy": policy})
    measures = "; ".join(f"{split}_{name}:.4f" for name in SCORES for split in MEASURED)
    about = "run_numbers=runs; policy=BN statistics; bn_samples:=images for BN; snapshots; flips; shifts:"
    return Table(title, columns(f"{about}; {measures}; command"), rows)


def prediction_table(title: str, pictures: Sequence[tuple[str, Mapping[str, float]]], top: int) -> Table:
    """One row per picture with its most probable classes."""
    rows: list[Row] = []
    for picture, probabilities in pictures:
        rows.append({"picture": picture})
        ordered = sorted(probabilities.items(), key=lambda item: -item[1])
        for place, (name, probability) in enumerate(ordered[:top], start=1):
            rows[-1] |= {f"class_{place}": name, f"probability_{place}": probability}
    places = range(2, max(map(len, rows)) // 2 + 1)
    others = "".join(f"; class_{place}=or; &probability_{place}:.4f=" for place in places)
    return Table(title, columns(f"*picture; class_1=class; &probability_1:.4f=probability{others}"), rows)


def gradient_check_table(check: GradientCheck, measures: Sequence[str]) -> Table:
    """The tensors of one checked network, in the order of its layers."""
    whole = suite_table([check], measures)
    return Table(gradient_check_title(check), (*whole.columns[1:-1], *columns("verdict=")), whole.rows)


def suite_table(checks: Sequence[GradientCheck], measures: Sequence[str]) -> Table:
    """The tensors of all networks of a suite, each row with its network."""
    rows: list[Row] = []
    for check in checks:
        name = gradient_check_title(check)
        rows += [vars(one) | {"network": name, "verdict": "pass" if one.passed else "FAIL"} for one in check.errors]
    head = ["*network; *tensor; entries:; ?kinks:", *map(_MEASURES.__getitem__, measures), "verdict"]
    return Table(f"Gradient check, suite {checks[0].suite}", columns("; ".join(head)), rows)


def measure_notes(checks: Sequence[GradientCheck], measures: Sequence[str]) -> list[str]:
    """Sum up these measures of a suite; `errors` are in `gradient_verdict`, and older checks lack some."""
    tensors, notes = [error for check in checks for error in check.errors], []
    decimals = [one.equal_decimals for one in tensors if one.equal_decimals is not None]
    if "ratios" in measures and (threshold := checks[0].threshold) is not None:
        above = [one.tensor for one in tensors if one.ratio_of_sums is None or one.ratio_of_sums >= threshold]
        below = f"below {threshold:g} in {len(tensors) - len(above)} of {len(tensors)} tensors"
        names = f", not in {', '.join(dict.fromkeys(above))}" if above else ""
        notes.append(f"of sums, sum |ga - gn| / max(1e-07, sum |ga + gn|): {below}{names}")
    if "decimals" in measures and decimals:
        d, entries = min(decimals), sum(one.entries - one.kinks for one in tensors)
        differing = sum((one.mismatches or 0.0) * (one.entries - one.kinks) for one in tensors)
        share = f"{differing:.0f} of {entries} entries differ at {checks[0].decimals} decimals"
        notes.append(f"equal to {d} decimals, |ga - gn| < 1.5e{-d} as numpy's assert_almost_equal has it; {share}")
    if "moments" in measures:
        notes.append("ga: the gradient, gn: the numerical gradient; ga - gn and its maximum have their signs")
    return notes


def limited(checks: Sequence[GradientCheck], limit: int | None) -> list[GradientCheck]:
    """Return the first checks with at most `limit` tensors together."""
    ends = accumulate((len(check.errors) for check in checks), initial=0)
    left = [None if limit is None else max(0, limit - before) for before in ends]
    return [replace(one, errors=one.errors[:n]) for one, n in zip(checks, left, strict=False) if n != 0]


def gradient_check_title(check: GradientCheck) -> str:
    """`3-layer 50-50 with BN, dropout 0.1, lambda 0.01`, or the lambdas of a stack."""
    first, n = replace(check.configs[0], bn_statistics="ema", bn_samples=None), len(check.configs)
    name = ", ".join(filter(None, [network_name(first), options_words(first, _OMITTED)]))
    lambdas = ", ".join(f"{config.lam:g}" for config in check.configs)
    return f"{name}, lambda {lambdas}" if n == 1 else f"{name}, {n} replicas with lambda {lambdas}"


def gradient_verdict(checks: Sequence[GradientCheck]) -> str:
    """State the number of tensors that pass, the rule, and the largest error."""
    tensors = [error for check in checks for error in check.errors]
    passed, kinks = sum(error.passed for error in tensors), sum(error.kinks for error in tensors)
    atol, rtol, n = checks[0].atol, checks[0].rtol, len(checks)
    return (
        f"{'PASS' if passed == len(tensors) else 'FAIL'}: {passed} of {len(tensors)} tensors of {n} "
        f"{counted(n, 'network')} have rel to sum < {rtol:g}, or max abs < {atol:g} and < {atol:g} of the largest "
        f"|ga| + |gn|, or by the complex step an error < {atol:g} of the same; "
        f"largest max abs {max(error.max_absolute for error in tensors):.1e}, {kinks} {counted(kinks, 'kink')}"
    )


def gradient_method(check: GradientCheck) -> str:
    """State the method and the images of a suite."""
    images = f"on {check.images} {counted(check.images, f'{check.dataset} image')} of {check.dims} pixels"
    return f"{check.method} differences with h {check.h:g} in float64, {images}"
