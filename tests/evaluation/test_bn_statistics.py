"""The statistics of BN against one float64 forward of all images at once, and against PyTorch."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from klcli.data.augmentation import mirror, mirrored
from klcli.data.dataset import Dataset, Split, Splits, split
from klcli.engine.network import Network, stack
from klcli.evaluation import metrics as evaluation
from klcli.evaluation.bn_statistics import with_policy, with_statistics_of
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.training.networks import initialize
from klcli.training.result import Snapshot, TrainResult
from klcli.training.trainer import train

SPLIT = SplitConfig(validation=100)
CONFIG = TrainConfig(
    hidden=(8, 6), batch_norm=True, split=SPLIT, dtype="float64", epochs=2, batch_size=50, order_seed=3
)


@pytest.fixture(scope="module")
def splits(small_dataset: Dataset) -> Splits:
    return split(small_dataset, SPLIT)


@pytest.fixture(autouse=True)
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "ROWS", 64)  # so that blocks of uneven length are joined


def trained(splits: Splits, **settings: Any) -> TrainResult:
    [result] = train([replace(CONFIG, **settings)], splits)
    return result


def by_hand(network: Network, X: np.ndarray, position: str = "before") -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Statistics of every BN layer and the scores, from one forward of all images as a single batch."""
    state, found = network.state(), {}
    for k in (1, 2):
        X = X @ state[f"linear{k}.W"] + state[f"linear{k}.b"]
        X = np.maximum(X, 0) if position == "after" else X
        mean, variance = X.mean(axis=0), np.mean((X - X.mean(axis=0)) ** 2, axis=0)
        found |= {f"batch_norm{k}.running_mean": mean, f"batch_norm{k}.running_variance": variance}
        X = (X - mean) / np.sqrt(variance + 1e-8)
        X = X * state[f"batch_norm{k}.gamma"] + state[f"batch_norm{k}.beta"]
        X = X if position == "after" else np.maximum(X, 0)
    return found, X @ state["linear3.W"] + state["linear3.b"]


def pixels(part: Split) -> np.ndarray:
    return (part.images[part.rows].astype(np.float64) - part.mean) * part.inverse_std


@pytest.mark.parametrize("position", ["before", "after"])
def test_precise_statistics_are_those_of_one_large_batch(splits: Splits, position: str) -> None:
    ema = trained(splits, bn_position=position)
    precise = trained(splits, bn_position=position, bn_statistics="precise")
    expected, _ = by_hand(ema.network, pixels(splits.train), position)  # of all 900: fewer than 10 000 are there
    for name, array in precise.network.state().items():
        if "running" in name:
            assert array == pytest.approx(expected[name], rel=1e-10, abs=1e-12)
            assert array != pytest.approx(ema.network.state()[name], rel=1e-3)
        else:
            np.testing.assert_array_equal(array, ema.network.state()[name])  # the training itself is the same
    assert precise.epochs[0].validation == ema.epochs[0].validation
    assert precise.epochs[1].validation != ema.epochs[1].validation


def test_the_last_metrics_are_those_of_the_new_statistics(splits: Splits) -> None:
    """By the formulas of a network in evaluation, in float64, with SciPy's log-softmax."""
    result = trained(splits, bn_statistics="precise")
    state = result.network.state()
    averages, _ = by_hand(result.network, pixels(splits.train))
    for part, metrics in ((splits.validation, result.epochs[-1].validation), (splits.test, result.test)):
        assert metrics is not None
        X = pixels(part)
        for k in (1, 2):
            X = X @ state[f"linear{k}.W"] + state[f"linear{k}.b"]
            mean, variance = (averages[f"batch_norm{k}.running_{name}"] for name in ("mean", "variance"))
            X = state[f"batch_norm{k}.gamma"] * (X - mean) / np.sqrt(variance + 1e-8) + state[f"batch_norm{k}.beta"]
            X = np.maximum(X, 0)
        log_P = log_softmax(X @ state["linear3.W"] + state["linear3.b"], axis=1)
        assert metrics.loss == pytest.approx(-log_P[np.arange(len(part)), part.labels].mean(), rel=1e-9)
        assert metrics.accuracy == (log_P.argmax(axis=1) == part.labels).mean()


