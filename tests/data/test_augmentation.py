"""Augmentation pixel by pixel: flips, shifts and mixup, with the requested probabilities."""

from collections import Counter
from functools import partial

import numpy as np
import pytest

from klcli.data import augmentation
from klcli.data.augmentation import draw_contrast, draw_moves, mixup, views
from klcli.data.dataset import Dataset, Split, split
from klcli.settings.split_config import SplitConfig

BACKGROUND = np.arange(3072).astype(np.uint8)
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 3072), dtype=np.uint8)


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def augmented(
    images: np.ndarray, rng: np.random.Generator, *, flip: bool, shift: int, background: np.ndarray
) -> np.ndarray:
    return augmentation.moved(images, draw_moves(rng, len(images), flip=flip, shift=shift), background)


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """One image moved, pixel by pixel."""
    source, target = image.reshape(3, 32, 32), BACKGROUND.copy().reshape(3, 32, 32)
    for row in range(32):
        for column in range(32):
            if 0 <= row - down < 32 and 0 <= column - right < 32:
                target[:, row, column] = source[:, row - down, column - right]
    return target.reshape(-1)


def test_half_of_the_images_are_mirrored_and_the_others_left() -> None:
    images = np.random.default_rng(2).integers(0, 256, (2000, 3072), dtype=np.uint8)
    result = augmented(images, rng(), flip=True, shift=0, background=BACKGROUND)
    mirrored = images.reshape(-1, 3, 32, 32)[:, :, :, ::-1].reshape(-1, 3072)
    is_mirrored, is_left = (result == mirrored).all(axis=1), (result == images).all(axis=1)
    assert (is_mirrored ^ is_left).all()
    assert is_mirrored.mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("shift", [1, 3, 31])
def test_every_image_is_moved_by_a_distance_of_its_own(shift: int) -> None:
    result = augmented(IMAGES, rng(), flip=False, shift=shift, background=BACKGROUND)
    distances = rng().integers(-shift, shift + 1, (len(IMAGES), 2))
    for image, source, (down, right) in zip(result, IMAGES, distances, strict=True):
        np.testing.assert_array_equal(image, moved(source, down, right))


def test_all_distances_are_equally_likely() -> None:
    pixel = np.zeros((5000, 3, 32, 32), np.uint8)
    pixel[:, :, 16, 16] = 1
    result = augmented(pixel.reshape(-1, 3072), rng(), flip=False, shift=1, background=np.zeros(3072, np.uint8))
    places = Counter(int(place) for place in result.reshape(-1, 3, 1024)[:, 0].argmax(axis=1))
    assert sorted(places) == sorted(32 * (16 + down) + 16 + right for down in (-1, 0, 1) for right in (-1, 0, 1))
    assert min(places.values()) > 5000 / 9 * 0.8


def test_the_images_that_came_in_are_untouched_and_a_read_only_view_will_do() -> None:
    images = IMAGES.copy()
    images.flags.writeable = False
    augmented(images, rng(), flip=True, shift=2, background=BACKGROUND)
    np.testing.assert_array_equal(images, IMAGES)


def test_what_moves_in_is_zero_once_it_is_standardised(small_dataset: Dataset) -> None:
    train = split(small_dataset, SplitConfig(validation=200)).train
    background = np.rint(train.mean).astype(np.uint8)
    change = partial(augmented, rng=rng(), flip=False, shift=31, background=background)
    X, _ = train.batch(np.arange(50), np.float64, change)
    plain, _ = train.batch(np.arange(50), np.float64)
    moved_in = np.abs(X) < 0.5 * train.inverse_std + 1e-12  # at most half a grey level
    assert moved_in.mean() > 0.5
    assert np.abs(plain).mean() > 0.5


def test_the_views_are_the_image_its_four_shifts_and_their_mirror_images() -> None:
    rows = np.array([7, 3, 41])
    seen = Split(IMAGES, rows, np.array([0, 1, 2]), BACKGROUND + 0.2, np.ones(3072))
    distances = [(0, 0), (2, 0), (-2, 0), (0, 2), (0, -2)]
    plain = [[moved(IMAGES[row], *distance) for row in rows] for distance in distances]
    wanted = np.array([*plain, *(np.reshape(view, (3, 3, 32, 32))[..., ::-1].reshape(3, -1) for view in plain)])
    for flips, shifts, which in ((False, 0, [0]), (True, 0, [0, 5]), (False, 2, range(5)), (True, 2, range(10))):
        found = views(seen, flips=flips, shifts=shifts)
        assert len(found) == len(which)
        for view, number in zip(found, which, strict=True):
            np.testing.assert_array_equal(view.images[view.rows], wanted[number])
            np.testing.assert_array_equal(view.labels, seen.labels)


def test_factors_of_contrast_are_uniform_around_one() -> None:
    factors = draw_contrast(rng(), 10_000, 0.3)
    assert factors.shape == (10_000,)
    assert [*np.quantile(factors, (0, 0.25, 0.5, 0.75, 1))] == pytest.approx([0.7, 0.85, 1, 1.15, 1.3], abs=0.01)


def test_pairs_are_mixed_by_one_share() -> None:
    X = np.random.default_rng(3).standard_normal((5, 8)).astype(np.float32)
    mixed = X.copy()
    share = 0.3
    mixup(mixed, share)
    assert mixed.dtype == np.float32
    for i in range(5):
        np.testing.assert_allclose(mixed[i], share * X[i] + (1 - share) * X[4 - i], rtol=1e-5, atol=1e-6)
