"""Every setting, changed alone, is visible in every view, and two runs that differ in it are never pooled as repeats.

A setting that is added to TrainConfig is tested here by itself.
"""

from dataclasses import replace
from typing import Any

import pytest
import records

from klcli.errors import ConfigError
from klcli.report.plots.curves import overlay, repeats
from klcli.report.tables.groups import group, group_notes, varying
from klcli.report.tables.runs import comparison_table, list_table
from klcli.report.words import network_name, options_words, repeats_note, settings_line
from klcli.settings.sameness import SETTINGS, differences, settings_and_seeds, without_seeds
from klcli.settings.setting import Setting, value_of, with_values
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Run

# What a setting needs beside it.
PARTNERS: dict[str, dict[str, Any]] = {
    "bn_samples": {"batch_norm": True, "bn_statistics": "precise"},
    "whitening_eps": {"whitening": 10},
    "silu_slope": {"activation": "silu"},
    "weak_augmentation": {"shift": 3},
    "sigma": {"initializer": "normal", "sigma": 0.1},
}
NO_NUMBER = ("evaluations_per_cycle", "snapshots")  # the network after the last update is the same
NUMBERS = (0.5, 0.05, 400, 3)
TRIED = [
    pytest.param(one, value, id=f"{one.key} {value}")
    for one in SETTINGS.values()
    if not one.is_name
    for value in ([not one.default] if one.kind is bool else [*one.choices] or [None])
    if value is None or value != one.default
]


def base_of(one: Setting) -> TrainConfig:
    """Return a network with BN, so that no setting is without effect, and what the setting needs."""
    return with_values(TrainConfig(), {"batch_norm": one.key != "batch_norm"} | PARTNERS.get(one.key, {}))


def changed(config: TrainConfig, one: Setting, value: Any) -> TrainConfig:
    """Return the config with another value of one setting, which `None` leaves to be found."""
    found_by_trial = [(1,), (20, 20)] if one.kind is tuple else NUMBERS
    for candidate in found_by_trial if value is None else (value,):
        partner = {"sigma": 0.1} if candidate == "normal" else {}  # no initialiser is normal without sigma
        try:
            found = with_values(config, {one.key: candidate} | partner)
        except ConfigError:
            continue
        if value_of(found, one.key) != value_of(config, one.key):
            return found
    raise AssertionError(f"no other value of {one.key} is valid: add one to NUMBERS")


@pytest.mark.parametrize(("one", "value"), TRIED)
def test_a_setting_that_changes_alone_is_seen_everywhere(one: Setting, value: Any) -> None:
    a = base_of(one)
    b = changed(a, one, value)
    assert set(differences(a, b)) - ({"sigma"} if value == "normal" else set()) == {one.key}
    runs = [
        records.run(number, config, validation_accuracy=0.5, epochs_done=1.0) for number, config in ((1, a), (2, b))
    ]

    differing = comparison_table(runs, diff_only=True)
    assert one.label in [cells[0] for cells in differing.cells()]
    first, second = list_table(runs, "Runs").cells()
    assert first[1:] != second[1:]
    captions = [(network_name(run.config), options_words(run.config), settings_line(run)) for run in runs]
    assert captions[0] != captions[1]

    chart = overlay(runs, {run.id: [records.epoch(100)] for run in runs})
    labels = [str(line.label).partition(": ") for line in chart.panels[0][0].lines]
    assert [numbers for numbers, *_ in labels] == (["runs 1-2"] if one.is_seed else ["run 1", "run 2"])
    assert len({words for *_, words in labels}) == len(labels)  # a setting tells them apart

    groups, repeated = group(runs, ())
    notes = " ".join(group_notes(groups, (), repeated))
    assert settings_and_seeds(a) != settings_and_seeds(b)
    if one.key in NO_NUMBER:
        assert (repeated, one in varying(runs)) == (runs[1:], True)
        return
    assert repeated == []
    if one.is_seed:
        assert without_seeds(a) == without_seeds(b)
        assert "mix" not in notes
    else:
        assert without_seeds(a) != without_seeds(b)
        assert one in varying(runs)
        assert one.label in notes.partition("with different ")[2].partition(":")[0].split(", ")
        assert len(group(runs, (one,))[0]) == 2


