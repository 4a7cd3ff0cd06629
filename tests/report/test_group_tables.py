"""Groups: means and deviations by hand, and the notes below the table."""

import json
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

import pytest
import records
from scipy import stats

from klcli.errors import ConfigError
from klcli.report.tables.formats import exact_rows
from klcli.report.tables.groups import group, group_notes, group_table, settings_named, varying
from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import Setting
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Run

WITH = (0.541, 0.543, 0.546)
WITHOUT = (0.520, 0.524, 0.519)


def run(number: int, accuracy: float, **settings: Any) -> Run:
    config = TrainConfig(**{"seed": number} | settings)
    return records.run(number, config, validation_accuracy=accuracy)


def two_groups() -> list[Run]:
    runs = [run(number, accuracy, batch_norm=True) for number, accuracy in enumerate(WITH, start=1)]
    return runs + [run(number, accuracy) for number, accuracy in enumerate(WITHOUT, start=4)]


BN = settings_named(["batch_norm"])


def columns_of(settings: Sequence[Setting]) -> tuple[str, ...]:
    """Return their columns in the database."""
    return tuple(one.column for one in settings)


def test_mean_deviation_and_n_of_every_group() -> None:
    groups, repeated = group(two_groups(), BN)
    assert repeated == []
    first, second = group_table(groups, BN).rows
    assert (first["batch_norm"], second["batch_norm"]) == (1, 0)
    assert first["validation_accuracy_mean"] == pytest.approx(mean(WITH), rel=1e-15)
    assert first["validation_accuracy_std"] == pytest.approx(stdev(WITH), rel=1e-12)
    assert first["validation_accuracy_n"] == 3
    assert str(second["runs"]) == "4-6"
    assert (first["test_accuracy_n"], first.get("test_accuracy_mean")) == (0, None)


def test_what_differs_by_more_than_chance_is_said_with_its_p() -> None:
    groups, _ = group(two_groups(), BN)
    p = stats.ttest_ind(WITH, WITHOUT, equal_var=False).pvalue
    [note] = group_notes(groups, BN, [])
    assert note.startswith(f"Differ by more than chance (p < 0.05): rows 1 and 2 (p {p:.3g})")


def test_a_p_below_the_limit_is_not_rounded_to_it() -> None:
    near = (0.53446, 0.53846, 0.53946)
    other = [run(number, accuracy) for number, accuracy in enumerate(near, start=4)]
    groups, _ = group([*two_groups()[:3], *other], BN)
    assert 0.0495 < stats.ttest_ind(WITH, near, equal_var=False).pvalue < 0.05
    assert "Differ by more than chance (p < 0.05): rows 1 and 2 (p 0.05" not in group_notes(groups, BN, [])[0]


def test_what_chance_could_have_done_is_said() -> None:
    runs = two_groups() + [run(number, 0.514 + number / 1000, hidden=(30,)) for number in range(7, 10)]
    groups, _ = group(runs, settings_named(["hidden", "batch_norm"]))
    notes = " ".join(group_notes(groups, settings_named(["hidden", "batch_norm"]), []))
    assert "No significant difference (p >= 0.05)" in notes
    assert "corrected by Holm for 3 comparisons" in notes


@pytest.mark.parametrize("untested", [[0.9], [0.2, 0.2]])
def test_rows_without_a_test_are_not_said_to_be_alike(untested: list[float]) -> None:
    """A single seed has no deviation; of two rows without any, the means differ and no test applies."""
    others = [[0.50, 0.52], [0.50, 0.53]] if len(untested) == 1 else [[0.1, 0.1], [0.1, 0.2]]
    accuracies = [(lam, one) for lam, row in enumerate([*others, untested], start=1) for one in row]
    runs = [run(number, accuracy, lam=lam / 100) for number, (lam, accuracy) in enumerate(accuracies, start=1)]
    by = settings_named(["lambda"])
    notes = group_notes(group(runs, by)[0], by, [])
    assert any("No significant difference" in note or "No two tested rows differ" in note for note in notes)
    assert not any("No two rows" in note for note in notes)


