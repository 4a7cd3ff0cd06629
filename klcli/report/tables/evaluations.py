"""Tables of later evaluations: what stored networks give now, beside what they gave when they were trained."""

from collections.abc import Sequence

from klcli.report.tables.table import Column, Row, Table, fraction, transductive_words
from klcli.studies.statistics import Sample

SPLITS = ("validation", "test")
MEASURES = ("accuracy", "loss")


def evaluation_words(evaluation: Row) -> str:
    """`adaptive statistics (1000 images, transductive), flips, ensemble of runs 3, 4`: how it was evaluated."""
    words = []
    if evaluation["bn_statistics"]:
        policies = evaluation["bn_statistics"].split()
        remarks = [f"{evaluation['bn_samples']} images"] if evaluation["bn_samples"] else []
        remarks += ["transductive"] if evaluation["transductive"] else []
        words.append(f"{' and '.join(policies)} statistics" + (f" ({', '.join(remarks)})" if remarks else ""))
    words += [f"seed {evaluation['seed']}"] if evaluation["seed"] is not None else []
    words += ["snapshots"] if evaluation.get("snapshots") else []
    words += ["flips"] if evaluation["flips"] else []
    words += [f"shifts by {evaluation['shifts']}"] if evaluation.get("shifts") else []
    if len(evaluation["runs"]) > 1:
        words.append(f"ensemble of runs {', '.join(map(str, evaluation['runs']))}")
    return ", ".join(words) or "as trained"


def evaluation_table(title: str, evaluations: Sequence[Row], runs: Sequence[Row]) -> Table:
    """One evaluation per run, each with the stored numbers of that run and the difference."""
    rows = [
        row | {"run": run["id"]}
        for evaluation, run in zip(evaluations, runs, strict=True)
        for row in _compared(evaluation, [run])
    ]
    columns = (Column("run", "run"), *_columns("stored")) if len(runs) > 1 else _columns("stored")
    return Table(title, columns, rows)


def ensemble_table(title: str, evaluation: Row, runs: Sequence[Row]) -> Table:
    """The mean of the probabilities of several runs, beside the mean of what the runs gave and the best of them."""
    rows = _compared(evaluation, runs)
    for row in rows:
        values = [run[f"{row['split']}_accuracy"] for run in runs]
        row["accuracy_best"] = None if None in values else max(values)
    return Table(title, (*_columns("mean of runs"), Column("accuracy_best", "best accuracy of a run", fraction)), rows)


def difference_notes(evaluations: Sequence[Row], runs: Sequence[Row]) -> list[str]:
    """Say how large the differences of several runs are on the mean, and whether that is more than chance."""
    notes = []
    for split in SPLITS:
        key = f"{split}_accuracy"
        differences = [
            evaluation[key] - run[key]
            for evaluation, run in zip(evaluations, runs, strict=True)
            if run[key] is not None
        ]
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


def evaluations_table(title: str, evaluations: Sequence[Row]) -> Table:
    """Stored evaluations, the best validation accuracy first."""
    rows = [
        evaluation
        | {
            "run_numbers": ", ".join(map(str, evaluation["runs"])),
            "snapshots": "yes" if evaluation["snapshots"] else "no",
            "flips": "yes" if evaluation["flips"] else "no",
            "policy": (evaluation["bn_statistics"] or "-")
            + transductive_words("adaptive" if evaluation["transductive"] else None),
        }
        for evaluation in sorted(evaluations, key=lambda one: -one["validation_accuracy"])
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


def _compared(evaluation: Row, runs: Sequence[Row]) -> list[Row]:
    """One row per split: what is measured now, the mean of what the runs have stored, and the difference."""
    rows = []
    for split in SPLITS:
        row: Row = {"split": split}
        for name in MEASURES:
            stored = [run[f"{split}_{name}"] for run in runs]
            row[name] = evaluation[f"{split}_{name}"]
            if None not in stored:
                row[f"{name}_stored"] = Sample(tuple(stored)).mean
                row[f"{name}_difference"] = row[name] - row[f"{name}_stored"]
        rows.append(row)
    return rows


def _columns(stored: str) -> tuple[Column, ...]:
    parts = [
        (
            Column(name, name, fraction),
            Column(f"{name}_stored", stored, fraction),
            Column(f"{name}_difference", "difference", signed),
        )
        for name in MEASURES
    ]
    return (Column("split", "", is_number=False), *parts[0], *parts[1])


def signed(value: float) -> str:
    """A difference to four digits, with its sign; one that rounds to nothing has none."""
    text = f"{value:+.4f}"
    return text[1:] if float(text) == 0 else text
