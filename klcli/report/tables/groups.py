"""Groups: runs that differ only in their seed, as mean and deviation, and which groups differ by more than chance."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from klcli.errors import ConfigError
from klcli.report.tables.runs import value_text
from klcli.report.tables.table import Column, Row, Table, fraction, transductive_words
from klcli.report.words import images_words
from klcli.studies.comparisons import SIGNIFICANCE, Comparison, compare
from klcli.studies.statistics import Sample

SETTINGS = (
    "hidden", "batch_norm", "bn_position", "bn_statistics", "initializer", "sigma", "lambda", "optimizer", "momentum",
    "weight_decay", "schedule", "eta_min", "eta_max", "eta_decay", "step_size", "cycles", "epochs", "batch_size",
    "flip", "shift", "mixup", "dropout", "label_smoothing", "weight_average", "whitening", "dtype",
)  # fmt: skip
SHORT = {"bn": "batch_norm", "init": "initializer", "n_s": "step_size", "n_batch": "batch_size"}
TEXTS = ("hidden", "batch_norm", "bn_position", "bn_statistics", "initializer", "optimizer", "schedule", "dtype")
MEASURED = ("validation_accuracy", "test_accuracy")
_PRESET = re.compile(r'"preset": (null|"[^"]*"), ')  # a name for settings is no setting
SHOWN_PAIRS = 12
SHOWN_RANGES = 8


@dataclass(frozen=True)
class Group:
    """Runs with the same values in the columns that they are grouped by."""

    values: tuple[Any, ...]
    runs: tuple[Row, ...]

    def sample(self, measure: str) -> Sample | None:
        """Return the values of a measure, None where no run has one."""
        values = tuple(run[measure] for run in self.runs if run[measure] is not None)
        return Sample(values) if values else None


def columns_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that a person means by `hidden bn`. Raises ConfigError for what is no setting."""
    columns = tuple(dict.fromkeys(SHORT.get(name, name) for name in names))
    for column in columns:
        if column not in SETTINGS:
            known = ", ".join([*SHORT, *(name for name in SETTINGS if name not in SHORT.values())])
            raise ConfigError(f"--group-by {column}: choose from {known}")
    return columns


def group(runs: Sequence[Row], columns: Sequence[str]) -> tuple[list[Group], list[Row]]:
    """Return the groups, the highest mean validation accuracy first, and the runs that only repeat another one.

    The same settings with the same seed give the same numbers: counted twice they would feign certainty.
    """
    unique: dict[str, Row] = {}
    for run in sorted(runs, key=lambda run: run["id"]):
        unique.setdefault(_PRESET.sub("", run["config"]), run)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for run in unique.values():
        groups.setdefault(tuple(run[column] for column in columns), []).append(run)
    ordered = [Group(values, tuple(members)) for values, members in groups.items()]
    ordered.sort(key=lambda one: -(sample.mean if (sample := one.sample(MEASURED[0])) else 0))
    counted = {run["id"] for run in unique.values()}
    return ordered, [run for run in runs if run["id"] not in counted]


def run_numbers(runs: Sequence[Row]) -> str:
    """`1, 3-5, 8`, and of very many how many more there are."""
    ranges: list[list[int]] = []
    for number in sorted(run["id"] for run in runs):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    words = ["-".join(map(str, one)) for one in ranges[:SHOWN_RANGES]]
    more = sum(one[-1] - one[0] + 1 for one in ranges[SHOWN_RANGES:])
    return ", ".join(words) + (f" and {more} more" if more else "")


