"""train: determinism, replicas against the same config alone, divergence, and the conditions that end a training."""

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from klcli.data.dataset import Dataset, Splits, split
from klcli.evaluation import metrics as evaluation
from klcli.evaluation.metrics import Metrics
from klcli.settings.sameness import differences
from klcli.settings.setting import with_values
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.training.networks import initialize
from klcli.training.result import EpochMetrics, TrainResult
from klcli.training.trainer import train

SPLIT = SplitConfig(validation=200, subset=400)
# 100 updates that end two cycles, at 8 updates an epoch.
HUNDRED = TrainConfig(
    hidden=(12, 9), batch_norm=True, batch_size=50, step_size=25, cycles=2, evaluations_per_cycle=1,
    lam=0.01, order_seed=11, dtype="float64", split=SPLIT,
)  # fmt: skip


@pytest.fixture(scope="module")
def splits(small_dataset: Dataset) -> Splits:
    return split(small_dataset, SPLIT)


def without_seconds(result: TrainResult) -> list[EpochMetrics]:
    return [replace(epoch, seconds=0.0) for epoch in result.epochs]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_config_twice_gives_the_same_bits(splits: Splits, dtype: str) -> None:
    config = replace(HUNDRED, dtype=dtype, order_seed=None, cycles=1)
    [first], [again] = train([config], splits), train([config], splits)
    assert without_seconds(first) == without_seconds(again)
    assert first.test == again.test
    for name, array in first.network.parameters().items():
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, again.network.parameters()[name])


@pytest.mark.parametrize(
    ("without", "other"),
    [
        ({}, {"bn_position": "after", "bn_momentum": 0.5, "bn_eps": 0.1, "bn_statistics": "precise", "bn_samples": 5}),
        ({}, {"whitening_eps": 1.0}),
        (
            {"batch_norm": True, "bn_statistics": "precise", "evaluations_per_cycle": 0, "snapshots": True},
            {"bn_momentum": 0.5},
        ),
        ({"schedule": "constant"}, {"eta_min": 0.01}),
        ({"epochs": None, "cycles": 1, "step_size": 3}, {"eta_decay": 0.5}),
        ({"shift": 1, "contrast": 0.1}, {"weak_augmentation": 0.5}),
        ({"shuffle": False}, {"order_seed": 9}),
        ({"split": SplitConfig(validation_batches=(2,), subset=100)}, {"split.validation": 9}),
        ({"step_size": 3}, {"step_epochs": 1.0}),
        ({"schedule": "one-cycle"}, {"step_epochs": 1.0, "step_size": 7, "cycles": 3}),
        ({"schedule": "one-cycle", "evaluations_per_cycle": 3}, {"step_epochs": 1.0, "step_size": 7, "cycles": 3}),
    ],
    ids=[
        "without BN",
        "without whitening",
        "one evaluation",
        "constant",
        "one cycle",
        "weak",
        "in order",
        "batch files",
        "n_s",
        "length in epochs",
        "evaluations of the whole training",
    ],
)
def test_settings_without_an_effect_change_no_bit(
    small_dataset: Dataset, without: dict[str, Any], other: dict[str, Any]
) -> None:
    config = replace(TrainConfig(hidden=(7,), batch_size=20, epochs=2, split=SPLIT), **without)
    changed = with_values(config, other)
    assert other.keys() <= config.without_effect
    assert differences(config, changed).keys() == other.keys()
    [first], [second] = [train([one], split(small_dataset, one.split)) for one in (config, changed)]
    assert without_seconds(first) == without_seconds(second)
    assert first.test == second.test


