"""Groups: mean and deviation of runs that differ only in their seed, and tests of the differences between groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

from klcli.errors import ConfigError
from klcli.report.tables.studies import sample_of, spread
from klcli.report.tables.table import Column, Row, Table, fraction, numbers, texts
from klcli.report.words import images_words, numbered, setting_value, value_words
from klcli.settings.sameness import SETTINGS, differences, settings_and_seeds, without_seeds
from klcli.settings.setting import Setting
from klcli.store.records import Run, RunResult
from klcli.studies.statistics import SIGNIFICANCE, Comparison, Sample, compare

MEASURED = {"validation_accuracy": "validation", "test_accuracy": "test"}
SHOWN_PAIRS = 12
SHOWN_RANGES = 8
AnyRun = TypeVar("AnyRun", Run, RunResult)
Runs = Sequence[Run | RunResult]


@dataclass(frozen=True)
class Group(Generic[AnyRun]):
    """Runs with equal values in the columns of --group-by."""

    values: tuple[Any, ...]
    runs: tuple[AnyRun, ...]

    @cached_property
    def sample(self) -> Sample:
        """The validation accuracies, a single 0 if there are none."""
        return sample_of(self.runs, "validation_accuracy") or Sample((0.0,))


def columns_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of settings named by column, key, option or label. Raises ConfigError for an unknown name."""
    return tuple(dict.fromkeys(_setting(name).column for name in names))


def varying(runs: Runs) -> tuple[str, ...]:
    """Return the columns, except seeds, in which runs differ; n_s, cycles and epochs by their resolved values."""
    distinct = {without_seeds(run.config) for run in runs}
    keys = {key for config in distinct for key in differences(runs[0].config, config)}
    return tuple(
        one.column
        for one in _GROUPED
        if one.key in keys and (not one.is_resolved or len({setting_value(run, one.key) for run in runs}) > 1)
    )


def group(runs: Sequence[AnyRun], columns: Sequence[str]) -> tuple[list[Group[AnyRun]], list[AnyRun]]:
    """Return the groups, the highest mean validation accuracy first, and the runs that duplicate another one.

    The same settings with the same seed give the same numbers: duplicates would make the deviation too small.
    """
    firsts: dict[Any, AnyRun] = {}  # by settings and seeds
    repeated: list[AnyRun] = []
    for run in sorted(runs, key=lambda run: run.id):
        if firsts.setdefault(settings_and_seeds(run.config), run) is not run:
            repeated.append(run)
    keys = [_setting(column).key for column in columns]
    groups: dict[tuple[Any, ...], list[AnyRun]] = {}
    for run in firsts.values():
        groups.setdefault(tuple(setting_value(run, key) for key in keys), []).append(run)
    found = [Group(values, tuple(own)) for values, own in groups.items()]
    return sorted(found, key=lambda one: -one.sample.mean), repeated


def run_numbers(runs: Runs) -> str:
    """`1, 3-5, 8`; a long list ends with the number of runs left out."""
    ranges: list[list[int]] = []
    for number in sorted(run.id for run in runs):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    words = ["-".join(map(str, one)) for one in ranges[:SHOWN_RANGES]]
    more = sum(one[-1] - one[0] + 1 for one in ranges[SHOWN_RANGES:])
    return ", ".join(words) + (f" and {more} more" if more else "")


def group_table(groups: Sequence[Group[Any]], columns: Sequence[str]) -> Table:
    """Mean, standard deviation and n of every group."""
    settings = [_setting(name) for name in columns]
    rows: list[Row] = []
    for number, one in enumerate(groups, start=1):
        rows.append({"row": number, "runs": run_numbers(one.runs)} | dict(zip(columns, one.values, strict=True)))
        for measure in MEASURED:
            rows[-1] |= spread(sample_of(one.runs, measure), f"{measure}_")
    own = [Column(one.column, one.label, partial(value_words, one.key), one.kind in (int, float)) for one in settings]
    cells = [*numbers(str, "row"), *own]
    for measure, word in MEASURED.items():
        cells += numbers(fraction, **{f"{measure}_mean": word, f"{measure}_std": "std"})
        cells += numbers(str, **{f"{measure}_n": "n"})
    by = f", by {_labels(columns)}" if columns else ""
    title = f"Means over seeds on {images_words(groups[0].runs[0])}{by}"
    return Table(title, (*cells, *texts("runs")), rows)


