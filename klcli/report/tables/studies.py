"""Tables of studies: the values that were tried and their results, with error bars over repeats."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from klcli.report.tables.table import Column, Row, Shown, Table, fraction, significant
from klcli.report.words import layers_name, network_name, statistics_words
from klcli.store.records import Run
from klcli.studies.statistics import Sample

if TYPE_CHECKING:
    from klcli.procedures.searches import LambdaSearch
    from klcli.studies.lambda_search import Choice

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


def cell(runs: Sequence[Run], column: str) -> Shown | None:
    """Return the mean of a column over the complete runs that have it, with its spread; None where there is none.

    What a diverged run measured before it diverged is no result.
    """
    sample = _sample(runs, column)
    if sample is None:
        return None
    text = _digits(sample.mean) if sample.std is None else f"{_digits(sample.mean)} ± {_digits(sample.std)}"
    more = {"std": sample.std, "half_interval": sample.half_interval, "n": sample.n}
    return Shown(sample.mean, text, more)


def _sample(runs: Sequence[Run], column: str) -> Sample | None:
    complete = (getattr(run, column) for run in runs if run.state == "complete")
    values = tuple(value for value in complete if value is not None)
    return Sample(values) if values else None


def _interval(sample: Sample | None) -> Row:
    """The cells of `_INTERVAL`: mean, deviation and 95 % interval of the mean, as far as there are values."""
    if sample is None:
        return {"n": 0}
    row: Row = {"mean": sample.mean, "std": sample.std, "n": sample.n}
    if sample.half_interval is not None:
        row |= {"low": sample.mean - sample.half_interval, "high": sample.mean + sample.half_interval}
    return row


def _digits(value: float) -> str:
    """Four digits; four significant ones of a loss that grows without bound, which would be wider than the table."""
    return fraction(value) if abs(value) < HUGE else significant(value)


def search_title(search: "LambdaSearch", images: str) -> str:
    """`Lambda search: 3-layer 50-50 with BN on cifar10, by validation accuracy (study 1, 2)`."""
    network = network_name(search.stages[0][1][0].config)
    studies = ", ".join(map(str, search.studies))
    return f"Lambda search: {network} on {images}, by validation accuracy (study {studies})"


def search_table(title: str, stages: Sequence[tuple[str, Sequence[Run]]], choice: "Choice | None") -> Table:
    """Every lambda of a search, the best first, with its state where it did not complete. Fits into 80 columns."""
    rows = []
    for stage, runs in stages:
        for lam in dict.fromkeys(run.config.lam for run in runs):
            mine = [run for run in runs if run.config.lam == lam]
            row: Row = {"lambda": lam, "stage": stage, "runs": ", ".join(str(run.id) for run in mine)}
            row |= {f"{split}_{name}": cell(mine, f"{split}_{name}") for split in SPLITS for name in MEASURES}
            validation = _sample(mine, "validation_accuracy")
            row |= {"n": validation.n if validation else 0, "half": validation.half_interval if validation else None}
            rows.append(row | {"remark": _remark(lam, stage, mine, choice)})
    rows.sort(key=lambda row: row["validation_accuracy"].value if row["validation_accuracy"] else -1.0, reverse=True)
    repeated = any(len(runs) > len({run.config.lam for run in runs}) for _, runs in stages)
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


def _remark(lam: float, stage: str, runs: Sequence[Run], choice: "Choice | None") -> str:
    states = [run.state for run in runs]
    remarks = [
        state if states.count(state) == len(states) else f"{states.count(state)} of {len(states)} {state}"
        for state in sorted(set(states) - {"complete"})
    ]
    if choice and (lam, stage) == (choice.chosen.lam, choice.chosen.stage):
        remarks.append("chosen")
    elif choice and (lam, stage) in {(one.lam, one.stage) for one in choice.plateau}:
        remarks.append("in 1 s.e.")
    return ", ".join(remarks)


def choice_sentence(choice: "Choice") -> str:
    """Say which lambda is chosen and how sure that is."""
    low, high = choice.plateau[0].lam, choice.plateau[-1].lam
    others = len(choice.plateau) - 1
    sure = (
        f"{others} more within one standard error ({choice.standard_error:.4f}), from {low:.4g} to {high:.4g}"
        if others
        else f"no other within one standard error ({choice.standard_error:.4f})"
    )
    return f"chosen lambda {choice.chosen.lam:.6g}, validation {choice.chosen.accuracy:.4f}; {sure}"


def sigma_title(runs: Sequence[Run], images: str) -> str:
    """`Sigma sweep: 3-layer 50-50 on cifar10, adaptive statistics, transductive (study 3)`."""
    first = runs[0]
    return f"Sigma sweep: {layers_name(first.config)} on {images}{statistics_words(runs)} (study {first.study_id})"


def sigma_table(title: str, runs: Sequence[Run]) -> Table:
    """Every sigma by split, the column with BN next to the one without."""
    rows = []
    for sigma in _sigmas(runs):
        for split in SPLITS:
            row: Row = {"sigma": sigma, "split": split}
            for batch_norm in (False, True):
                mine = _of(runs, sigma, batch_norm)
                row |= {f"{name}_{batch_norm:d}": cell(mine, f"{split}_{name}") or _why(mine) for name in MEASURES}
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


def _sigmas(runs: Sequence[Run]) -> list[float | None]:
    return list(dict.fromkeys(run.config.sigma for run in runs))


def _of(runs: Sequence[Run], sigma: float | None, batch_norm: bool) -> list[Run]:
    return [run for run in runs if (run.config.sigma, run.config.batch_norm) == (sigma, batch_norm)]


def _why(runs: Sequence[Run]) -> str | None:
    """Why there is no number: the state of a run that did not complete."""
    return next((run.state for run in runs if run.state != "complete"), None)


def interval_table(title: str, runs: Sequence[Run]) -> Table:
    """The test accuracy of every sigma over its repeats, without and with BN."""
    rows = [
        {"sigma": sigma, "bn": "yes" if batch_norm else "no"}
        | _interval(_sample(_of(runs, sigma, batch_norm), "test_accuracy"))
        for sigma in _sigmas(runs)
        for batch_norm in (False, True)
    ]
    return Table(title, (Column("sigma", "sigma", significant), Column("bn", "BN", is_number=False), *_INTERVAL), rows)


def repeats_table(title: str, runs: Sequence[Run]) -> Table:
    """Mean, standard deviation and 95 % interval over the complete runs, by split and measure."""
    rows = [
        {"split": split, "measure": name} | _interval(_sample(runs, f"{split}_{name}"))
        for split in SPLITS
        for name in MEASURES
    ]
    columns = (Column("split", "split", is_number=False), Column("measure", "", is_number=False))
    return Table(title, (*columns, *_INTERVAL), rows)


def choice_document(choice: "Choice") -> dict[str, Any]:
    """Return a choice as it appears in JSON."""
    return asdict(choice)