def test_with_what_they_need_they_have_an_effect() -> None:
    full = TrainConfig(batch_norm=True, whitening=9, schedule="one-cycle", shift=2)
    assert not full.unused()
    assert not replace(full, bn_statistics="batch", evaluations_per_cycle=0).unused()  # the checkpoint has the averages
    assert not replace(full, shuffle=False, contrast=0.2, shift=0).unused()


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"batch_size": 80},
        pytest.param({"hidden": (700, 30), "dropout": 0.1, "weight_average": 0.9}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "adam", "whitening": 60, "flip": True, "shift": 2}, marks=pytest.mark.slow),
        {"mixup": 0.2, "label_smoothing": 0.1, "momentum": 0.9, "dtype": "float64"},
        {"batch_size": 30, "hidden": (400, 120)},
    ],
    ids=["the defaults", "minibatches in parts", "wide", "Adam and whitening", "mixup and momentum", "two replicas"],
)
def test_a_helper_changes_no_bit(splits: Splits, setting: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(TrainConfig(batch_norm=True, batch_size=20, epochs=3, order_seed=1, split=SPLIT), **setting)
    replicas = [config, replace(config, lam=0.1, eta_max=0.05, seed=7)] if config.batch_size == 30 else [config]
    monkeypatch.setattr(evaluation, "ROWS", 57)  # 400 are 7 times 57 and one
    one, two = train(replicas, splits), train(replicas, splits, cores=2)
    for alone, helped in zip(one, two, strict=True):
        assert without_seconds(alone) == without_seconds(helped)
        state = helped.network.state()
        assert alone.network.state().keys() == state.keys()
        for name, array in alone.network.state().items():
            np.testing.assert_array_equal(array, state[name])


@pytest.mark.parametrize("more", [{}, {"optimizer": "adam", "weight_average": 0.9, "dtype": "float32", "dropout": 0.1}])
def test_an_evaluation_before_the_first_update_changes_no_bit(splits: Splits, more: dict[str, Any]) -> None:
    configs = [replace(HUNDRED, lam=lam, **more) for lam in (0.01, 0.1)]
    for plain, other in zip(train(configs, splits), train(configs, splits, evaluate_untrained=True), strict=True):
        first, *rest = without_seconds(other)
        assert rest == without_seconds(plain)
        assert other.test == plain.test
        for name, array in plain.network.state().items():
            np.testing.assert_array_equal(array, other.network.state()[name])
        untrained = initialize(plain.config)
        [expected] = evaluation.evaluate(untrained, splits.validation, [plain.config.lam], plain.config.dtype)
        assert (first.step, first.epoch, first.learning_rate) == (0, 0.0, plain.config.eta_min)
        assert asdict(first.validation) == pytest.approx(asdict(expected))


@pytest.mark.parametrize("other", [{"seed": 1}, {"order_seed": 12}])
def test_another_seed_gives_another_network(splits: Splits, other: dict[str, int]) -> None:
    config = replace(HUNDRED, cycles=1)
    [first], [second] = train([config], splits), train([replace(config, **other)], splits)
    assert first.epochs[-1].train.loss != second.epochs[-1].train.loss


def test_one_seed_draws_the_same_weights_in_either_precision() -> None:
    single, double = (initialize(replace(HUNDRED, dtype=dtype)).parameters() for dtype in ("float32", "float64"))
    for name, array in single.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, double[name].astype(np.float32))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_network_that_is_large_enough_overfits_a_hundred_images(small_dataset: Dataset, batch_norm: bool) -> None:
    config = TrainConfig(
        hidden=(50, 50), batch_norm=batch_norm, lam=0.0, batch_size=20, step_epochs=10, cycles=2,
        evaluations_per_cycle=1, split=SplitConfig(validation=100, subset=100),
    )  # fmt: skip
    [result] = train([config], split(small_dataset, config.split))
    assert result.epochs[-1].train.accuracy == 1.0
    assert result.epochs[-1].train.loss < 0.05


def test_an_untrained_network_with_tiny_weights_knows_nothing(splits: Splits) -> None:
    config = TrainConfig(initializer="normal", sigma=1e-4, epochs=0, split=SPLIT)
    [result] = train([config], splits)
    [epoch] = result.epochs
    assert (epoch.epoch, epoch.step, epoch.learning_rate) == (0, 0, config.eta_min)
    for metrics in (epoch.train, epoch.validation, result.test):
        assert metrics is not None
        assert metrics.loss == pytest.approx(math.log(10), abs=0.05)


def test_float32_and_float64_agree(splits: Splits) -> None:
    config = replace(HUNDRED, cycles=1)
    [single], [double] = (train([replace(config, dtype=dtype)], splits) for dtype in ("float32", "float64"))
    assert single.epochs[-1].train.loss == pytest.approx(double.epochs[-1].train.loss, rel=1e-3)
    assert single.epochs[-1].train.loss != double.epochs[-1].train.loss


