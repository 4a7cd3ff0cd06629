"""Plans: repeats differ in their seeds alone; a sweep has every sigma without and with BN."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from klcli.errors import ConfigError
from klcli.published.planning import repeated
from klcli.settings.sameness import settings_and_seeds, stack_key, without_seeds
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.studies.plans import repeat, sigma_sweep

SIGMAS = (1e-1, 1e-3, 1e-4)
BASE = TrainConfig(hidden=(20, 10), seed=3, lam=0.01)


def seeds(configs: list[TrainConfig]) -> list[tuple[int, int]]:
    """The seed of the weights, and that of all else, of each config."""
    return [(config.seed, config.shared_seed) for config in configs]


def test_each_repeat_is_the_training_with_the_next_seed() -> None:
    base = TrainConfig(seed=7, lam=0.01, hidden=(20,))
    assert repeat(base, 3) == [base, replace(base, seed=8), replace(base, seed=9)]


@pytest.mark.parametrize(
    ("vary", "expected"),
    [("all", [(7, 7), (8, 8), (9, 9)]), ("init", [(7, 7), (8, 7), (9, 7)]), ("order", [(7, 7), (7, 8), (7, 9)])],
)
def test_what_varies(vary: str, expected: list[tuple[int, int]]) -> None:
    base = TrainConfig(seed=7)
    assert seeds(repeat(base, 3, vary)) == expected
    assert {replace(config, seed=7, order_seed=None) for config in repeat(base, 3, vary)} == {base}


@pytest.mark.parametrize(
    ("vary", "expected"), [("all", [(7, 3), (8, 4)]), ("init", [(7, 3), (8, 3)]), ("order", [(7, 3), (7, 4)])]
)
def test_an_order_seed_of_its_own_is_the_first_one(vary: str, expected: list[tuple[int, int]]) -> None:
    assert seeds(repeat(TrainConfig(seed=7, order_seed=3), 2, vary)) == expected


@pytest.mark.parametrize(
    ("settings", "vary", "said"),
    [
        ({"seed": 2**63 - 1}, "all", f"--seed {2**63 - 1}: 3 repeats count up from it, give at most {2**63 - 3}"),
        ({"seed": 2**63 - 2}, "order", f"--seed {2**63 - 2}: "),
        ({"order_seed": 2**63 - 2}, "all", f"--order-seed {2**63 - 2}: "),
        ({"seed": 2**32}, "split", f"--seed {2**32}: 3 repeats count up from it, give at most {2**32 - 3}"),
        ({"split": SplitConfig(split_seed=2**32 - 1)}, "split", f"--split-seed {2**32 - 1}: "),
    ],
)
def test_seeds_that_cannot_rise_are_refused_with_the_one_that_was_given(
    settings: dict[str, Any], vary: str, said: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        repeat(TrainConfig(**settings), 3, vary)
    assert str(refusal.value).startswith(said)
    assert len(repeat(TrainConfig(seed=2**63 - 3, split=SplitConfig(split_seed=2**32 - 1)), 3)) == 3


def test_one_repeat_is_the_training_itself() -> None:
    assert repeat(TrainConfig(seed=4), 1) == [TrainConfig(seed=4)]


@pytest.mark.parametrize(("own", "expected"), [(None, [7, 8]), (3, [3, 4])])
def test_every_repeat_has_a_split_of_its_own(own: int | None, expected: list[int]) -> None:
    base = TrainConfig(seed=7, split=SplitConfig(split_seed=own))
    repeats = repeat(base, 2, "split")
    assert [config.split.split_seed for config in repeats] == expected
    assert seeds(repeats) == [(7, 7), (8, 8)]
    assert len({stack_key(config) for config in repeats}) == 2
    assert {without_seeds(config) for config in repeats} == {without_seeds(base)}
    assert settings_and_seeds(repeats[0]) != settings_and_seeds(replace(repeats[0], split=SplitConfig()))


@pytest.mark.parametrize(
    ("settings", "is_refused"),
    [
        ({}, True),
        ({"shuffle": True}, False),
        ({"flip": True}, False),
        ({"shift": 1}, False),
        ({"contrast": 0.1}, False),
        ({"mixup": 0.2}, False),
        ({"dropout": 0.1}, False),
        ({"batch_norm": True}, True),
        ({"batch_norm": True, "bn_statistics": "precise"}, False),
        ({"batch_norm": True, "bn_statistics": "batch"}, True),
    ],
)
def test_an_order_that_nothing_follows_cannot_vary(settings: dict[str, Any], is_refused: bool) -> None:
    config = TrainConfig(**{"shuffle": False} | settings)
    with pytest.raises(ConfigError, match=r"--vary order.*omit --no-shuffle") if is_refused else nullcontext():
        repeat(config, 2, "order")
    assert len(repeat(config, 2, "all")) == 2


def test_a_split_of_whole_batch_files_cannot_vary() -> None:
    with pytest.raises(ConfigError, match=r"--vary split.*--validation-batches 2"):
        repeat(TrainConfig(split=SplitConfig(validation_batches=(2,))), 2, "split")


@pytest.mark.parametrize("vary", ["order", "split"])
def test_the_repeats_of_a_report_differ_in_everything_where_it_draws_nothing_else(vary: str) -> None:
    fixed = TrainConfig(shuffle=False, split=SplitConfig(validation_batches=(2,)))
    assert repeated(fixed, 3, vary) == repeat(fixed, 3)
    assert repeated(TrainConfig(), 3, vary) == repeat(TrainConfig(), 3, vary) != repeat(TrainConfig(), 3)


@pytest.mark.parametrize("vary", ["init", "order", "split"])
def test_a_single_training_varies_nothing(vary: str) -> None:
    with pytest.raises(ConfigError, match=f"--vary {vary}.*--repeats 2"):
        repeat(TrainConfig(), 1, vary)


@pytest.mark.parametrize("vary", ["", "weights", "ALL"])
def test_an_unknown_kind_of_repeat_is_refused_with_the_known_ones(vary: str) -> None:
    with pytest.raises(ConfigError, match=f"--vary '{vary}': choose one of all, init, order, split"):
        repeat(TrainConfig(), 3, vary)


@pytest.mark.parametrize("repeats", [0, -3, 1001, 10**30])
def test_no_repeat_and_too_many_are_refused(repeats: int) -> None:
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


@pytest.mark.parametrize(("vary", "seed_of_order"), [("all", {3: 3, 4: 4}), ("init", {3: 3, 4: 3})])
def test_with_and_without_bn_share_the_order_of_the_images(vary: str, seed_of_order: dict[int, int]) -> None:
    configs = sigma_sweep(BASE, SIGMAS, repeats=2, vary=vary)
    assert {config.seed: config.shared_seed for config in configs} == seed_of_order
    for seed, batch_norm in product((3, 4), (False, True)):
        one_stack = {stack_key(one) for one in configs if (one.seed, one.batch_norm) == (seed, batch_norm)}
        assert len(one_stack) == 1


def test_a_sigma_given_twice_is_trained_once() -> None:
    """Twice the same training would look like two repeats without any spread."""
    assert sigma_sweep(BASE, (0.1, 0.01, 0.1), repeats=1) == sigma_sweep(BASE, (0.1, 0.01), repeats=1)


@pytest.mark.parametrize("sigmas", [(), (0.1, -1.0), (0.0,), (float("nan"),), (float("inf"),)])
def test_sigmas_that_draw_no_weights_are_refused(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="sigma"):
        sigma_sweep(BASE, sigmas, repeats=1)
