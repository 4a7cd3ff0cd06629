"""Minibatches: functions of the update, whatever was asked before, with labels that belong to their images."""

from dataclasses import replace

import numpy as np
import pytest

from klcli.data.dataset import Dataset, Split, split
from klcli.data.split_config import SplitConfig
from klcli.engine.losses import cross_entropy, softmax
from klcli.experiments.config import TrainConfig
from klcli.experiments.minibatches import Minibatches

CONFIG = TrainConfig(batch_size=30, dtype="float64", seed=5)
EVERYTHING = replace(CONFIG, flip=True, shift=3, mixup=0.4, label_smoothing=0.1)


@pytest.fixture(scope="module")
def train(small_dataset: Dataset) -> Split:
    return split(small_dataset, SplitConfig(validation=200, subset=100)).train


def test_an_epoch_shows_each_image_once_and_the_next_in_another_order(train: Split) -> None:
    everything, _ = train.batch(slice(None), "float64")
    minibatches = Minibatches(CONFIG, train)
    epochs = []
    for epoch in range(2):
        X = np.concatenate([minibatches.at(3 * epoch + i)[0] for i in range(3)])
        epochs.append([int(np.flatnonzero((everything == x).all(axis=1))[0]) for x in X])
        assert len(set(epochs[-1])) == 90
    assert epochs[0] != epochs[1]


def test_without_shuffling_every_epoch_has_the_order_of_the_files(train: Split) -> None:
    pixels = train.images[train.rows].astype(np.float64)
    X = (pixels - pixels.mean(axis=0)) / pixels.std(axis=0)
    minibatches = Minibatches(replace(CONFIG, shuffle=False), train)
    for step in (0, 1, 2, 3, 7):  # 3 updates of 30 images an epoch; the last 10 images have no minibatch
        first = step % 3 * 30
        seen, y, _ = minibatches.at(step)
        np.testing.assert_allclose(seen, X[first : first + 30], rtol=0, atol=1e-12)
        assert y.tolist() == train.labels[first : first + 30].tolist()


def test_without_options_images_and_loss_are_plain(train: Split) -> None:
    X, y, loss = Minibatches(CONFIG, train).at(4)
    assert loss is cross_entropy
    assert (X.shape, y.shape) == ((30, 3072), (30,))


def test_a_minibatch_is_a_function_of_the_update(train: Split) -> None:
    one, other = Minibatches(EVERYTHING, train), Minibatches(EVERYTHING, train)
    forwards = [one.at(step) for step in range(7)]
    backwards = [other.at(step) for step in reversed(range(7))][::-1]
    scores = np.random.default_rng(0).standard_normal((30, 10))
    for (X, y, loss), (X2, y2, loss2) in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(X, X2)
        np.testing.assert_array_equal(y, y2)
        assert loss(scores, y)[0] == loss2(scores, y)[0]
    assert (Minibatches(replace(EVERYTHING, seed=6), train).at(0)[0] != forwards[0][0]).any()
    np.testing.assert_array_equal(
        Minibatches(replace(EVERYTHING, seed=6, order_seed=5), train).at(0)[0], forwards[0][0]
    )


def test_the_labels_are_mixed_as_the_images_are(train: Split) -> None:
    plain, y, _ = Minibatches(CONFIG, train).at(2)
    X, same, loss = Minibatches(replace(CONFIG, mixup=0.5), train).at(2)
    np.testing.assert_array_equal(y, same)
    share = float(np.linalg.lstsq((plain[0] - plain[-1])[:, None], X[0] - plain[-1], rcond=None)[0][0])
    np.testing.assert_allclose(X, share * plain + (1 - share) * plain[::-1], rtol=1e-9, atol=1e-9)
    S = np.random.default_rng(0).standard_normal((30, 10))
    log_p = np.log(softmax(S))
    expected = -np.mean([share * log_p[i, y[i]] + (1 - share) * log_p[i, y[29 - i]] for i in range(30)])
    assert float(loss(S, y)[0]) == pytest.approx(expected, rel=1e-9)