def group_notes(groups: Sequence[Group[Any]], columns: Sequence[str], repeated: Runs) -> list[str]:
    """Return the conclusions from the numbers as sentences."""
    notes = _verdict([one.sample for one in groups])
    mixed = [tuple(name for name in varying(one.runs) if name not in columns) for one in groups]
    for names in dict.fromkeys(filter(None, mixed)):
        rows = [number for number, own in enumerate(mixed, start=1) if own == names]
        notes.append(
            f"{numbered('Row', rows)} of the table {'mixes' if len(rows) == 1 else 'mix'} runs with different "
            f"{_labels(names)}: the deviation is not that of seeds alone; add to --group-by or filter with --where"
        )
    seeds = [({one.config.shared_seed for one in own.runs}, {one.config.seed for one in own.runs}) for own in groups]
    if held := [number for number, (orders, own) in enumerate(seeds, start=1) if len(orders) == 1 < len(own)]:
        notes.append(
            f"{numbered('Row', held)}: the seeds are of the weights alone, with one order of the images: "
            "the deviation does not contain that of the order."
        )
    if repeated:
        notes.append(f"Not counted, because settings and seed are those of another run: {run_numbers(repeated)}.")
    return notes


def _verdict(samples: Sequence[Sample]) -> list[str]:
    comparisons, notes = compare(samples), []
    same, different = ([one for one in comparisons if one.differs == differs] for differs in (False, True))
    n = len(comparisons)
    corrected = f"corrected by Holm for {n} comparisons" if n > 1 else "one comparison"
    test = f"two-sided Welch test of the validation accuracy, {corrected}"
    if len(same) == n > 1:
        notes.append(f"No two rows differ significantly (all p >= {SIGNIFICANCE:g}); {test}.")
    elif same:
        notes.append(f"No significant difference (p >= {SIGNIFICANCE:g}): rows {_pairs(same)}; {test}.")
    if different:
        notes.append(f"Differ by more than chance (p < {SIGNIFICANCE:g}): rows {_pairs(different)}; {test}.")
    single = [number for number, sample in enumerate(samples, start=1) if sample.n == 1]
    if single and len(samples) > 1:
        cure = "`klcli train --repeats 5` gives an error bar"
        notes.append(f"{numbered('Row', single)}: a single seed says nothing about chance, {cure}.")
    return notes


def _pairs(comparisons: Sequence[Comparison]) -> str:
    first = sorted(comparisons, key=lambda one: (one.a, one.b))[:SHOWN_PAIRS]
    words = [f"{one.a + 1} and {one.b + 1} (p {one.adjusted:.2g})" for one in first]
    more = len(comparisons) - SHOWN_PAIRS
    return ", ".join(words) + (f", and {more} pairs more" if more > 0 else "")


def _labels(columns: Sequence[str]) -> str:
    return ", ".join(_setting(name).label for name in columns)


def _setting(name: str) -> Setting:
    if name not in _BY_NAME:
        known = ", ".join(one.option.removeprefix("--") for one in _GROUPED)
        similar = get_close_matches(name, _BY_NAME, n=1)
        nearest = f"the nearest is {similar[0]}, " if similar else ""
        raise ConfigError(f"--group-by {name}: {nearest}choose from {known}")
    return _BY_NAME[name]


_GROUPED = [one for one in SETTINGS.values() if not one.is_seed]
_BY_NAME = {
    name.removeprefix("--"): one
    for one in reversed(_GROUPED)
    for name in (one.label, one.label.replace(" ", "_"), one.option, one.key, one.column)
}
