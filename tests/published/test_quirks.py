"""Quirks of published code, each against a formula in float64, in NumPy and in compiled code, in stacks."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from klcli.compiled import NUMPY, Engine, open_team
from klcli.data.dataset import Dataset, Splits, split
from klcli.engine.layers import BatchNorm
from klcli.published.quirks import QUIRKS
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.training.result import Snapshot
from klcli.training.trainer import Quirk, Training, train

BASE = TrainConfig(
    hidden=(8, 6), batch_size=50, cycles=2, step_size=2, dtype="float64", lam=0.3, eta_max=0.2, order_seed=1,
    split=SplitConfig(validation=200),
)  # fmt: skip
STACK = [BASE, replace(BASE, seed=1, lam=0.1)]
HALVED, ANEW, BY_ITSELF, BIASES = QUIRKS.values()


@pytest.fixture
def splits(small_dataset: Dataset) -> Splits:
    return split(small_dataset, BASE.split)


@pytest.fixture(params=["NumPy", "compiled"])
def team(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with nullcontext(NUMPY) if request.param == "NumPy" else open_team("float64") as engine:
        yield engine


def after_updates(configs: list[TrainConfig], splits: Splits, team: Engine, quirk: Quirk, n: int) -> Training:
    training = Training(configs, splits, team=team, quirks=[quirk])
    for _ in range(n):
        training.update()
    return training


def test_w1_decays_by_half_and_all_else_as_ever(splits: Splits, team: Engine) -> None:
    """`W1 <- W1 - eta (g + lambda W1)`, every other W by `g + 2 lambda W`, also in recorded updates."""
    training = after_updates(STACK, splits, team, HALVED, 0)
    own = Training(STACK, splits)  # of NumPy, without the quirk: for the gradients of the loss
    for step in range(6):
        before = {name: array.copy() for name, array in training.stack.state().items()}
        for name, array in own.stack.parameters().items():
            array[...] = before[name]
        X, y = own._minibatches.images(step), own._minibatches.labels(step)
        _, gradients = own.stack.gradients(X, y, None)
        training.update()
        eta = training.budget.learning_rate(step, BASE)
        for name, array in training.stack.parameters().items():
            factor = {"linear1.W": 1}.get(name, 2 if name.endswith(".W") else 0)
            decay = np.array([factor * config.lam for config in STACK])[:, None, None]
            expected = before[name] - eta * (np.asarray(gradients[name]) + decay * before[name])
            np.testing.assert_allclose(array, expected, rtol=0, atol=1e-12, err_msg=name)


def test_the_cost_keeps_its_whole_l2_term(splits: Splits) -> None:
    [result] = train([BASE], splits, quirks=[HALVED])
    squares = sum(np.square(W).sum() for name, W in result.network.state().items() if name.endswith(".W"))
    metrics = result.epochs[-1].train
    assert metrics.cost - metrics.loss == pytest.approx(BASE.lam * squares, rel=1e-9)


def test_running_averages_begin_anew(splits: Splits, team: Engine) -> None:
    """After the first update of the second cycle, they are the mean and the variance of that minibatch alone."""
    configs = [replace(config, batch_norm=True) for config in STACK]
    training = after_updates(configs, splits, team, ANEW, 4)  # one cycle
    plain = Training(configs, splits, team=NUMPY)
    for _ in range(4):
        plain.update()
    X, W = training._minibatches.images(4), training.stack.state()
    S = X @ W["linear1.W"] + W["linear1.b"]
    mean, variance = S.mean(axis=1, keepdims=True), S.var(axis=1, keepdims=True)
    layer = training.stack.layers["batch_norm1"]
    assert isinstance(layer, BatchNorm)
    np.testing.assert_allclose(W["batch_norm1.running_mean"], plain.stack.state()["batch_norm1.running_mean"])
    training.update()
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(layer.running_variance, variance, rtol=1e-9)
    training.update()  # within the cycle, the average of two
    assert not np.allclose(layer.running_mean, mean, rtol=1e-3)


def test_each_split_has_mean_0_and_deviation_1(splits: Splits) -> None:
    training = after_updates(STACK, splits, NUMPY, BY_ITSELF, 0)
    for part in (training.splits.train, training.splits.validation, training.splits.test):
        X, _ = part.batch(slice(0, len(part)), np.float64)
        np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(X.std(axis=0), 1, rtol=1e-12)
    [usual], [quirky] = train([BASE], splits), train([BASE], splits, quirks=[BY_ITSELF])
    assert usual.epochs[-1].train == quirky.epochs[-1].train
    assert usual.epochs[-1].validation != quirky.epochs[-1].validation
    assert usual.test != quirky.test


@pytest.mark.slow
def test_biases_are_drawn_with_the_sigma_of_the_weights(splits: Splits) -> None:
    configs = [
        replace(BASE, hidden=(4000,), initializer="normal", sigma=0.5, seed=3),
        replace(BASE, hidden=(4000,), initializer="normal", sigma=0.01, seed=4),
    ]
    drawn = after_updates(configs, splits, NUMPY, BIASES, 0).stack.state()["linear1.b"]
    assert drawn.std(axis=-1).ravel().tolist() == pytest.approx([0.5, 0.01], rel=0.05)
    assert np.abs(drawn.mean(axis=-1)).ravel().tolist() == pytest.approx([0, 0], abs=0.03)
    [alone] = (after_updates(configs[1:], splits, NUMPY, BIASES, 0).stack.state()["linear1.b"],)
    np.testing.assert_array_equal(alone[0], drawn[1])


def test_a_continued_training_keeps_its_biases(splits: Splits) -> None:
    config = replace(BASE, initializer="normal", sigma=0.5)
    [whole] = train([config], splits, quirks=[BIASES])
    snapshots: list[Snapshot] = []

    def keep(results: list) -> None:  # type: ignore[type-arg]
        snapshots.append(Snapshot(results[0].step, {k: v.copy() for k, v in results[0].arrays().items()}))

    train([replace(config, evaluations_per_cycle=1)], splits, quirks=[BIASES], on_evaluation=keep)
    [continued] = train([config], splits, snapshot=snapshots[0], quirks=[BIASES])
    for name, array in whole.network.state().items():
        np.testing.assert_array_equal(continued.network.state()[name], array)
