"""Tables of later evaluations: the results of stored networks beside those of their training."""

from collections.abc import Sequence

from klcli.report.tables.table import Column, Row, Table, fraction
from klcli.store.records import Evaluation, Run
from klcli.studies.statistics import Sample

SPLITS = ("validation", "test")
MEASURES = ("accuracy", "loss")


def evaluation_words(evaluation: Evaluation) -> str:
    """`adaptive statistics (1000 images, transductive), flips, ensemble of runs 3, 4`: how it was evaluated."""
    words = []
    if evaluation.bn_statistics:
        remarks = [f"{evaluation.bn_samples} images"] if evaluation.bn_samples else []
        remarks += ["transductive"] if evaluation.transductive else []
        policies = " and ".join(evaluation.bn_statistics.split())
        words.append(f"{policies} statistics" + (f" ({', '.join(remarks)})" if remarks else ""))
    words += [f"seed {evaluation.seed}"] if evaluation.seed is not None else []
    words += ["snapshots"] if evaluation.snapshots else []
    words += ["flips"] if evaluation.flips else []
    words += [f"shifts by {evaluation.shifts}"] if evaluation.shifts else []
    if len(evaluation.runs) > 1:
        words.append(f"ensemble of runs {', '.join(map(str, evaluation.runs))}")
    return ", ".join(words) or "as trained"


def evaluation_table(title: str, evaluations: Sequence[Evaluation], runs: Sequence[Run]) -> Table:
    """One evaluation per run, each with the stored numbers of that run and the difference."""
    rows = [
        row | {"run": run.id}
        for evaluation, run in zip(evaluations, runs, strict=True)
        for row in _compared(evaluation, [run])
    ]
    columns = (Column("run", "run"), *_columns("stored")) if len(runs) > 1 else _columns("stored")
    return Table(title, columns, rows)


def ensemble_table(title: str, evaluation: Evaluation, runs: Sequence[Run]) -> Table:
    """The mean of the probabilities of several runs, beside the mean of what the runs gave and the best of them."""
    rows = _compared(evaluation, runs)
    for row in rows:
        values = [value for run in runs if (value := run.measure(row["split"], "accuracy")) is not None]
        row["accuracy_best"] = max(values) if len(values) == len(runs) else None
    return Table(title, (*_columns("mean of runs"), Column("accuracy_best", "best accuracy of a run", fraction)), rows)


def difference_notes(evaluations: Sequence[Evaluation], runs: Sequence[Run]) -> list[str]:
    """Say how large the differences of several runs are on the mean, and whether that is more than chance."""
    notes = []
    for split in SPLITS:
        pairs = [
            (evaluation.measure(split, "accuracy"), run.measure(split, "accuracy"))
            for evaluation, run in zip(evaluations, runs, strict=True)
        ]
        differences = [now - stored for now, stored in pairs if now is not None and stored is not None]
        if len(differences) < 2:
            continue
        sample = Sample(tuple(differences))
        assert sample.half_interval is not None  # of two values or more
        low, high = sample.mean - sample.half_interval, sample.mean + sample.half_interval
        verdict = "no more than chance" if low <= 0 <= high else "more than chance"
        notes.append(
            f"{split} accuracy differs by {sample.mean:+.4f} on the mean of {sample.n} runs, "
            f"95 % interval from {low:+.4f} to {high:+.4f}: {verdict}"
        )
    return notes


def evaluations_table(title: str, evaluations: Sequence[Evaluation]) -> Table:
    """Stored evaluations, the best validation accuracy first."""
    rows = [
        vars(one)
        | {
            "run_numbers": ", ".join(map(str, one.runs)),
            "snapshots": "yes" if one.snapshots else "no",
            "flips": "yes" if one.flips else "no",
            "policy": (one.bn_statistics or "-") + (", transductive" if one.transductive else ""),
        }
        for one in sorted(evaluations, key=lambda one: -one.validation_accuracy)
    ]
    columns = (
        Column("run_numbers", "runs", is_number=False),
        Column("policy", "BN statistics", is_number=False),
        Column("bn_samples", "images"),
        Column("snapshots", "snapshots", is_number=False),
        Column("flips", "flips", is_number=False),
        Column("shifts", "shifts"),
        *(Column(f"{split}_{name}", f"{split} {name}", fraction) for name in MEASURES for split in SPLITS),
        Column("command", "command", is_number=False),
    )
    return Table(title, columns, rows)


def _compared(evaluation: Evaluation, runs: Sequence[Run]) -> list[Row]:
    """One row per split: what is measured now, the mean of what the runs have stored, and the difference."""
    rows = []
    for split in SPLITS:
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


def _columns(stored: str) -> tuple[Column, ...]:
    columns = [Column("split", "", is_number=False)]
    for name in MEASURES:
        columns += [
            Column(name, name, fraction),
            Column(f"{name}_stored", stored, fraction),
            Column(f"{name}_difference", "difference", _signed),
        ]
    return tuple(columns)


def _signed(value: float) -> str:
    """A difference to four digits, with its sign; one that rounds to nothing has none."""
    text = f"{value:+.4f}"
    return text[1:] if float(text) == 0 else text