def test_evaluations_are_stored_in_order_with_the_rate_of_the_last_update(splits: Splits) -> None:
    config = replace(HUNDRED, evaluations_per_cycle=2, eta_min=0.01, eta_max=0.06)
    [result] = train([config], splits)
    assert [epoch.step for epoch in result.epochs] == [25, 50, 75, 100]
    assert [epoch.epoch for epoch in result.epochs] == [25 / 8, 50 / 8, 75 / 8, 100 / 8]
    # Updates are counted from 0: the 25th is number 24, one step below the top.
    rates = [0.01 + 0.05 * 24 / 25, 0.01 + 0.05 / 25] * 2
    assert [epoch.learning_rate for epoch in result.epochs] == pytest.approx(rates)


# --- the network that is returned


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_network_returned_is_the_one_that_was_evaluated(splits: Splits, batch_norm: bool) -> None:
    configs = [replace(HUNDRED, cycles=1, batch_norm=batch_norm, seed=seed) for seed in (0, 1)]
    for result in train(configs, splits):
        X, y = splits.validation.batch(slice(None), "float64")
        accuracy = np.mean(result.network.scores(X).argmax(axis=-1) == y)
        assert accuracy == result.epochs[-1].validation.accuracy


def test_the_state_of_a_trained_network_holds_its_running_averages(splits: Splits) -> None:
    [result] = train([replace(HUNDRED, cycles=1)], splits)
    averages = {name for name in result.network.state() if "running" in name}
    assert averages == {f"batch_norm{i}.running_{what}" for i in (1, 2) for what in ("mean", "variance")}


def test_results_seen_at_an_evaluation_hold_the_running_averages_of_that_moment(splits: Splits) -> None:
    seen: list[np.ndarray] = []

    def on_evaluation(results: list[TrainResult]) -> None:
        seen.append(results[0].network.state()["batch_norm1.running_mean"].copy())

    train([replace(HUNDRED, cycles=2)], splits, on_evaluation=on_evaluation)
    assert np.abs(seen[0] - seen[1]).max() > 0


# --- stacks


def test_a_replica_of_a_stack_follows_the_trajectory_of_the_same_config_alone(splits: Splits) -> None:
    base = replace(HUNDRED, initializer="normal", sigma=0.05)
    configs = [
        base,
        replace(base, seed=1, lam=0.0, sigma=0.1, eta_min=1e-3, eta_max=0.05),
        replace(base, seed=2, lam=0.1, sigma=0.02, eta_max=0.03),
    ]
    for replica, config in zip(train(configs, splits), configs, strict=True):
        [alone] = train([config], splits)
        assert replica.config == alone.config == config
        assert [epoch.step for epoch in replica.epochs] == [50, 100]
        for name, array in alone.network.parameters().items():
            difference = np.abs(replica.network.parameters()[name] - array).max()
            assert difference <= 1e-10 * max(1e-3, np.abs(array).max()), name
        pairs = [
            (getattr(mine, part), getattr(other, part))
            for mine, other in zip(replica.epochs, alone.epochs, strict=True)
            for part in ("train", "validation")
        ]
        for mine, other in [*pairs, (replica.test, alone.test)]:
            assert isinstance(mine, Metrics)
            assert mine.loss == pytest.approx(other.loss, rel=1e-10)
            assert mine.cost == pytest.approx(other.cost, rel=1e-10)
            assert mine.accuracy == other.accuracy


@pytest.mark.parametrize(
    "other",
    [
        {"hidden": (12, 10)},
        {"batch_size": 40},
        {"batch_norm": False},
        {"order_seed": 12},
        {"cycles": 3},
        {"dtype": "float32"},
        {"bn_eps": 1e-5},
    ],
    ids=str,
)
def test_replicas_that_differ_in_more_than_they_may_are_refused(splits: Splits, other: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="replicas may differ"):
        train([HUNDRED, replace(HUNDRED, **other)], splits)  # type: ignore[arg-type]


