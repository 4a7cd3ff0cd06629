"""Tables of later evaluations, compared with the results of the training, and of classified pictures."""

from collections.abc import Mapping, Sequence

from klcli.report.tables.table import SPLITS, Column, Row, Table, fraction, numbers, texts
from klcli.store.records import Evaluation, Run
from klcli.studies.statistics import Sample

MEASURED = SPLITS[1:]
MEASURES = ("accuracy", "loss")


def evaluation_words(evaluation: Evaluation) -> str:
    """Describe an evaluation: `adaptive statistics (1000 images, transductive), flips, ensemble of runs 3, 4`."""
    statistics = ""
    if evaluation.bn_statistics:
        samples = f"{evaluation.bn_samples} images" if evaluation.bn_samples else ""
        remarks = ", ".join(filter(None, (samples, "transductive" if evaluation.transductive else "")))
        policies = " and ".join(evaluation.bn_statistics.split())
        statistics = f"{policies} statistics" + (f" ({remarks})" if remarks else "")
    words = {
        statistics: statistics,
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
    """One row per split: the new metric, the mean of the stored metrics of the runs, and the difference."""
    rows = []
    for split in MEASURED:
        row: Row = {"split": split}
        for name in MEASURES:
            now, stored = evaluation.measure(split, name), [run.measure(split, name) for run in runs]
            known = tuple(value for value in stored if value is not None)
            row[name] = now
            if now is not None and len(known) == len(stored):
                row[f"{name}_stored"] = mean = Sample(known).mean
                row[f"{name}_difference"] = now - mean
        rows.append(row)
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
        now, stored = ([one.measure(split, "accuracy") for one in many] for many in (evaluations, runs))
        pairs = zip(now, stored, strict=True)
        sample = Sample(tuple(a - b for a, b in pairs if a is not None and b is not None))
        if sample.half_interval is not None:  # of two values or more
            low, high = sample.mean - sample.half_interval, sample.mean + sample.half_interval
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
    columns = {"picture": Column("picture", "picture", is_number=False)}
    rows = []
    for picture, probabilities in pictures:
        row: Row = {"picture": picture}
        ordered = sorted(probabilities.items(), key=lambda item: -item[1])
        for place, (name, probability) in enumerate(ordered[:top], start=1):
            key, value = f"class_{place}", f"probability_{place}"
            row |= {key: name, value: probability}
            columns[key] = Column(key, "class" if place == 1 else "or", is_number=False)
            columns[value] = Column(value, "probability" if place == 1 else "", fraction)
        rows.append(row)
    return Table(title, tuple(columns.values()), rows)