def test_a_single_seed_supports_no_statement() -> None:
    groups, _ = group([run(1, 0.5), run(2, 0.6, batch_norm=True)], BN)
    [note] = group_notes(groups, BN, [])
    assert note.startswith("Rows 1, 2: a single seed says nothing about chance")


def test_a_run_that_only_repeats_another_is_not_counted() -> None:
    runs = [*two_groups(), run(9, WITH[0], batch_norm=True, seed=1)]
    groups, repeated = group(runs, BN)
    assert [one.id for one in repeated] == [9]
    assert len(groups[0].runs) == 3
    assert "Not counted" in group_notes(groups, BN, repeated)[-1]


def test_of_equal_runs_the_one_with_a_test_accuracy_counts() -> None:
    """Those of a lambda search have none, and the training that follows it is a later one of the same settings."""
    searched = [run(number, 0.5, seed=0, lam=lam) for number, lam in ((1, 0.003), (2, 0.005))]
    trained = replace(run(3, 0.5, seed=0, lam=0.003), test_accuracy=0.48)
    groups, repeated = group([*searched, trained], settings_named(["lambda"]))
    assert [one.id for one in repeated] == [1]
    rows = {row["lambda"]: row for row in group_table(groups, settings_named(["lambda"])).rows}
    assert (rows[0.003]["test_accuracy_mean"], rows[0.003]["test_accuracy_n"]) == (0.48, 1)
    assert rows[0.005]["test_accuracy_n"] == 0


def test_of_equal_runs_the_one_with_curves_counts() -> None:
    """Pictures of the groups show it."""
    runs = [run(1, 0.5, seed=1, evaluations_per_cycle=0), run(2, 0.5, seed=1)]
    [one], repeated = group(runs, ())
    assert ([own.id for own in one.runs], [own.id for own in repeated]) == ([2], [1])


def test_groups_that_mix_settings_say_so() -> None:
    runs = [*two_groups(), run(9, 0.5, lam=0.1)]
    groups, _ = group(runs, BN)
    assert any(
        note.startswith("Row 2 of the table mixes runs with different lambda") for note in group_notes(groups, BN, [])
    )


def test_rows_that_mix_settings_are_not_tested() -> None:
    """Welch's test takes the spread of a row for that of its seeds; here the rows 1 and 3 differ, row 2 has two
    lambdas and would make three comparisons of one."""
    other = [run(number, 0.4 + number / 1000, hidden=(30,)) for number in range(7, 10)]
    runs = [*two_groups(), run(10, 0.5, lam=0.1), *other]
    by = settings_named(["hidden", "batch_norm"])
    groups, _ = group(runs, by)
    p = stats.ttest_ind(WITH, [0.407, 0.408, 0.409], equal_var=False).pvalue
    [verdict, mixed] = group_notes(groups, by, [])
    assert verdict.startswith(f"Differ by more than chance (p < 0.05): rows 1 and 3 (p {p:.3g}); ")
    assert verdict.endswith("one comparison.")
    assert mixed.startswith("Row 2 of the table mixes runs with different lambda: ") and "not tested" in mixed


def test_a_run_of_an_older_klcli_or_of_a_preset_is_no_second_seed() -> None:
    """One stored before --whitening and --bn-samples existed, one under the name of a preset, one of a study."""
    first = run(1, 0.5)
    stored = json.loads(first.config_json)
    older = {key: value for key, value in stored.items() if key not in ("whitening", "bn_samples", "standardise")}
    named = stored | {"preset": "course"}
    of_a_study = stored | {"order_seed": 1}  # which is its seed
    runs = [
        first,
        *(replace(first, id=n, config_json=json.dumps(own)) for n, own in ((2, older), (3, named), (4, of_a_study))),
    ]
    groups, repeated = group(runs, ())
    assert [one.id for one in groups[0].runs] == [1]
    assert [one.id for one in repeated] == [2, 3, 4]