def test_a_drawn_sample_is_a_part_of_the_training_images(splits: Splits) -> None:
    """Statistics of 40 images: the images are found again, because the first layer passes a pixel through."""
    network = initialize(replace(CONFIG, hidden=(1,)))
    network.load_state(network.state() | {"linear1.W": np.eye(3072, 1)})
    first, again, other = (
        with_policy(network, "precise", 40, splits, seed, "float64").state()["batch_norm1.running_mean"]
        for seed in (1, 1, 2)
    )
    assert first == again != other
    values = pixels(splits.train)[:, 0]
    assert abs(first[0] - values.mean()) < 5 * values.std() / np.sqrt(40)


def test_adaptive_statistics_are_those_of_half_mirrored_test_images(splits: Splits) -> None:
    """A pixel at the left edge and its mirror image: their statistics meet half way."""
    images = np.zeros((1200, 3, 32, 32), np.uint8)
    images[..., 0] = 200  # every image bright at the left edge alone
    test = replace(splits.test, images=images.reshape(1200, 3072), mean=np.zeros(3072), inverse_std=np.ones(3072))
    network = initialize(replace(CONFIG, hidden=(2,)))
    W = np.zeros((3072, 2))
    W[0, 0] = W[31, 1] = 1
    network.load_state(network.state() | {"linear1.W": W})
    found = with_policy(network, "adaptive", 1000, replace(splits, test=test), 1, "float64").state()
    left, right = found["batch_norm1.running_mean"]
    assert left + right == pytest.approx(200)  # each image is bright at one of the two
    assert len(test) == 200 and abs(left - 100) < 4 * 100 / np.sqrt(200)
    share = left / 200
    assert found["batch_norm1.running_variance"] == pytest.approx(200**2 * share * (1 - share))


def test_batch_statistics_are_those_of_the_evaluated_images(splits: Splits) -> None:
    result = trained(splits, bn_statistics="batch")
    assert result.test is not None
    for part, metrics in ((splits.validation, result.epochs[-1].validation), (splits.test, result.test)):
        _, scores = by_hand(result.network, pixels(part))
        log_sum = np.log(np.exp(scores).sum(axis=1))
        assert metrics.loss == pytest.approx(np.mean(log_sum - scores[np.arange(len(part)), part.labels]))
        assert metrics.accuracy == np.mean(scores.argmax(axis=1) == part.labels)
    ema = trained(splits)
    for name, array in ema.network.state().items():  # the checkpoint keeps the running averages
        np.testing.assert_array_equal(array, result.network.state()[name])


def test_every_replica_gets_the_statistics_it_has_alone(splits: Splits) -> None:
    networks = [initialize(replace(CONFIG, seed=seed)) for seed in (1, 2, 3)]
    together = with_statistics_of(stack(networks), splits.validation, "float64")
    for index, network in enumerate(networks):
        expected, _ = by_hand(network, pixels(splits.validation))
        for name, array in expected.items():
            assert together.replica(index).state()[name] == pytest.approx(array, rel=1e-10)


def test_a_run_that_was_stopped_before_the_test_split_ends_with_the_same_bits(splits: Splits) -> None:
    config = replace(CONFIG, bn_statistics="adaptive", dtype="float32")
    [whole] = train([config], splits)
    [before] = train([config], splits, evaluate_test=False)
    snapshot = Snapshot(before.step, before.network.state(), tuple(before.epochs))
    [resumed] = train([config], splits, snapshot=snapshot)
    assert resumed.test == whole.test
    assert resumed.epochs == before.epochs


def test_without_batch_normalisation_there_is_nothing_to_replace(splits: Splits) -> None:
    network = initialize(replace(CONFIG, batch_norm=False))
    again = with_policy(network, "precise", 50, splits, 0, "float64")
    for name, array in network.state().items():
        assert again.state()[name] is array


def test_mirror_turns_every_channel_and_row() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 3072)).astype(np.uint8)
    found = mirror(images)
    for image, turned in zip(images, found, strict=True):
        for channel in range(3):
            for row in range(32):
                start = channel * 1024 + row * 32
                assert list(turned[start : start + 32]) == list(image[start : start + 32])[::-1]


def test_only_the_named_images_are_mirrored_and_the_others_stay(splits: Splits) -> None:
    before = splits.test.images.copy()
    which = np.arange(len(splits.test)) % 3 == 0
    found = mirrored(splits.test, which)
    X, y = found.batch(slice(None), np.float64)
    own, labels = splits.test.batch(slice(None), np.float64)
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_array_equal(X[~which], own[~which])
    turned = mirror(splits.test.images[splits.test.rows][which])
    expected = (turned - splits.test.mean) * splits.test.inverse_std
    np.testing.assert_allclose(X[which], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(before, splits.test.images)
