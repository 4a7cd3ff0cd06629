"""Tables of what is measured after a training: evaluations of stored networks, classified pictures, gradient checks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from klcli.report.tables.table import SPLITS, Column, Row, Table, fraction, numbers, scientific, texts
from klcli.report.words import IN_NAME, counted, network_name, options_words
from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import Role
from klcli.store.records import Evaluation, GradientCheck, Run
from klcli.studies.statistics import Sample

MEASURED = SPLITS[1:]
MEASURES = ("accuracy", "loss")
NO_PART = (Role.OPTIMISATION, Role.EVALUATION, Role.RANDOMNESS)  # settings that change a gradient, except lambda
_OMITTED = (*IN_NAME, *(one.key for one in SETTINGS.values() if one.role in NO_PART))
_COLUMNS = (
    *texts("tensor"),
    *numbers(str, "entries", "kinks"),
    *numbers(scientific, max_absolute="max abs", relative_to_sum="rel to sum", relative_to_maximum="rel to max"),
    *numbers(scientific, ratio_of_maxima="of maxima", gradient_mean="mean", gradient_std="std"),
)


def evaluation_words(evaluation: Evaluation) -> str:
    """Describe an evaluation: `adaptive statistics (1000 images, transductive), flips, ensemble of runs 3, 4`."""
    samples = f"{evaluation.bn_samples} images" if evaluation.bn_samples else ""
    remarks = ", ".join(filter(None, (samples, "transductive" if evaluation.transductive else "")))
    policies = " and ".join((evaluation.bn_statistics or "").split())
    words = {
        f"{policies} statistics" + (f" ({remarks})" if remarks else ""): policies,
        f"seed {evaluation.seed}": evaluation.seed is not None,
        "snapshots": evaluation.snapshots,
        "flips": evaluation.flips,
        f"shifts by {evaluation.shifts}": evaluation.shifts,
        f"ensemble of runs {', '.join(map(str, evaluation.runs))}": len(evaluation.runs) > 1,
    }
    return ", ".join(word for word, is_true in words.items() if is_true) or "as trained"


def evaluation_table(title: str, evaluations: Sequence[Evaluation], runs: Sequence[Run]) -> Table:
    """One evaluation per run, with the stored numbers of the run and the difference."""
    pairs = zip(evaluations, runs, strict=True)
    rows = [row | {"run": run.id} for evaluation, run in pairs for row in _compared(evaluation, [run])]
    return _table(title, rows, "stored", numbers_of_runs=len(runs) > 1)


def ensemble_table(title: str, evaluation: Evaluation, runs: Sequence[Run]) -> Table:
    """The ensemble of several runs, compared with the mean and the best of the individual runs."""
    rows = _compared(evaluation, runs)
    for row in rows:
        values = [value for run in runs if (value := run.measure(row["split"], "accuracy")) is not None]
        row["accuracy_best"] = max(values) if len(values) == len(runs) else None
    return _table(title, rows, "mean of runs", accuracy_best="best accuracy of a run")


def _compared(evaluation: Evaluation, runs: Sequence[Run]) -> list[Row]:
    rows: list[Row] = [{"split": split} for split in MEASURED]
    for row, name in product(rows, MEASURES):
        now = row[name] = evaluation.measure(row["split"], name)
        known = tuple(value for run in runs if (value := run.measure(row["split"], name)) is not None)
        if now is not None and len(known) == len(runs):
            row[f"{name}_stored"] = mean = Sample(known).mean
            row[f"{name}_difference"] = now - mean
    return rows


def _table(title: str, rows: Sequence[Row], stored: str, *, numbers_of_runs: bool = False, **more: str) -> Table:
    columns = [*(numbers(str, "run") if numbers_of_runs else ()), *texts(split="")]
    for name in MEASURES:
        columns += numbers(fraction, name, **{f"{name}_stored": stored})
        columns += numbers(_signed, **{f"{name}_difference": "difference"})
    return Table(title, (*columns, *numbers(fraction, **more)), rows)


def _signed(value: float) -> str:
    """A difference to four digits with its sign; zero after rounding has no sign."""
    text = f"{value:+.4f}"
    return text[1:] if float(text) == 0 else text


def difference_notes(evaluations: Sequence[Evaluation], runs: Sequence[Run]) -> list[str]:
    """State the mean difference over several runs, and whether it is more than chance."""
    notes = []
    for split in MEASURED:
        now, before = ([one.measure(split, "accuracy") for one in many] for many in (evaluations, runs))
        pairs = zip(now, before, strict=True)
        sample = Sample(tuple(a - b for a, b in pairs if a is not None and b is not None))
        if (half := sample.half_interval) is not None:  # of two values or more
            low, high = sample.mean - half, sample.mean + half
            notes.append(
                f"{split} accuracy differs by {sample.mean:+.4f} on the mean of {sample.n} runs, 95 % interval "
                f"from {low:+.4f} to {high:+.4f}: {'no more' if low <= 0 <= high else 'more'} than chance"
            )
    return notes


def evaluations_table(title: str, evaluations: Sequence[Evaluation]) -> Table:
    """Stored evaluations, the best validation accuracy first."""
    rows = []
    for one in sorted(evaluations, key=lambda one: -one.validation_accuracy):
        yes_or_no = {key: "yes" if getattr(one, key) else "no" for key in ("snapshots", "flips")}
        policy = (one.bn_statistics or "-") + (", transductive" if one.transductive else "")
        rows.append(vars(one) | yes_or_no | {"run_numbers": ", ".join(map(str, one.runs)), "policy": policy})
    columns = (
        *texts(run_numbers="runs", policy="BN statistics"),
        *numbers(str, bn_samples="images"),
        *texts("snapshots", "flips"),
        *numbers(str, "shifts"),
        *numbers(fraction, *(f"{split}_{name}" for name in MEASURES for split in MEASURED)),
        *texts("command"),
    )
    return Table(title, columns, rows)


def prediction_table(title: str, pictures: Sequence[tuple[str, Mapping[str, float]]], top: int) -> Table:
    """One row per picture with its most probable classes."""
    columns = [*texts("picture")]
    for place in range(1, min(top, max(len(probabilities) for _, probabilities in pictures)) + 1):
        columns.append(Column(f"class_{place}", "class" if place == 1 else "or", is_number=False))
        columns.append(Column(f"probability_{place}", "probability" if place == 1 else "", fraction))
    rows = []
    for picture, probabilities in pictures:
        row: Row = {"picture": picture}
        ordered = sorted(probabilities.items(), key=lambda item: -item[1])
        for place, (name, probability) in enumerate(ordered[:top], start=1):
            row |= {f"class_{place}": name, f"probability_{place}": probability}
        rows.append(row)
    return Table(title, tuple(columns), rows)


def gradient_check_table(check: GradientCheck) -> Table:
    """The tensors of one checked network, in the order of its layers."""
    return Table(gradient_check_title(check), (*_COLUMNS, *texts(verdict="")), _rows(check))


def suite_table(checks: Sequence[GradientCheck]) -> Table:
    """The tensors of all networks of a suite, each row with its network."""
    rows = [row | {"network": gradient_check_title(check)} for check in checks for row in _rows(check)]
    return Table(f"Gradient check, suite {checks[0].suite}", (*texts("network"), *_COLUMNS, *texts("verdict")), rows)


def limited(checks: Sequence[GradientCheck], limit: int | None) -> list[GradientCheck]:
    """Return the first checks with at most `limit` tensors together."""
    found, shown = [], 0
    for check in checks:
        if limit is None or shown < limit:
            found.append(check if limit is None else replace(check, errors=check.errors[: limit - shown]))
            shown += len(check.errors)
    return found


def _rows(check: GradientCheck) -> list[Row]:
    return [vars(error) | {"verdict": "pass" if error.passed else "FAIL"} for error in check.errors]


def gradient_check_title(check: GradientCheck) -> str:
    """`3-layer 50-50 with BN, dropout 0.1, lambda 0.01`, or the lambdas of a stack."""
    first, n = check.configs[0], len(check.configs)
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
        f"entry, or by the complex step an error < {atol:g} of the largest entry; "
        f"largest max abs {max(error.max_absolute for error in tensors):.1e}, {kinks} {counted(kinks, 'kink')}"
    )


def gradient_method(check: GradientCheck) -> str:
    """State the method and the images of a suite."""
    images = f"on {check.images} {check.dataset} images of {check.dims} pixels"
    return f"{check.method} differences with h {check.h:g} in float64, {images}"
