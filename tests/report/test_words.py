"""Words: the sizes equal those of the actual splits, and captions name the chosen settings."""

from dataclasses import replace

import numpy as np
import pytest
import records

from klcli.data.dataset import Dataset, split
from klcli.errors import StoreError
from klcli.report.words import numbered, options_words, repeats_note, settings_line, split_words, without_note
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.records import ImageSet


@pytest.mark.parametrize(
    "config",
    [
        SplitConfig(validation=50),
        SplitConfig(validation=50, subset=95),
        SplitConfig(validation=100, subset=1),
        SplitConfig(train_batches=(1,), validation_batches=(2,)),
        SplitConfig(validation_batches=(2, 5), subset=77),
        SplitConfig(validation=30, train_batches=(3, 4)),
    ],
)
def test_sizes(config: SplitConfig, small_dataset: Dataset) -> None:
    splits = split(small_dataset, config)
    assert config.sizes(200) == (len(splits.train), len(splits.validation), len(splits.test))
    assert np.unique(splits.train.rows).size == len(splits.train)


def test_words() -> None:
    assert split_words(SplitConfig()) == "45000 images train, 5000 validate"
    two_layer = SplitConfig(train_batches=(1,), validation_batches=(2,))
    assert split_words(two_layer) == "10000 images train, 10000 validate (train batch 1, validation batch 2)"
    drawn = [SplitConfig(split_seed=seed) for seed in (4, 5, 6)]
    assert split_words(drawn[0]) == "45000 images train, 5000 validate (drawn with split seed 4)"
    assert split_words(*drawn) == "45000 images train, 5000 validate (drawn with split seeds 4 to 6)"
    assert (numbered("study", [1]), numbered("study", [1, 2])) == ("study 1", "studies 1, 2")


def test_runs_that_are_not_in_a_mean_are_named() -> None:
    states = ("complete", "diverged", "diverged", "interrupted")
    repeats = [records.run(seed, TrainConfig(seed=seed), state=state) for seed, state in enumerate(states)]
    assert without_note(repeats) == "Not included: runs 1-2 (diverged), run 3 (interrupted)."
    assert without_note(repeats[:1]) == without_note([replace(repeats[1], state="complete"), repeats[0]]) == ""
    assert without_note(repeats[1:2]) == ""  # one seed has no mean: its state is in the table


def test_a_table_of_means_says_what_is_behind_the_sign_and_of_how_many_seeds() -> None:
    """The table of a sweep has no column with n, and a captioned ± could be a deviation, an error or an interval."""
    two = [records.run(1 + n, TrainConfig(seed=n % 2, batch_norm=n > 1)) for n in range(4)]
    assert repeats_note(two).startswith("Standard deviations (std, or ± after a mean) and intervals are over 2 seeds")
    ordered = [records.run(1 + n, TrainConfig(seed=0, order_seed=n)) for n in range(3)]
    assert "over 3 seeds of the order of the images" in repeats_note(ordered)
    assert repeats_note(two[::2]) == ""


@pytest.mark.parametrize("stored", ['{"subseT": null}', '{"validation": 0}', "[1]"])
def test_a_stored_split_that_is_none_is_a_damaged_database(stored: str) -> None:
    with pytest.raises(StoreError, match="settings that cannot be read"):
        _ = ImageSet(dataset="cifar10", dataset_sha256="a", split_json=stored, runs=1, latest=1).split


def test_a_caption_has_every_setting_that_was_chosen() -> None:
    line = (
        "cifar10, 45000 images train, 5000 validate, lambda 0.005, eta 1e-05 to 0.1, {}, n_s 2250, n_batch 100, he, {}"
    )
    assert settings_line(records.run()) == line.format("2 cycles of 2 n_s", "seed 0")
    assert settings_line(records.run(config=TrainConfig(cycles=1))) == line.format("1 cycle of 2 n_s", "seed 0")
    repeats = [records.run(config=TrainConfig(seed=seed, order_seed=0)) for seed in range(3)]
    assert settings_line(repeats[0], together_with=repeats[1:]) == (
        line.format("2 cycles of 2 n_s", "seeds 0 to 2, order seed 0")
    )
    constant = records.run(config=TrainConfig(schedule="constant", epochs=1, momentum=0.9, shuffle=False))
    assert settings_line(constant, omit=("images", "lambda", "n_batch")) == (  # without cycles, no n_s
        "eta 0.1, constant over 1 epoch, momentum 0.9, not shuffled, he, seed 0"
    )


def test_options_are_what_is_not_the_default() -> None:
    assert options_words(TrainConfig()) == ""
    config = TrainConfig(flip=True, dropout=0.1, dtype="float64", evaluations_per_cycle=4, bn_momentum=0.5)
    assert options_words(config) == "flips, dropout 0.1, evaluations per cycle 4, dtype float64"  # without BN
    assert (
        options_words(replace(config, batch_norm=True))
        == "BN momentum 0.5, flips, dropout 0.1, evaluations per cycle 4, dtype float64"
    )


def test_what_deviations_are_over_is_said_if_there_are_any() -> None:
    runs = [records.run(n, TrainConfig(seed=n), state="complete" if n < 2 else "diverged") for n in range(3)]
    assert repeats_note(runs).startswith(
        "Standard deviations (std, or ± after a mean) and intervals are over 2 seeds of everything"
    )
    other = records.run(4, TrainConfig(seed=4, lam=0.1))
    assert repeats_note([*runs[1:], other]) == repeats_note(runs[2:]) == ""
    assert without_note(runs[1:]) == "Not included: run 2 (diverged)."
