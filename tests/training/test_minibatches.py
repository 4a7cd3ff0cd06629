"""Minibatches: pure functions of the update, independent of earlier calls, with labels that match their images."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from klcli.data.dataset import Dataset, Split, split
from klcli.engine.losses import Loss, cross_entropy
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.training.minibatches import Minibatches

CONFIG = TrainConfig(batch_size=30, dtype="float64", seed=5)
EVERYTHING = replace(CONFIG, flip=True, shift=3, mixup=0.4, label_smoothing=0.1)


@pytest.fixture(scope="module")
def train(small_dataset: Dataset) -> Split:
    return split(small_dataset, SplitConfig(validation=200, subset=100)).train


def at(minibatches: Minibatches, step: int) -> tuple[np.ndarray, np.ndarray, Loss]:
    """Return images, labels and loss of an update."""
    X = np.full((minibatches.config.batch_size, 3072), np.nan, minibatches.config.dtype)
    minibatches.images(step, X)
    return X, *minibatches.labels(step)


def test_an_epoch_shows_each_image_once_and_the_next_in_another_order(train: Split) -> None:
    everything, _ = train.batch(slice(None), "float64")
    minibatches = Minibatches(CONFIG, train)
    epochs = []
    for epoch in range(2):
        X = np.concatenate([at(minibatches, 3 * epoch + i)[0] for i in range(3)])
        epochs.append([int(np.flatnonzero((everything == x).all(axis=1))[0]) for x in X])
        assert len(set(epochs[-1])) == 90
    assert epochs[0] != epochs[1]


def test_without_shuffling_every_epoch_has_the_order_of_the_files(train: Split) -> None:
    pixels = train.images[train.rows].astype(np.float64)
    X = (pixels - pixels.mean(axis=0)) / pixels.std(axis=0)
    minibatches = Minibatches(replace(CONFIG, shuffle=False), train)
    for step in (0, 1, 2, 3, 7):  # 3 updates of 30 images an epoch; the last 10 images have no minibatch
        first = step % 3 * 30
        seen, y, _ = at(minibatches, step)
        np.testing.assert_allclose(seen, X[first : first + 30], rtol=0, atol=1e-12)
        assert y.tolist() == train.labels[first : first + 30].tolist()


def test_a_minibatch_can_be_made_in_parts(train: Split) -> None:
    minibatches = Minibatches(CONFIG, train)
    whole, _, _ = at(minibatches, 1)
    for parts in (2, 3, 4, 40):
        X = np.full_like(whole, np.nan)
        for part in range(parts):
            minibatches.images(1, X, (part, parts))
        assert (whole == X).all()


def test_what_concerns_a_whole_minibatch_is_made_in_one_part(train: Split) -> None:
    parts = [
        Minibatches(TrainConfig(**options), train).parts  # type: ignore[arg-type]
        for options in ({}, {"batch_size": 10}, {"flip": True}, {"shift": 2}, {"mixup": 0.2}, {"label_smoothing": 0.1})
    ]
    assert parts == [4, 1, 1, 1, 1, 4]


def test_without_options_images_and_loss_are_plain(train: Split) -> None:
    X, y, loss = at(Minibatches(CONFIG, train), 4)
    assert loss is cross_entropy
    assert (X.shape, y.shape) == ((30, 3072), (30,))


def test_a_minibatch_is_a_function_of_the_update(train: Split) -> None:
    one, other = Minibatches(EVERYTHING, train), Minibatches(EVERYTHING, train)
    forwards = [at(one, step) for step in range(7)]
    backwards = [at(other, step) for step in reversed(range(7))][::-1]
    scores = np.random.default_rng(0).standard_normal((30, 10))
    for (X, y, loss), (X2, y2, loss2) in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(X, X2)
        np.testing.assert_array_equal(y, y2)
        assert loss(scores, y)[0] == loss2(scores, y)[0]
    assert (at(Minibatches(replace(EVERYTHING, seed=6), train), 0)[0] != forwards[0][0]).any()
    np.testing.assert_array_equal(
        at(Minibatches(replace(EVERYTHING, seed=6, order_seed=5), train), 0)[0], forwards[0][0]
    )


def test_the_labels_are_mixed_as_the_images_are(train: Split) -> None:
    plain, y, _ = at(Minibatches(CONFIG, train), 2)
    X, same, loss = at(Minibatches(replace(CONFIG, mixup=0.5), train), 2)
    np.testing.assert_array_equal(y, same)
    share = float(np.linalg.lstsq((plain[0] - plain[-1])[:, None], X[0] - plain[-1], rcond=None)[0][0])
    np.testing.assert_allclose(X, share * plain + (1 - share) * plain[::-1], rtol=1e-9, atol=1e-9)
    S = np.random.default_rng(0).standard_normal((30, 10))
    log_p = np.log(softmax(S, axis=1))
    expected = -np.mean([share * log_p[i, y[i]] + (1 - share) * log_p[i, y[29 - i]] for i in range(30)])
    assert float(loss(S, y)[0]) == pytest.approx(expected, rel=1e-9)


def test_shares_have_the_variance_of_the_beta_distribution(train: Split) -> None:
    minibatches = Minibatches(replace(CONFIG, mixup=0.5), train)
    shares = [minibatches.share(step) for step in range(4000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.5 + 1)), rel=0.05)
