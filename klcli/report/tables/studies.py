"""Tables of studies: what was tried, what it gave, with error bars where there are repeats."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from klcli.report.tables.table import Column, Row, Table, fraction, significant
from klcli.studies.lambda_search import Choice, Tried
from klcli.studies.statistics import Sample

SPLITS = ("train", "validation", "test")
MEASURES = ("accuracy", "loss", "cost")
HUGE = 1e5
_INTERVAL = (
    Column("mean", "mean", fraction),
    Column("std", "std", fraction),
    Column("n", "n"),
    Column("low", "95 % from", fraction),
    Column("high", "to", fraction),
)


@dataclass(frozen=True)
class Cell:
    """A mean over repeats, or a single value."""

    mean: float
    std: float | None
    half_interval: float | None  # of the 95 % interval of the mean
    n: int

    def __str__(self) -> str:
        """`0.5312`, or `0.5312 ± 0.0041` over repeats."""
        return _digits(self.mean) if self.std is None else f"{_digits(self.mean)} ± {_digits(self.std)}"


def cell(runs: Sequence[Row], column: str) -> Cell | None:
    """Return the mean of a column over the complete runs that have it; None where there is none.

    What a diverged run still measured on its way is no result.
    """
    values = tuple(run[column] for run in runs if run["state"] == "complete" and run[column] is not None)
    if not values:
        return None
    sample = Sample(values)
    return Cell(sample.mean, sample.std, sample.half_interval, sample.n)


def _digits(value: float) -> str:
    """Four digits; of a loss on its way to infinity four significant ones, or the table is all digits."""
    return fraction(value) if abs(value) < HUGE else significant(value)


def tried_values(runs: Sequence[Row], stage: str) -> list[Tried]:
    """Return the lambdas of a stage, each with the validation accuracies of its repeats."""
    lambdas = dict.fromkeys(run["lambda"] for run in runs)
    return [
        Tried(
            lam,
            stage,
            tuple(run["validation_accuracy"] for run in runs if run["lambda"] == lam and run["state"] == "complete"),
        )
        for lam in lambdas
    ]


def search_table(title: str, stages: Sequence[tuple[str, Sequence[Row]]], choice: Choice | None) -> Table:
    """Every lambda of a search, the best first; a diverged one says so. Fits a terminal of 80 columns."""
    rows = []
    for stage, runs in stages:
        for lam in dict.fromkeys(run["lambda"] for run in runs):
            mine = [run for run in runs if run["lambda"] == lam]
            row = {"lambda": lam, "stage": stage, "runs": ", ".join(str(run["id"]) for run in mine)}
            row |= {f"{split}_{name}": cell(mine, f"{split}_{name}") for split in SPLITS for name in MEASURES}
            validation = row["validation_accuracy"]
            row |= {"n": validation.n if validation else 0, "half": validation.half_interval if validation else None}
            rows.append(row | {"remark": _remark(lam, stage, mine, choice)})
    rows.sort(key=lambda row: row["validation_accuracy"].mean if row["validation_accuracy"] else -1.0, reverse=True)
    repeated = any(len(runs) > len({run["lambda"] for run in runs}) for _, runs in stages)
    columns = (
        Column("lambda", "lambda", significant),
        Column("stage", "stage", is_number=False),
        Column("validation_accuracy", "validation"),
        *((Column("half", "95 % ±", fraction), Column("n", "n")) if repeated else ()),
        Column("validation_loss", "loss"),
        Column("validation_cost", "cost"),
        Column("train_accuracy", "train"),
        Column("runs", "run"),
        Column("remark", "", is_number=False),
    )
    return Table(title, columns, rows)


def _remark(lam: float, stage: str, runs: Sequence[Row], choice: Choice | None) -> str:
    states = [run["state"] for run in runs]
    remarks = [
        state if states.count(state) == len(states) else f"{states.count(state)} of {len(states)} {state}"
        for state in sorted(set(states) - {"complete"})
    ]
    if choice and (lam, stage) == (choice.chosen.lam, choice.chosen.stage):
        remarks.append("chosen")
    elif choice and (lam, stage) in {(one.lam, one.stage) for one in choice.plateau}:
        remarks.append("in 1 s.e.")
    return ", ".join(remarks)


def choice_sentence(choice: Choice) -> str:
    """Say which lambda is chosen and how sure that is."""
    low, high = choice.plateau[0].lam, choice.plateau[-1].lam
    others = len(choice.plateau) - 1
    sure = (
        f"{others} more within one standard error ({choice.standard_error:.4f}), from {low:.4g} to {high:.4g}"
        if others
        else f"no other within one standard error ({choice.standard_error:.4f})"
    )
    return f"chosen lambda {choice.chosen.lam:.6g}, validation {choice.chosen.accuracy:.4f}; {sure}"


def sigma_table(title: str, runs: Sequence[Row]) -> Table:
    """Every sigma by split, the column with BN next to the one without."""
    rows = []
    for sigma in dict.fromkeys(run["sigma"] for run in runs):
        for split in SPLITS:
            row: Row = {"sigma": sigma, "split": split}
            for batch_norm in (0, 1):
                mine = [run for run in runs if run["sigma"] == sigma and run["batch_norm"] == batch_norm]
                row |= {f"{name}_{batch_norm}": cell(mine, f"{split}_{name}") or _why(mine) for name in MEASURES}
            rows.append(row)
    columns = (
        Column("sigma", "sigma", significant),
        Column("split", "split", is_number=False),
        *(
            Column(f"{name}_{batch_norm}", "with BN" if batch_norm else name)
            for name in MEASURES
            for batch_norm in (0, 1)
        ),
    )
    return Table(title, columns, rows)


def _why(runs: Sequence[Row]) -> str | None:
    """Why there is no number: the state of a run that did not complete."""
    return next((run["state"] for run in runs if run["state"] != "complete"), None)


def interval_table(title: str, runs: Sequence[Row]) -> Table:
    """The test accuracy of every sigma over its repeats, without and with BN."""
    rows = []
    for sigma in dict.fromkeys(run["sigma"] for run in runs):
        for batch_norm in (0, 1):
            mine = [run for run in runs if run["sigma"] == sigma and run["batch_norm"] == batch_norm]
            test = cell(mine, "test_accuracy")
            row: Row = {"sigma": sigma, "bn": "yes" if batch_norm else "no", "n": test.n if test else 0}
            if test:
                row |= {"mean": test.mean, "std": test.std}
            if test and test.half_interval is not None:
                row |= {"low": test.mean - test.half_interval, "high": test.mean + test.half_interval}
            rows.append(row)
    columns = (
        Column("sigma", "sigma", significant),
        Column("bn", "BN", is_number=False),
        *_INTERVAL,
    )
    return Table(title, columns, rows)


def repeats_table(title: str, runs: Sequence[Row]) -> Table:
    """Mean, standard deviation and 95 % interval over the repeats, by split and measure."""
    rows = []
    for split in SPLITS:
        for name in MEASURES:
            values = tuple(run[f"{split}_{name}"] for run in runs if run[f"{split}_{name}"] is not None)
            row: dict[str, Any] = {"split": split, "measure": name, "n": len(values)}
            if values:
                sample = Sample(values)
                row |= {"mean": sample.mean, "std": sample.std}
                if sample.half_interval is not None:
                    row |= {"low": sample.mean - sample.half_interval, "high": sample.mean + sample.half_interval}
            rows.append(row)
    columns = (
        Column("split", "split", is_number=False),
        Column("measure", "", is_number=False),
        *_INTERVAL,
    )
    return Table(title, columns, rows)


def choice_document(choice: Choice) -> Row:
    """Return a choice as it appears in JSON."""
    return asdict(choice)
