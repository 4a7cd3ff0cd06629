"""Minibatches: pure functions of the update, independent of earlier calls, with labels that match their images."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from klcli import compiled
from klcli.data.dataset import Dataset, Split, split
from klcli.engine.losses import Loss, cross_entropy
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.training.minibatches import Minibatches

CONFIG = TrainConfig(batch_size=30, dtype="float64", seed=5)
UPDATES = 4000
EVERYTHING = replace(CONFIG, flip=True, shift=3, mixup=0.4, label_smoothing=0.1)


@pytest.fixture(scope="module")
def train(small_dataset: Dataset) -> Split:
    return split(small_dataset, SplitConfig(validation=200, subset=100)).train


def at(minibatches: Minibatches, step: int) -> tuple[np.ndarray, np.ndarray, Loss]:
    """Return copies of the images and labels of an update, and its loss."""
    X, y = minibatches.images(step).copy(), minibatches.labels(step).copy()
    return X, y, minibatches.loss


def test_an_epoch_shows_each_image_once_and_the_next_in_another_order(train: Split) -> None:
    everything, _ = train.batch(slice(None), "float64")
    minibatches = Minibatches(CONFIG, train, UPDATES)
    epochs = []
    for epoch in range(2):
        X = np.concatenate([at(minibatches, 3 * epoch + i)[0] for i in range(3)])
        epochs.append([int(np.flatnonzero((everything == x).all(axis=1))[0]) for x in X])
        assert len(set(epochs[-1])) == 90
    assert epochs[0] != epochs[1]


def test_without_shuffling_every_epoch_has_the_order_of_the_files(train: Split) -> None:
    pixels = train.images[train.rows].astype(np.float64)
    X = (pixels - pixels.mean(axis=0)) / pixels.std(axis=0)
    minibatches = Minibatches(replace(CONFIG, shuffle=False), train, UPDATES)
    for step in (0, 1, 2, 3, 7):  # 3 updates of 30 images an epoch; the last 10 images have no minibatch
        first = step % 3 * 30
        seen, y, _ = at(minibatches, step)
        np.testing.assert_allclose(seen, X[first : first + 30], rtol=0, atol=1e-12)
        assert y.tolist() == train.labels[first : first + 30].tolist()


@pytest.mark.parametrize(
    "how",
    [{}, {"flip": True}, {"shift": 3}, {"flip": True, "shift": 31}, {"mixup": 0.3}, {"contrast": 0.5},
     {"flip": True, "shift": 2, "contrast": 1, "weak_augmentation": 0.999}],
)  # fmt: skip
@pytest.mark.parametrize("standardise", ["pixel", "image"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_code_writes_the_images_of_numpy(train: Split, how: dict, standardise: str, dtype: str) -> None:
    config, split = replace(CONFIG, dtype=dtype, **how), train.standardised(standardise)
    with compiled.open_team(dtype, helper=True) as team:
        assert team is not compiled.NUMPY
        plain, own = Minibatches(config, split, UPDATES), Minibatches(config, split, UPDATES, team)
        for step in (0, 1, 2, 5, 4):
            X, y, _ = at(plain, step)
            own_X, own_y, _ = at(own, step)
            np.testing.assert_allclose(own_X, X, rtol=0, atol=2e-5 if dtype == "float32" else 1e-12)
            np.testing.assert_array_equal(own_y, y)


def test_without_options_images_and_loss_are_plain(train: Split) -> None:
    X, y, loss = at(Minibatches(CONFIG, train, UPDATES), 4)
    assert loss is cross_entropy
    assert (X.shape, y.shape) == ((30, 3072), (30,))


def test_a_minibatch_is_a_function_of_the_update(train: Split) -> None:
    one, other = Minibatches(EVERYTHING, train, UPDATES), Minibatches(EVERYTHING, train, UPDATES)
    forwards = [at(one, step) for step in range(7)]
    backwards = [at(other, step) for step in reversed(range(7))][::-1]
    scores = np.random.default_rng(0).standard_normal((30, 10))
    for (X, y, _), (X2, y2, _) in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(X, X2)
        np.testing.assert_array_equal(y, y2)
    assert one.share(6) == other.share(6)
    assert one.loss(scores, one.labels(6))[0] == other.loss(scores, other.labels(6))[0]
    assert (at(Minibatches(replace(EVERYTHING, seed=6), train, UPDATES), 0)[0] != forwards[0][0]).any()
    np.testing.assert_array_equal(
        at(Minibatches(replace(EVERYTHING, seed=6, order_seed=5), train, UPDATES), 0)[0], forwards[0][0]
    )


def test_the_labels_are_mixed_as_the_images_are(train: Split) -> None:
    plain, y, _ = at(Minibatches(CONFIG, train, UPDATES), 2)
    mixed = Minibatches(replace(CONFIG, mixup=0.5), train, UPDATES)
    X, same, loss = at(mixed, 2)
    np.testing.assert_array_equal(y, same)
    share = float(np.linalg.lstsq((plain[0] - plain[-1])[:, None], X[0] - plain[-1], rcond=None)[0][0])
    np.testing.assert_allclose(X, share * plain + (1 - share) * plain[::-1], rtol=1e-9, atol=1e-9)
    S = np.random.default_rng(0).standard_normal((30, 10))
    log_p = np.log(softmax(S, axis=1))
    expected = -np.mean([share * log_p[i, y[i]] + (1 - share) * log_p[i, y[29 - i]] for i in range(30)])
    assert float(loss(S, y)[0]) == pytest.approx(expected, rel=1e-9)


def test_contrast_multiplies_each_standardised_image_by_a_factor_of_its_own(train: Split) -> None:
    contrast, factors = 0.3, []
    for step in range(100):
        plain, y, _ = at(Minibatches(CONFIG, train, UPDATES), step)
        X, same, _ = at(Minibatches(replace(CONFIG, contrast=contrast), train, UPDATES), step)
        np.testing.assert_array_equal(y, same)
        own = (X * plain).sum(axis=1) / (plain * plain).sum(axis=1)
        np.testing.assert_allclose(X, own[:, None] * plain, rtol=1e-9, atol=1e-12)
        factors.extend(own)
    assert 0.7 <= min(factors) < 0.705 and 1.295 < max(factors) <= 1.3
    assert np.mean(factors) == pytest.approx(1, abs=0.01)  # 3 standard errors
    assert np.var(factors) == pytest.approx((2 * contrast) ** 2 / 12, rel=0.05)


def test_the_last_updates_of_weak_augmentation_shift_by_a_pixel_with_little_contrast(train: Split) -> None:
    """Of 40 updates, the last 10; the share of the updates before them is that of a training without it."""
    config = replace(CONFIG, shift=5, contrast=0.8, shuffle=False)
    weak, strong, least = (
        Minibatches(replace(config, **how), train, 40)
        for how in ({"weak_augmentation": 0.25}, {}, {"shift": 1, "contrast": 0.1})
    )
    for step in range(40):
        np.testing.assert_array_equal(at(weak, step)[0], at(strong if step < 30 else least, step)[0])
    smaller = Minibatches(replace(config, shift=0, contrast=0.05, weak_augmentation=1.0), train, 40)
    never_larger = Minibatches(replace(config, shift=0, contrast=0.05), train, 40)
    np.testing.assert_array_equal(at(smaller, 3)[0], at(never_larger, 3)[0])


def test_shares_have_the_variance_of_the_beta_distribution(train: Split) -> None:
    minibatches = Minibatches(replace(CONFIG, mixup=0.5), train, UPDATES)
    shares = [minibatches.share(step) for step in range(4000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.5 + 1)), rel=0.05)


@pytest.mark.parametrize("label", [-1, 10, 255])
def test_a_label_that_no_class_has_is_refused(train: Split, label: int) -> None:
    labels = train.labels.copy()
    labels[7] = label
    with pytest.raises(ValueError, match="0 to 9"):
        Minibatches(CONFIG, replace(train, labels=labels), UPDATES)
