"""Groups: means and deviations by hand, and what is said about them."""

import json
from statistics import mean, stdev
from typing import Any

import pytest
from scipy import stats

from klcli.errors import ConfigError
from klcli.report.tables.groups import SETTINGS, columns_of, group, group_notes, group_table, run_numbers

SPLIT = '{"validation": 5000, "train_batches": [], "validation_batches": [], "subset": null}'
WITH = (0.541, 0.543, 0.546)
WITHOUT = (0.520, 0.524, 0.519)


def run(number: int, accuracy: float, **values: Any) -> dict[str, Any]:
    settings = dict.fromkeys(SETTINGS, 1) | {"hidden": "50 50", "batch_norm": 0, "lambda": 0.005}
    row = settings | {
        "id": number, "dataset": "cifar10", "split": SPLIT, "seed": number, "validation_accuracy": accuracy,
        "test_accuracy": None,
    }  # fmt: skip
    row |= values
    return row | {"config": json.dumps([row[key] for key in (*SETTINGS, "seed")])}


def two_groups() -> list[dict[str, Any]]:
    runs = [run(number, accuracy, batch_norm=1) for number, accuracy in enumerate(WITH, start=1)]
    return runs + [run(number, accuracy) for number, accuracy in enumerate(WITHOUT, start=4)]


def test_mean_deviation_and_n_of_every_group() -> None:
    groups, repeated = group(two_groups(), ("batch_norm",))
    assert repeated == []
    first, second = group_table(groups, ("batch_norm",)).rows
    assert (first["batch_norm"], second["batch_norm"]) == (1, 0)
    assert first["validation_accuracy_mean"] == pytest.approx(mean(WITH), rel=1e-15)
    assert first["validation_accuracy_std"] == pytest.approx(stdev(WITH), rel=1e-12)
    assert first["validation_accuracy_n"] == 3
    assert second["runs"] == "4-6"
    assert (first["test_accuracy_n"], first.get("test_accuracy_mean")) == (0, None)


def test_what_differs_by_more_than_chance_is_said_with_its_p() -> None:
    groups, _ = group(two_groups(), ("batch_norm",))
    p = stats.ttest_ind(WITH, WITHOUT, equal_var=False).pvalue
    [note] = group_notes(groups, ("batch_norm",), [])
    assert note.startswith(f"Differ by more than chance (p < 0.05): rows 1 and 2 (p {p:.2g})")


def test_what_chance_could_have_done_is_said() -> None:
    runs = two_groups() + [run(number, 0.514 + number / 1000, hidden="30") for number in range(7, 10)]
    groups, _ = group(runs, ("hidden", "batch_norm"))
    notes = " ".join(group_notes(groups, ("hidden", "batch_norm"), []))
    assert "Cannot be told apart (p >= 0.05)" in notes
    assert "corrected by Holm for 3 comparisons" in notes


def test_a_single_seed_supports_no_statement() -> None:
    groups, _ = group([run(1, 0.5), run(2, 0.6, batch_norm=1)], ("batch_norm",))
    [note] = group_notes(groups, ("batch_norm",), [])
    assert note.startswith("Rows 1, 2: a single seed says nothing about chance")


def test_a_run_that_only_repeats_another_is_not_counted() -> None:
    runs = [*two_groups(), run(9, WITH[0], batch_norm=1, seed=1)]
    groups, repeated = group(runs, ("batch_norm",))
    assert [one["id"] for one in repeated] == [9]
    assert len(groups[0].runs) == 3
    assert "Not counted" in group_notes(groups, ("batch_norm",), repeated)[-1]


def test_groups_that_mix_settings_say_so() -> None:
    runs = [*two_groups(), run(9, 0.5, **{"lambda": 0.1})]
    groups, _ = group(runs, ("batch_norm",))
    assert any(
        note.startswith("Row 2 of the table mixes runs with different lambda")
        for note in group_notes(groups, ("batch_norm",), [])
    )


def test_columns_have_short_names() -> None:
    assert columns_of(["hidden", "bn", "lambda", "hidden"]) == ("hidden", "batch_norm", "lambda")
    with pytest.raises(ConfigError, match=r"--group-by seed: choose from bn, .*hidden"):
        columns_of(["seed"])


def test_many_runs_are_named_in_few_words() -> None:
    assert run_numbers([run(n, 0.5) for n in (8, 1, 5, 3, 4)]) == "1, 3-5, 8"
    assert run_numbers([run(n, 0.5) for n in range(0, 40, 2)]) == "0, 2, 4, 6, 8, 10, 12, 14 and 12 more"
