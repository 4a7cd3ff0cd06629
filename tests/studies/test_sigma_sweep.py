"""The plan of a sweep: every sigma without and with BN, on the same seeds."""

from collections import Counter
from dataclasses import replace

import pytest

from klcli.errors import ConfigError
from klcli.settings.train_config import TrainConfig
from klcli.studies.sigma_sweep import plan

SIGMAS = (1e-1, 1e-3, 1e-4)
BASE = TrainConfig(hidden=(20, 10), seed=3, lam=0.01)


def test_every_sigma_without_and_with_bn_and_every_repeat_once() -> None:
    configs = plan(BASE, SIGMAS, repeats=2)
    cases = Counter((config.sigma, config.batch_norm, config.seed) for config in configs)
    assert cases == {(sigma, bn, seed): 1 for sigma in (0.1, 0.001, 0.0001) for bn in (False, True) for seed in (3, 4)}
    assert {config.initializer for config in configs} == {"normal"}
    rest = {
        replace(config, initializer="he", sigma=None, batch_norm=False, seed=3, order_seed=None) for config in configs
    }
    assert rest == {BASE}


def test_with_and_without_bn_share_the_order_of_the_images() -> None:
    assert {config.order_seed for config in plan(BASE, SIGMAS, repeats=3)} == {3}


def test_a_sigma_given_twice_is_trained_once() -> None:
    """Twice the same training would look like two repeats without any spread."""
    assert plan(BASE, (0.1, 0.01, 0.1), repeats=1) == plan(BASE, (0.1, 0.01), repeats=1)


@pytest.mark.parametrize("sigmas", [(), (0.1, -1.0), (0.0,), (float("nan"),), (float("inf"),)])
def test_sigmas_that_draw_no_weights_are_refused(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="sigma"):
        plan(BASE, sigmas, repeats=1)
