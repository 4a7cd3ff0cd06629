"""Repeats differ in the seed of the weights, and in nothing else."""

from dataclasses import replace

import pytest

from klcli.errors import ConfigError
from klcli.settings.train_config import TrainConfig
from klcli.studies.repeats import repeat


def test_repeats_differ_in_the_seed_of_the_weights_alone() -> None:
    base = TrainConfig(seed=7, lam=0.01, hidden=(20,))
    repeats = repeat(base, 3)
    assert [config.seed for config in repeats] == [7, 8, 9]
    assert [config.order_seed for config in repeats] == [7, 7, 7]
    assert {replace(config, seed=7, order_seed=None) for config in repeats} == {base}


def test_an_order_seed_that_was_asked_for_stays() -> None:
    assert [config.order_seed for config in repeat(TrainConfig(seed=7, order_seed=3), 2)] == [3, 3]


def test_one_repeat_is_the_training_itself_with_its_order_written_down() -> None:
    assert repeat(TrainConfig(seed=4), 1) == [TrainConfig(seed=4, order_seed=4)]


@pytest.mark.parametrize("repeats", [0, -3])
def test_no_repeat_is_refused(repeats: int) -> None:
    with pytest.raises(ConfigError, match=f"repeats {repeats}"):
        repeat(TrainConfig(), repeats)
