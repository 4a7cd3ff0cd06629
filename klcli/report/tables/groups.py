"""Groups: mean and deviation of runs that differ only in their seed, and tests of the differences between groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property, partial
from typing import Any

from klcli.errors import ConfigError
from klcli.report.tables.studies import sample_of, spread
from klcli.report.tables.table import Column, Row, Shown, Table, columns
from klcli.report.words import counted, images_words, not_counted, numbered, setting_value, value_words
from klcli.settings.run_names import names_of, ranges_words
from klcli.settings.sameness import NO_NUMBER, SETTINGS, differences, numbers_key, settings_and_seeds, without_seeds
from klcli.settings.setting import Setting
from klcli.settings.train_config import TRANSDUCTIVE
from klcli.store.records import Run, RunResult
from klcli.studies.statistics import SIGNIFICANCE, Comparison, Sample, compare

MEASURED = {"validation_accuracy": "validation", "test_accuracy": "test"}
SHOWN_PAIRS = 12
Runs = Sequence[Run | RunResult]


@dataclass(frozen=True)
class Group:
    """Runs with equal values in the columns of --group-by."""

    values: tuple[Any, ...]
    runs: Runs

    @cached_property
    def sample(self) -> Sample:
        """The validation accuracies, a single 0 if there are none."""
        return sample_of(self.runs, "validation_accuracy") or Sample((0.0,))


def settings_named(names: Sequence[str]) -> tuple[Setting, ...]:
    """Return settings named by column, key, option or label. Raises ConfigError for an unknown name."""
    for name in names:
        if name not in _BY_NAME:
            known = ", ".join(one.option.removeprefix("--") for one in _GROUPED)
            nearest = "".join(f"the nearest is {one}, " for one in get_close_matches(name, _BY_NAME, n=1))
            raise ConfigError(f"--group-by {name}: {nearest}choose from {known}")
    return tuple(dict.fromkeys(_BY_NAME[name] for name in names))


def varying(runs: Runs) -> tuple[Setting, ...]:
    """Return the settings, except seeds, in which runs differ; n_s, cycles and epochs by their resolved values."""
    distinct = {without_seeds(run.config) for run in runs}
    keys = {key for config in distinct for key in differences(runs[0].config, config)}
    found = [one for one in _GROUPED if one.key in keys and len({setting_value(run, one.key) for run in runs}) > 1]
    has_one_n_s = len({run.step_size for run in runs}) == 1  # then the epochs of half a cycle are told by it
    return tuple(one for one in found if not (one.key == "step_epochs" and has_one_n_s))


def mixing(runs: Runs) -> tuple[Setting, ...]:
    """Return those of `varying` on which numbers depend: no mean is over several values of them."""
    return tuple(one for one in varying(runs) if one.key not in NO_NUMBER)


def group(runs: Runs, by: Sequence[Setting]) -> tuple[list[Group], list[Run | RunResult]]:
    """Return the groups, the highest mean validation accuracy first, and the runs that duplicate another one.

    The same settings with the same seed give the same numbers: duplicates in a row would make its deviation too small.
    One with curves counts, but first one with a test accuracy, which the runs of a lambda search do not have.
    """
    dividing = [one.key for one in by if one.key in NO_NUMBER]
    firsts: dict[Any, Run | RunResult] = {}  # by what determines their numbers
    ordered = sorted(runs, key=lambda one: (one.test_accuracy is None, one.config.evaluations_per_cycle == 0, one.id))
    keys = [
        (numbers_key(run.config, run.step_size, run.epochs), *(setting_value(run, key) for key in dividing))
        for run in ordered
    ]
    repeated = [run for key, run in zip(keys, ordered, strict=True) if firsts.setdefault(key, run) is not run]
    groups: dict[tuple[Any, ...], list[Run | RunResult]] = {}
    for run in firsts.values():
        groups.setdefault(tuple(setting_value(run, one.key) for one in by), []).append(run)
    return sorted((Group(*one) for one in groups.items()), key=lambda one: -one.sample.mean), repeated


def group_table(groups: Sequence[Group], by: Sequence[Setting]) -> Table:
    """Mean, standard deviation and n of every group."""
    own = [Column(one.column, one.label, partial(value_words, one.key), one.kind in (int, float)) for one in by]
    rows: list[Row] = []
    for number, one in enumerate(groups, start=1):
        values = {column.key: value for column, value in zip(own, one.values, strict=True)}
        numbers = [run.id for run in one.runs]
        rows.append({"row": number, "runs": Shown(", ".join(names_of(numbers)), ranges_words(numbers))} | values)
        for measure in MEASURED:
            rows[-1] |= spread(sample_of(one.runs, measure), f"{measure}_")
    measures = "; ".join(f"{key}_mean:.4f={word}; &{key}_std:.4f=std; &{key}_n:=n" for key, word in MEASURED.items())
    labels = ", ".join(one.label for one in by)
    title = f"Mean accuracies over n seeds on {images_words(groups[0].runs[0])}" + (f", by {labels}" if by else "")
    return Table(title, (*columns("*row:"), *own, *columns(f"{measures}; ?runs")), rows)


def group_notes(groups: Sequence[Group], by: Sequence[Setting], repeated: Runs, shown: int | None = None) -> list[str]:
    """Return the conclusions from the numbers as sentences, about the first groups alone if not all are shown."""
    mixed = [", ".join(one.label for one in mixing(own.runs) if one not in by) for own in groups]
    notes = _verdict([one.sample for one in groups], [row for row, labels in enumerate(mixed) if not labels], shown)
    groups, mixed = groups[:shown], mixed[:shown]
    for labels in dict.fromkeys(filter(None, mixed)):
        rows = [number for number, own in enumerate(mixed, start=1) if own == labels]
        what = f"{numbered('Row', rows)} of the table {'mixes' if len(rows) == 1 else 'mix'} runs with different"
        cure = "the deviation is not that of seeds alone, and not tested; add to --group-by or filter with --where"
        notes.append(f"{what} {labels}: {cure}")
    drawn = [zip(*(settings_and_seeds(run.config)[1] for run in own.runs), strict=True) for own in groups]
    seeds = [[*map(set, own)] for own in drawn]
    if held := [number for number, (own, orders, _) in enumerate(seeds, start=1) if len(orders) == 1 < len(own)]:
        what = f"{numbered('Row', held)}: the seeds are of the weights alone, with one order of the images"
        notes.append(f"{what}: the deviation does not contain that of the order.")
    if held := [number for number, (own, orders, _) in enumerate(seeds, start=1) if len(own) == 1 < len(orders)]:
        what = f"{numbered('Row', held)}: the seeds are of the order alone, with the same initial weights"
        notes.append(f"{what}: the deviation does not contain that of the weights.")
    policies = [{setting_value(one, "bn_statistics") for one in own.runs} for own in groups]
    used = [number for number, own in enumerate(policies, start=1) if own.intersection(TRANSDUCTIVE)]
    if used and SETTINGS["bn_statistics"] not in by:
        notes.append(f"{numbered('Row', used)}: BN statistics of test images, transductive.")
    if repeated:
        notes.append(not_counted(run.id for run in repeated))
    return notes


def _verdict(samples: Sequence[Sample], alike: Sequence[int], shown: int | None) -> list[str]:
    """Return what tests of the samples at the positions `alike` say: runs of one setting that differ in their seed.

    All are tested, and the pairs of the first `shown` named: which differ must not depend on the length of a table.
    """
    tests, notes = compare([samples[row] for row in alike]), list[str]()
    rows = range(len(samples))[:shown]
    comparisons = [replace(one, a=alike[one.a], b=alike[one.b]) for one in tests if alike[one.b] in rows]  # a < b
    same, different = ([one for one in comparisons if one.differs == differs] for differs in (False, True))
    n = len(tests)
    corrected = f"corrected by Holm for {n} comparisons" if n > 1 else "one comparison"
    test = f"two-sided Welch test of the validation accuracy, {corrected}"
    if len(same) == len(comparisons) > 1:
        which = "rows" if len(same) == math.comb(len(rows), 2) else "tested rows"  # some means have no test
        notes.append(f"No two {which} differ significantly (all p >= {SIGNIFICANCE:g}); {test}.")
    elif same:
        notes.append(f"No significant difference (p >= {SIGNIFICANCE:g}): rows {_pairs(same)}; {test}.")
    if different:
        notes.append(f"Differ by more than chance (p < {SIGNIFICANCE:g}): rows {_pairs(different)}; {test}.")
    single = [row + 1 for row in rows if samples[row].n == 1]
    if single and len(rows) > 1:
        cure = "`klcli train --repeats 5` gives an error bar"
        notes.append(f"{numbered('Row', single)}: a single seed says nothing about chance, {cure}.")
    return notes


def _pairs(comparisons: Sequence[Comparison]) -> str:
    ordered, more = sorted(comparisons, key=lambda one: (one.a, one.b)), len(comparisons) - SHOWN_PAIRS
    words = [f"{one.a + 1} and {one.b + 1} (p {one.adjusted:.3g})" for one in ordered[:SHOWN_PAIRS]]
    return ", ".join(words) + (f", and {more} {counted(more, 'pair')} more" if more > 0 else "")


_GROUPED = [one for one in SETTINGS.values() if not one.is_seed]
_BY_NAME = {
    name.removeprefix("--"): one
    for one in reversed(_GROUPED)
    for name in (one.label, one.label.replace(" ", "_"), one.option, one.key, one.column)
}