def test_what_a_run_resolves_is_what_counts() -> None:
    """5 epochs of 450 updates are the 2250 updates of the other run."""
    runs = [run(1, 0.5), run(2, 0.5, step_size=2250)]
    assert varying(runs) == ()
    [one], _ = group(runs, settings_named(["n_s"]))
    assert one.values == (2250,)
    assert columns_of(varying([*runs, run(3, 0.5, step_epochs=2, cycles=5)])) == ("step_epochs", "step_size", "cycles")


@pytest.mark.parametrize(
    "spelt",
    [{"step_size": 2250}, {"epochs": 20}, {"epochs": 20, "step_size": 2250}, {"step_epochs": 5.0004}, {"order_seed": 1},
     {"batch_norm": True, "bn_statistics": "precise", "bn_samples": 10_000}, {"evaluations_per_cycle": 2},
     {"snapshots": True}],
)  # fmt: skip
def test_another_spelling_of_a_training_is_no_second_seed(spelt: dict[str, Any]) -> None:
    """5 epochs of 450 updates are 2250, two cycles are 20 epochs, and `precise` draws 10 000 images.

    Evaluations and copies on the way change no update."""
    alike = {key: value for key, value in spelt.items() if key in ("batch_norm", "bn_statistics")}
    runs = [run(1, 0.5, seed=1, **alike), run(2, 0.5, seed=1, **spelt), run(3, 0.6, seed=2, **spelt)]
    [one], repeated = group(runs, ())
    assert ([run.id for run in one.runs], [run.id for run in repeated]) == ([1, 3], [2])


@pytest.mark.parametrize(("name", "value"), [("evaluations_per_cycle", 0), ("snapshots", True)])
def test_evaluations_and_copies_on_the_way_divide_rows_only_if_they_are_asked_for(name: str, value: object) -> None:
    own: list[dict[str, Any]] = [{}, {name: value}]
    runs = [run(2 * n + k, 0.5, seed=k, **extra) for n, extra in enumerate(own) for k in (1, 2)]
    [one], repeated = group([runs[0], runs[3]], ())
    assert not [note for note in group_notes([one], (), repeated) if "mix" in note]
    groups, repeated = group(runs, by := settings_named([name]))
    assert ([[run.id for run in one.runs] for one in groups], repeated) == ([[1, 2], [3, 4]], [])
    assert not [note for note in group_notes(groups, by, repeated) if "mix" in note]


def test_columns_have_short_names() -> None:
    assert columns_of(settings_named(["hidden", "bn", "lambda", "hidden"])) == ("hidden", "batch_norm", "lambda")
    assert columns_of(settings_named(["init", "n_s", "n_batch", "step-size", "weight_decay"])) == (
        "initializer", "step_size", "batch_size", "weight_decay",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"--group-by seed: choose from .*hidden, bn, "):
        settings_named(["seed"])


@pytest.mark.parametrize("key", [key for key, one in SETTINGS.items() if not one.is_seed])
def test_every_setting_but_seeds_is_a_column_under_each_of_its_names(key: str) -> None:
    one = SETTINGS[key]
    for name in (one.key, one.column, one.option.removeprefix("--"), one.label):
        assert columns_of(settings_named([name])) == (one.column,)


def test_groups_have_the_values_of_the_database() -> None:
    groups, _ = group(
        [run(1, 0.5, batch_norm=True, bn_statistics="adaptive")],
        settings_named(["hidden", "batch_norm", "bn_statistics"]),
    )
    table = group_table(groups, settings_named(["hidden", "batch_norm", "bn_statistics"]))
    [row] = exact_rows(table)
    assert (row["hidden"], row["batch_norm"], row["bn_statistics"]) == ("50 50", 1, "adaptive")
    assert table.cells()[0][1:4] == ["50 50", "yes", "adaptive, transductive"]
    assert table.title.endswith(", by hidden, BN, BN statistics")