def group_table(groups: Sequence[Group], columns: Sequence[str]) -> Table:
    """Mean, standard deviation and n of every group."""
    rows = []
    for number, one in enumerate(groups, start=1):
        row: Row = {"row": number} | dict(zip(columns, one.values, strict=True))
        for measure in MEASURED:
            sample = one.sample(measure)
            if sample is not None:
                row |= {f"{measure}_mean": sample.mean, f"{measure}_std": sample.std, f"{measure}_n": sample.n}
            row.setdefault(f"{measure}_n", 0)
        row["runs"] = run_numbers(one.runs)
        rows.append(row)
    cells = (
        Column("row", "row"),
        *(Column(name, _title(name), _FORMS.get(name, value_text), is_number=name not in TEXTS) for name in columns),
        *(
            Column(f"{measure}_{part}", title, form)
            for measure, word in zip(MEASURED, ("validation", "test"), strict=True)
            for part, title, form in (("mean", word, fraction), ("std", "std", fraction), ("n", "n", str))
        ),
        Column("runs", "runs", is_number=False),
    )
    by = f", by {', '.join(map(_title, columns))}" if columns else ""
    title = f"Means over seeds on {images_words(groups[0].runs[0])}{by}"
    return Table(title, cells, rows)


def group_notes(groups: Sequence[Group], columns: Sequence[str], repeated: Sequence[Row]) -> list[str]:
    """Say in words what the numbers allow to conclude."""
    notes = _verdict(groups)
    mixed = {
        number: [name for name in SETTINGS if name not in columns and len({run[name] for run in one.runs}) > 1]
        for number, one in enumerate(groups, start=1)
    }
    for names in dict.fromkeys(tuple(names) for names in mixed.values() if names):
        rows = [number for number, own in mixed.items() if tuple(own) == names]
        notes.append(
            f"{_rows(rows)} of the table mix{'es' if len(rows) == 1 else ''} runs with different "
            f"{', '.join(map(_title, names))}: the deviation is not that of seeds alone; "
            f"add to --group-by or filter with --where"
        )
    if repeated:
        notes.append(f"Not counted, because settings and seed are those of another run: {run_numbers(repeated)}.")
    return notes


def _verdict(groups: Sequence[Group]) -> list[str]:
    samples = [one.sample(MEASURED[0]) or Sample((0.0,)) for one in groups]
    comparisons = compare(samples)
    notes = []
    if comparisons:
        test = f"two-sided Welch test of the validation accuracy, {_corrected(len(comparisons))}"
        same = [one for one in comparisons if not one.differs]
        different = [one for one in comparisons if one.differs]
        if len(same) == len(comparisons) > 1:
            notes.append(f"No two rows can be told apart (all p >= {SIGNIFICANCE:g}); {test}.")
        elif same:
            notes.append(f"Cannot be told apart (p >= {SIGNIFICANCE:g}): rows {_pairs(same)}; {test}.")
        if different:
            notes.append(f"Differ by more than chance (p < {SIGNIFICANCE:g}): rows {_pairs(different)}; {test}.")
    single = [number for number, sample in enumerate(samples, start=1) if sample.n == 1]
    if single and len(groups) > 1:
        notes.append(
            f"{_rows(single)}: a single seed says nothing about chance, `klcli train --repeats 5` gives an error bar."
        )
    return notes


def _corrected(n: int) -> str:
    return f"corrected by Holm for {n} comparisons" if n > 1 else "one comparison"


def _pairs(comparisons: Sequence[Comparison]) -> str:
    """`1 and 2 (p 0.34), 1 and 3 (p 0.081)`, the surest first."""
    ordered = sorted(comparisons, key=lambda one: (one.a, one.b))
    words = [f"{one.a + 1} and {one.b + 1} (p {one.adjusted:.2g})" for one in ordered[:SHOWN_PAIRS]]
    more = len(ordered) - SHOWN_PAIRS
    return ", ".join(words) + (f", and {more} pairs more" if more > 0 else "")


def _rows(numbers: Sequence[int]) -> str:
    return f"Row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _title(column: str) -> str:
    return {
        "batch_norm": "BN",
        "bn_statistics": "BN statistics",
        "initializer": "init",
        "step_size": "n_s",
        "batch_size": "n_batch",
    }.get(column, column.replace("_", " "))


def _yes_no(value: Any) -> str:
    return "yes" if value else "no"


def _policy(value: str) -> str:
    return f"{value}{transductive_words(value)}"


_FORMS = {"batch_norm": _yes_no, "flip": _yes_no, "bn_statistics": _policy}
