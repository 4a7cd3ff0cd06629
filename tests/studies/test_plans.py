"""Plans: repeats differ in the seed of the weights alone; a sweep has every sigma without and with BN."""

from collections import Counter
from dataclasses import replace

import pytest

from klcli.errors import ConfigError
from klcli.settings.train_config import TrainConfig
from klcli.studies.plans import repeat, sigma_sweep

SIGMAS = (1e-1, 1e-3, 1e-4)
BASE = TrainConfig(hidden=(20, 10), seed=3, lam=0.01)


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


def test_every_sigma_without_and_with_bn_and_every_repeat_once() -> None:
    configs = sigma_sweep(BASE, SIGMAS, repeats=2)
    cases = Counter((config.sigma, config.batch_norm, config.seed) for config in configs)
    assert cases == {(sigma, bn, seed): 1 for sigma in (0.1, 0.001, 0.0001) for bn in (False, True) for seed in (3, 4)}
    assert {config.initializer for config in configs} == {"normal"}
    rest = {
        replace(config, initializer="he", sigma=None, batch_norm=False, seed=3, order_seed=None) for config in configs
    }
    assert rest == {BASE}


def test_with_and_without_bn_share_the_order_of_the_images() -> None:
    assert {config.order_seed for config in sigma_sweep(BASE, SIGMAS, repeats=3)} == {3}


def test_a_sigma_given_twice_is_trained_once() -> None:
    """Twice the same training would look like two repeats without any spread."""
    assert sigma_sweep(BASE, (0.1, 0.01, 0.1), repeats=1) == sigma_sweep(BASE, (0.1, 0.01), repeats=1)


@pytest.mark.parametrize("sigmas", [(), (0.1, -1.0), (0.0,), (float("nan"),), (float("inf"),)])
def test_sigmas_that_draw_no_weights_are_refused(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="sigma"):
        sigma_sweep(BASE, sigmas, repeats=1)
