"""An interrupted training ends with the same bits; a replica with options follows the same config alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from thinning import mostly_slow

from klcli.data.dataset import Dataset, Splits, split
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.training.result import EpochMetrics, Snapshot, TrainResult
from klcli.training.trainer import train

SPLIT = SplitConfig(validation=200, subset=400)
BASE = TrainConfig(
    hidden=(12, 9), batch_norm=True, batch_size=50, step_size=10, cycles=2, lam=0.01, order_seed=11, split=SPLIT,
    eta_max=0.01,
)  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "nesterov": {"momentum": 0.9, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "weight_decay": 0.01},
    "dropout and soft labels": {"dropout": 0.2, "label_smoothing": 0.1, "optimizer": "adam"},
    "average": {"weight_average": 0.9, "optimizer": "adam"},
    "average, precise statistics": {"weight_average": 0.9, "bn_statistics": "precise"},
    "snapshots": {"snapshots": True, "schedule": "cosine", "eta_decay": 0.7, "weight_average": 0.8},
    "augmentation": {"flip": True, "shift": 2, "mixup": 0.3},
}
STOP = 16  # updates: two epochs, in the middle of the first cycle


@pytest.fixture(scope="module")
def splits(small_dataset: Dataset) -> Splits:
    return split(small_dataset, SPLIT)


def everything(result: TrainResult) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in result.arrays().items()}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", mostly_slow(["float32", "float64"], 2))
def test_a_resumed_training_ends_with_the_same_bits(splits: Splits, options: dict[str, Any], dtype: str) -> None:
    config = replace(BASE, dtype=dtype, **options)
    stored: dict[int, tuple[dict[str, np.ndarray], list[EpochMetrics]]] = {}

    def on_evaluation(results: list[TrainResult]) -> None:
        stored[results[0].step] = everything(results[0]), list(results[0].epochs)

    [whole] = train([config], splits, on_evaluation=on_evaluation)
    for step in (STOP, 40):
        state, epochs = stored[step]
        [resumed] = train([config], splits, snapshot=Snapshot(step, state, tuple(epochs)))
        assert [replace(e, seconds=0.0) for e in resumed.epochs] == [replace(e, seconds=0.0) for e in whole.epochs]
        assert (resumed.test, resumed.ensemble) == (whole.test, whole.ensemble)
        expected = everything(whole)
        assert everything(resumed).keys() == expected.keys()
        for name, array in everything(resumed).items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_replica_follows_the_same_config_alone(splits: Splits, options: dict[str, Any]) -> None:
    base = replace(BASE, dtype="float64", **options)
    configs = [base, replace(base, seed=1, lam=0.0, eta_min=1e-3, eta_max=0.02)]
    for replica, config in zip(train(configs, splits), configs, strict=True):
        [alone] = train([config], splits)
        for name, array in everything(alone).items():
            np.testing.assert_allclose(everything(replica)[name], array, rtol=1e-6, atol=1e-9, err_msg=name)
        assert [e.train.loss for e in replica.epochs] == pytest.approx([e.train.loss for e in alone.epochs], rel=1e-8)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_change_the_training_and_keep_the_precision(splits: Splits, options: dict[str, Any]) -> None:
    # Averaged or not, the weights go the same way; what is evaluated differs.
    [plain], [other] = train([BASE], splits), train([replace(BASE, **options)], splits)
    assert (plain.epochs[-1].train.loss == other.epochs[-1].train.loss) == (options == {})
    assert {array.dtype for array in everything(other).values()} == {np.dtype(np.float32)}


def test_there_is_no_memory_after_the_last_update(splits: Splits) -> None:
    [result] = train([replace(BASE, **OPTIONS["adam"])], splits)
    assert result.memory == {}


def test_the_average_is_evaluated_and_does_not_change_the_training(splits: Splits) -> None:
    decay = 0.7
    raw: list[dict[str, np.ndarray]] = []
    config = replace(BASE, dtype="float64", evaluations_per_cycle=20, cycles=1)  # after every update

    def on_evaluation(results: list[TrainResult]) -> None:
        raw.append(everything(results[0]))

    train([config], splits, on_evaluation=on_evaluation)
    [averaged] = train([replace(config, weight_average=decay)], splits)
    weights = decay ** np.arange(len(raw) - 1, -1, -1)
    assert len(raw) == 20
    for name, array in averaged.network.state().items():
        expected = sum(w * state[name] for w, state in zip(weights, raw, strict=True)) / weights.sum()
        np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12, err_msg=name)
    X, y = splits.test.batch(slice(None), "float64")
    assert averaged.test is not None
    assert averaged.test.accuracy == np.mean(averaged.network.scores(X).argmax(axis=-1) == y)


def test_snapshots_are_the_networks_at_the_ends_of_the_cycles_and_their_probabilities_are_averaged(
    splits: Splits,
) -> None:
    config = replace(BASE, snapshots=True, cycles=3, epochs=6, dtype="float64")  # 48 updates: two cycles and a part
    ends: dict[int, dict[str, np.ndarray]] = {}

    def on_evaluation(results: list[TrainResult]) -> None:
        ends[results[0].step] = {name: array.copy() for name, array in results[0].network.state().items()}

    [result] = train([config], splits)
    train([replace(config, snapshots=False, evaluations_per_cycle=1)], splits, on_evaluation=on_evaluation)
    assert len(result.snapshots) == 2
    P = []
    X, y = splits.test.batch(slice(None), "float64")
    for snapshot, step in zip(result.snapshots, (20, 40), strict=True):
        assert snapshot.keys() == ends[step].keys()
        for name, array in snapshot.items():
            np.testing.assert_array_equal(array, ends[step][name], err_msg=name)
        P.append(softmax(result.network.with_state(snapshot).scores(X), axis=1))
    mean = (P[0] + P[1]) / 2
    assert result.ensemble is not None
    assert result.ensemble.test is not None
    assert result.ensemble.networks == 2
    assert result.ensemble.test.accuracy == np.mean(mean.argmax(axis=-1) == y)
    assert result.ensemble.test.loss == pytest.approx(-np.log(mean[np.arange(len(y)), y]).mean(), rel=1e-9)
    [unseen] = train([config], splits, evaluate_test=False)
    assert unseen.ensemble == replace(result.ensemble, test=None)


def test_without_a_whole_cycle_there_is_no_ensemble(splits: Splits) -> None:
    [result] = train([replace(BASE, snapshots=True, epochs=2)], splits)
    assert (result.snapshots, result.ensemble) == ([], None)
