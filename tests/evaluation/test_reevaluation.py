"""Reevaluation: probabilities averaged by hand in float64, and settings that are refused."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from klcli.data.dataset import Dataset, Split, Splits, split
from klcli.engine.network import Network
from klcli.errors import ConfigError, Diverged
from klcli.evaluation.metrics import Score, log_mean
from klcli.evaluation.reevaluation import TrainedNetwork, reevaluate
from klcli.settings.procedures import EvaluationSettings
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.training.networks import restore
from klcli.training.result import TrainResult
from klcli.training.trainer import train

SPLIT = SplitConfig(validation=100)
CONFIG = TrainConfig(
    hidden=(8, 6), batch_norm=True, split=SPLIT, dtype="float64", epochs=1, batch_size=100, order_seed=3
)


@pytest.fixture(scope="module")
def splits(small_dataset: Dataset) -> Splits:
    return split(small_dataset, SPLIT)


@pytest.fixture(scope="module")
def results(splits: Splits) -> list[TrainResult]:
    return train([replace(CONFIG, seed=seed) for seed in (1, 2)], splits)


@pytest.fixture
def networks(results: list[TrainResult]) -> list[TrainedNetwork]:
    return [
        TrainedNetwork(f"run {i}", result.config, restore(result.config, result.network.state()))
        for i, result in enumerate(results, start=1)
    ]


def pixels(part: Split, *, mirror: bool = False) -> np.ndarray:
    images = part.images[part.rows].astype(np.float64)
    if mirror:
        images = np.flip(images.reshape(-1, 32), axis=1).reshape(images.shape)
    return (images - part.mean) * part.inverse_std


def probabilities(network: Network, X: np.ndarray, statistics_from: np.ndarray | None = None) -> np.ndarray:
    """With the running averages, or with the mean and variance of other images, all in float64."""
    state = network.state()
    Z = statistics_from
    for k in (1, 2):
        W, b = state[f"linear{k}.W"], state[f"linear{k}.b"]
        X = X @ W + b
        mean, variance = state[f"batch_norm{k}.running_mean"], state[f"batch_norm{k}.running_variance"]
        if Z is not None:
            Z = Z @ W + b
            mean, variance = Z.mean(axis=0), Z.var(axis=0)
            Z = _normalised(Z, mean, variance, state, k)
        X = _normalised(X, mean, variance, state, k)
    S = np.exp(X @ state["linear3.W"] + state["linear3.b"])
    return S / S.sum(axis=1, keepdims=True)


def _normalised(X: np.ndarray, mean: np.ndarray, variance: np.ndarray, state: Any, k: int) -> np.ndarray:
    X = (X - mean) / np.sqrt(variance + 1e-8) * state[f"batch_norm{k}.gamma"] + state[f"batch_norm{k}.beta"]
    return np.maximum(X, 0)


def expected(P: np.ndarray, part: Split) -> Score:
    right = P.argmax(axis=1) == part.labels
    return Score(pytest.approx(-np.log(P[np.arange(len(part)), part.labels]).mean(), rel=1e-9), right.mean())


def test_a_network_as_it_was_trained_gives_what_it_gave(
    networks: list[TrainedNetwork], results: list[TrainResult], splits: Splits
) -> None:
    for one, result in zip(networks, results, strict=True):
        found = reevaluate([one], splits, EvaluationSettings())
        assert result.test is not None
        assert found.test == Score(pytest.approx(result.test.loss, rel=1e-9), result.test.accuracy)
        assert (found.policy, found.samples, found.transductive) == ("ema", None, False)


def test_flips_and_networks_are_averaged_as_probabilities(networks: list[TrainedNetwork], splits: Splits) -> None:
    found = reevaluate(networks, splits, EvaluationSettings(flips=True))
    for part, score in ((splits.validation, found.validation), (splits.test, found.test)):
        views = [pixels(part), pixels(part, mirror=True)]
        P = np.mean([probabilities(one.network, X) for one in networks for X in views], axis=0)
        assert score == expected(P, part)


def test_moved_images_are_averaged_as_well(networks: list[TrainedNetwork], splits: Splits) -> None:
    """The mean image moves in: 0 up to the rounding of a byte, so moved after the standardisation by hand."""
    found = reevaluate(networks[:1], splits, EvaluationSettings(flips=True, shifts=2))
    background = np.rint(splits.test.mean).astype(np.uint8).reshape(3, 32, 32)
    images = splits.test.images[splits.test.rows].reshape(-1, 3, 32, 32)
    views = []
    for down, right in ((0, 0), (2, 0), (-2, 0), (0, 2), (0, -2)):
        moved = np.roll(images, (down, right), axis=(2, 3))
        rows, columns = np.arange(32) - down, np.arange(32) - right
        outside = ((rows < 0) | (rows > 31))[:, None] | ((columns < 0) | (columns > 31))
        moved = np.where(outside, background, moved)
        views += [moved, moved[..., ::-1]]
    P = np.mean(
        [
            probabilities(networks[0].network, (view.reshape(-1, 3072) - splits.test.mean) * splits.test.inverse_std)
            for view in views
        ],
        axis=0,
    )
    assert found.test == expected(P, splits.test)


def by_image(part: Split) -> np.ndarray:
    images = part.images[part.rows].astype(np.float64)
    return (images - images.mean(axis=1, keepdims=True)) / images.std(axis=1, keepdims=True)


def test_every_network_sees_the_images_as_it_was_trained_on_them(
    networks: list[TrainedNetwork], splits: Splits
) -> None:
    config = replace(CONFIG, seed=1, standardise="image", shuffle=False)
    [result] = train([config], splits)
    other = TrainedNetwork("run 3", config, restore(config, result.network.state()))
    for part, metrics in ((splits.train, result.epochs[-1].train), (splits.test, result.test)):
        score = expected(probabilities(other.network, by_image(part)), part)
        assert (metrics.loss, metrics.accuracy) == (score.loss, score.accuracy)
    both = reevaluate([networks[0], other], splits, EvaluationSettings())
    P = [probabilities(networks[0].network, pixels(splits.test)), probabilities(other.network, by_image(splits.test))]
    assert both.test == expected(np.mean(P, axis=0), splits.test)
    batch = reevaluate([other], splits, EvaluationSettings(bn_statistics="batch"))
    X = by_image(splits.test)
    assert batch.test == expected(probabilities(other.network, X, X), splits.test)
    precise = reevaluate([other], splits, EvaluationSettings(bn_statistics="precise"))
    assert precise.test == expected(probabilities(other.network, X, by_image(splits.train)), splits.test)


def test_other_statistics_are_used_and_counted(networks: list[TrainedNetwork], splits: Splits) -> None:
    precise = reevaluate(networks[:1], splits, EvaluationSettings(bn_statistics="precise"))
    P = probabilities(networks[0].network, pixels(splits.test), pixels(splits.train))
    assert precise.test == expected(P, splits.test)
    assert (precise.policy, precise.samples, precise.transductive) == ("precise", 900, False)

    batch = reevaluate(networks[:1], splits, EvaluationSettings(bn_statistics="batch", flips=True))
    views = [pixels(splits.test), pixels(splits.test, mirror=True)]
    P = np.mean([probabilities(networks[0].network, X, X) for X in views], axis=0)
    assert batch.test == expected(P, splits.test)
    assert (batch.policy, batch.samples, batch.transductive) == ("batch", None, True)

    adaptive = reevaluate(networks[:1], splits, EvaluationSettings(bn_statistics="adaptive", bn_samples=50, seed=4))
    assert (adaptive.policy, adaptive.samples, adaptive.transductive) == ("adaptive", 50, True)


def test_a_run_that_ended_with_batch_statistics_keeps_them(networks: list[TrainedNetwork], splits: Splits) -> None:
    own = replace(networks[0], config=replace(networks[0].config, bn_statistics="batch"))
    found = reevaluate([own], splits, EvaluationSettings())
    assert found.policy == "batch"
    assert found.test == expected(probabilities(own.network, pixels(splits.test), pixels(splits.test)), splits.test)
    mixed = reevaluate([own, networks[1]], splits, EvaluationSettings())
    assert (mixed.policy, mixed.transductive) == ("batch ema", True)


@pytest.mark.parametrize(("policy", "n"), [("batch", 1), ("adaptive", 1), ("precise", 2)])
def test_statistics_of_a_single_image_are_refused(
    networks: list[TrainedNetwork], splits: Splits, policy: str, n: int
) -> None:
    one = replace(splits.test, rows=splits.test.rows[:1], labels=splits.test.labels[:1])
    few, settings = replace(splits, test=one), EvaluationSettings(bn_statistics=policy)
    with pytest.raises(ConfigError, match="of a single image") if n == 1 else nullcontext():
        reevaluate(networks[:1], few, settings)
    own = replace(networks[0], config=replace(networks[0].config, bn_statistics=policy))
    assert reevaluate([own], few, EvaluationSettings()).policy == policy  # an earlier klcli has trained such networks


def test_a_loss_that_is_not_finite_is_no_evaluation(networks: list[TrainedNetwork], splits: Splits) -> None:
    arrays = networks[0].network.state()
    last = max(name for name in arrays if name.endswith(".W"))
    broken = replace(networks[0], network=restore(networks[0].config, arrays | {last: arrays[last] * np.nan}))
    with pytest.raises(Diverged, match="run 1: the loss is not finite"):
        reevaluate([broken], splits, EvaluationSettings())


def test_the_seed_decides_which_images_are_drawn(networks: list[TrainedNetwork], splits: Splits) -> None:
    losses = [
        reevaluate(
            networks[:1], splits, EvaluationSettings(bn_statistics="precise", bn_samples=30, seed=seed)
        ).test.loss
        for seed in (1, 1, 2, 3, None)
    ]
    assert losses[0] == losses[1] != losses[2]
    assert losses[3] == losses[4]  # the order seed of the run


def test_the_mean_of_probabilities_does_not_underflow() -> None:
    log_P = [np.array([[-2000.0, -1e-300]]), np.array([[-2001.0, -1e-300]])]
    exact = -2000 + np.log((1 + np.exp(-1)) / 2)
    assert log_mean(log_P)[0, 0] == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"bn_statistics": "exact"}, "exact"),
        ({"bn_samples": 50}, "--bn-statistics"),
        ({"bn_statistics": "precise", "bn_samples": 1}, "1"),
        ({"bn_statistics": "batch", "bn_samples": 50}, "50"),
        ({"seed": 1}, "--seed 1"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        EvaluationSettings(**settings)


def test_what_a_network_does_not_have_is_refused(networks: list[TrainedNetwork], splits: Splits) -> None:
    other = replace(networks[0], config=replace(networks[0].config, bn_statistics="precise"))
    with pytest.raises(ConfigError, match="run 1 ended with precise statistics"):
        reevaluate([other], splits, EvaluationSettings(bn_statistics="ema"))