def test_the_table_of_a_run_has_the_settings_with_an_effect() -> None:
    of_bn = {"BN position", "BN momentum", "BN eps", "BN statistics"}
    of_cycles = {"step epochs", "n_s", "cycles", "eta decay"}
    plain = records.run(1, TrainConfig())
    with_bn = records.run(2, TrainConfig(batch_norm=True))
    constant = records.run(3, TrainConfig(optimizer="adam", schedule="constant", epochs=2))

    def shown(*runs: Run) -> set[str]:
        return {cells[0] for cells in comparison_table(runs, diff_only=False).cells()}

    assert shown(with_bn) - shown(plain) == of_bn
    assert shown(plain) - shown(constant) == {"momentum", "eta min", *of_cycles}
    assert not shown(with_bn) & {"BN samples", "SiLU slope", "whitening eps", "sigma", "weak augmentation"}
    both = {name: values for name, *values in comparison_table([plain, with_bn], diff_only=False).cells()}
    assert both["BN momentum"] == ["-", "0.9"]


def test_a_setting_with_one_value_is_no_difference_where_it_has_an_effect_in_one_run_alone() -> None:
    runs = [records.run(1, TrainConfig(batch_norm=True)), records.run(2, TrainConfig(optimizer="adam", cycles=1))]
    differing = [cells[0] for cells in comparison_table(runs, diff_only=True).cells()]
    assert differing == ["network", "BN", "optimizer", "cycles", "epochs", "epochs done"]
    decayed = [*runs, records.run(3, TrainConfig(eta_decay=0.5))]
    assert "eta decay" in [cells[0] for cells in comparison_table(decayed, diff_only=True).cells()]


def test_a_setting_without_effect_makes_no_second_seed() -> None:
    runs = [records.run(1, TrainConfig()), records.run(2, TrainConfig(bn_eps=1e-5))]
    [one], repeated = group(runs, ())
    assert ([*one.runs], repeated) == (runs[:1], runs[1:])


def test_a_seed_of_an_order_that_nothing_draws_makes_no_second_seed() -> None:
    """The second of `--no-shuffle --repeats 3 --vary init`, and its own command with `--seed 1` alone."""
    in_order = [TrainConfig(shuffle=False, seed=1, order_seed=order) for order in (0, None)]
    runs = [records.run(1 + n, config) for n, config in enumerate(in_order)]
    [one], repeated = group(runs, ())
    assert ([*one.runs], repeated) == (runs[:1], runs[1:])
    assert repeats(runs) == [runs[:1]]
    drawn = [records.run(run.id, replace(run.config, dropout=0.1)) for run in runs]
    assert group(drawn, ())[1] == []
    assert repeats(drawn) == [drawn]


@pytest.mark.parametrize("order", [None, 0], ids=["all", "init"])
def test_repeats_without_anything_drawn_are_over_seeds_of_the_weights(order: int | None) -> None:
    runs = [records.run(1 + seed, TrainConfig(shuffle=False, seed=seed, order_seed=order)) for seed in range(3)]
    groups, repeated = group(runs, ())
    assert "Row 1: the seeds are of the weights alone" in " ".join(group_notes(groups, (), repeated))
    assert "over 3 seeds of the weights alone" in repeats_note(runs)
    assert settings_line(runs[0], together_with=runs).endswith("not shuffled, he, seeds 0 to 2")


def test_one_training_that_was_repeated_has_no_deviation() -> None:
    """An older klcli let the order of the images vary where nothing is shuffled."""
    runs = [records.run(1 + order, TrainConfig(shuffle=False, order_seed=order)) for order in range(3)]
    assert repeats_note(runs) == ""


def test_a_name_for_settings_is_none() -> None:
    a, b = TrainConfig(), TrainConfig(preset="course")
    assert differences(a, b) == {}
    assert settings_and_seeds(a) == settings_and_seeds(b)
    runs = [records.run(1, a), records.run(2, b)]
    assert [cells[0] for cells in comparison_table(runs, diff_only=True).cells()] == ["preset"]
