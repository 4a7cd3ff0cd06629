"""Predictions: a checkpoint gives the accuracy that was stored, and confusion counts what loops count."""

import numpy as np
import pytest

from klcli.data.dataset import Dataset, split
from klcli.evaluation.metrics import confusion, predict
from klcli.report.plots.networks import most_confused
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.training.networks import restore
from klcli.training.trainer import train


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_restored_network_repeats_its_test_accuracy(small_dataset: Dataset, batch_norm: bool) -> None:
    config = TrainConfig(hidden=(8, 6), batch_norm=batch_norm, epochs=2, split=SplitConfig(validation=100))
    splits = split(small_dataset, config.split)
    [result] = train([config], splits)
    state = {name: array.copy() for name, array in result.network.state().items()}
    predicted = predict(restore(config, state), splits.test, config.dtype)
    assert result.test is not None
    assert float(np.mean(predicted == splits.test.labels)) == result.test.accuracy
    counts = confusion(splits.test.labels, predicted)
    assert np.trace(counts) / counts.sum() == pytest.approx(result.test.accuracy)


def test_confusion_counts() -> None:
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 10, 500), rng.integers(0, 10, 500)
    found = confusion(labels, predicted)
    for true in range(10):
        for other in range(10):
            expected = sum(1 for a, b in zip(labels, predicted, strict=True) if (a, b) == (true, other))
            assert found[true, other] == expected
    pairs = most_confused(found, 3)
    assert [n for _, _, n in pairs] == sorted((n for _, _, n in most_confused(found, 45)), reverse=True)[:3]
    a, b, n = pairs[0]
    assert n == found[a, b] + found[b, a]


def test_nothing_is_confused() -> None:
    labels = np.arange(10)
    assert most_confused(confusion(labels, labels), 5) == []