def test_replicas_without_a_common_order_seed_are_refused(splits: Splits) -> None:
    config = replace(HUNDRED, order_seed=None)
    with pytest.raises(ValueError, match="order_seed"):
        train([config, replace(config, seed=1)], splits)


# --- divergence


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_replica_that_diverges_leaves_its_neighbour_alone(splits: Splits) -> None:
    good = replace(HUNDRED, batch_norm=False)
    wild, tame = replace(good, seed=1, eta_max=1e4), replace(good, seed=1, eta_max=0.02)
    [survivor, lost] = train([good, wild], splits)
    [expected, _] = train([good, tame], splits)
    [alone] = train([good], splits)
    assert lost.diverged_at is not None
    assert 1 <= lost.diverged_at <= 100
    assert lost.test is None
    assert all(math.isfinite(epoch.train.cost) for epoch in lost.epochs)
    assert survivor.diverged_at is None
    assert without_seconds(survivor) == without_seconds(expected)
    assert survivor.test == expected.test
    assert [epoch.train.loss for epoch in survivor.epochs] == pytest.approx(
        [epoch.train.loss for epoch in alone.epochs], rel=1e-10
    )


def test_a_training_ends_when_every_replica_has_diverged(splits: Splits) -> None:
    steps: list[int] = []
    config = replace(HUNDRED, batch_norm=False, schedule="constant", eta_max=1e6, cycles=50)
    [result] = train([config], splits, on_update=steps.append)
    assert result.diverged_at == steps[-1] < 100
    assert result.epochs == []
    assert result.test is None


def test_a_network_that_is_finite_only_on_its_training_images_has_diverged(small_dataset: Dataset) -> None:
    # Every training pixel is constant, so every training image becomes 0 and every score too.
    images = small_dataset.images.copy()
    images[:400] = 100
    flat = split(replace(small_dataset, images=images), SPLIT)
    config = TrainConfig(initializer="normal", sigma=1e37, lam=0.0, epochs=0, split=SPLIT)
    [result] = train([config], flat)
    assert result.diverged_at == 0
    assert result.epochs == []


def test_an_infinite_cost_before_the_first_update_is_no_divergence(small_dataset: Dataset) -> None:
    """Without running averages, the scores of a deep BN network with large weights overflow; minibatches normalise."""
    config = TrainConfig(
        hidden=(20,) * 8, batch_norm=True, initializer="normal", sigma=3e4, lam=0.0, epochs=2, split=SPLIT
    )
    [result] = train([config], split(small_dataset, SPLIT), evaluate_untrained=True)
    assert result.diverged_at is None
    assert [one.step > 0 for one in result.epochs] == [True, True]


@pytest.mark.parametrize(("sigma", "is_finite"), [(1.0, True), (1e30, False)])
def test_a_network_of_a_finite_cost_whose_variance_overflowed_has_diverged(
    splits: Splits, sigma: float, is_finite: bool
) -> None:
    """No checkpoint may hold it: the run was complete, and its network damaged. A square is at most 3e38 in float32."""
    config = replace(HUNDRED, initializer="normal", sigma=sigma, lam=0.0, dtype="float32")
    [result] = train([config], splits)
    assert (result.diverged_at is None) == is_finite
    assert bool(result.epochs) == is_finite
    assert all(np.isfinite(array).all() for array in result.network.state().values())


# --- callables


def test_what_on_update_raises_ends_the_training_there(splits: Splits) -> None:
    class Stop(Exception):
        pass

    steps, evaluations = [], []

    def on_update(step: int) -> None:
        steps.append(step)
        if step == 60:
            raise Stop

    with pytest.raises(Stop):
        train(
            [HUNDRED], splits,
            on_update=on_update, on_evaluation=lambda results: evaluations.append(results[0].epochs[-1].step),
        )  # fmt: skip
    assert steps == list(range(1, 61))
    assert evaluations == [50]


def test_the_test_split_is_evaluated_only_on_request(splits: Splits) -> None:
    config = replace(HUNDRED, step_size=2)
    [kept] = train([config], splits, evaluate_test=False)
    [evaluated] = train([config], splits)
    assert kept.test is None
    assert evaluated.test is not None
    assert without_seconds(kept) == without_seconds(evaluated)
