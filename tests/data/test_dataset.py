"""Splits, standardisation and minibatches, against plain float64 formulas on a small set."""

from pathlib import Path

import numpy as np
import pytest

from klcli.data.dataset import Dataset, Split, Splits, epoch_order, split, standardisation
from klcli.errors import ConfigError
from klcli.settings.split_config import SplitConfig

PER_FILE = 100


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (6 * PER_FILE, 3072), dtype=np.uint8)
    images[:, 5] = 77  # a constant pixel
    labels = rng.integers(0, 10, len(images)).astype(np.uint8)
    return Dataset("test", images, labels, tuple("abcdefghij"), "", "here", "binary", None, None)


def rows(splits: Splits) -> tuple[list[int], list[int], list[int]]:
    return splits.train.rows.tolist(), splits.validation.rows.tolist(), splits.test.rows.tolist()


@pytest.mark.parametrize(
    ("config", "train", "validation", "test"),
    [
        (SplitConfig(validation=50), range(450), range(450, 500), range(500, 600)),
        (SplitConfig(validation=1), range(499), range(499, 500), range(500, 600)),
        (SplitConfig(validation=30, train_batches=(2,)), range(100, 170), range(170, 200), range(500, 600)),
        (SplitConfig(train_batches=(1,), validation_batches=(2,)), range(100), range(100, 200), range(500, 600)),
        (SplitConfig(validation_batches=(1,)), range(100, 500), range(100), range(500, 600)),
        (SplitConfig(validation=50, subset=45), range(45), range(450, 455), range(500, 510)),
        (SplitConfig(validation=50, subset=1), range(1), range(450, 451), range(500, 501)),
        (SplitConfig(validation=50, subset=450), range(450), range(450, 500), range(500, 600)),
    ],
)
def test_split_takes_the_rows_that_were_asked_for(
    dataset: Dataset, config: SplitConfig, train: range, validation: range, test: range
) -> None:
    splits = split(dataset, config)
    assert rows(splits) == (list(train), list(validation), list(test))
    for part in (splits.train, splits.validation, splits.test):
        assert len(part) == len(part.rows)
        assert part.labels.tolist() == dataset.labels[part.rows].tolist()
        assert np.shares_memory(part.images, dataset.images)


def test_batches_are_joined_in_the_order_of_the_files(dataset: Dataset) -> None:
    splits = split(dataset, SplitConfig(train_batches=(4, 1), validation_batches=(3, 2)))
    assert rows(splits)[:2] == ([*range(100), *range(300, 400)], list(range(100, 300)))


@pytest.mark.parametrize(("batches", "files"), [((), range(500)), ((4, 1), [*range(100), *range(300, 400)])])
def test_a_random_split_is_the_draw_of_the_legacy_generator(
    dataset: Dataset, batches: tuple[int, ...], files: list[int]
) -> None:
    """As a program that calls numpy.random.seed and numpy.random.choice would draw the validation images."""
    for seed in (0, 2**32 - 1):
        np.random.seed(seed)  # noqa: NPY002
        expected = np.array(files)[np.random.choice(len(files), 50, replace=False)]  # noqa: NPY002
        train, validation, test = rows(split(dataset, SplitConfig(50, batches, split_seed=seed)))
        assert validation == expected.tolist()
        assert train == sorted({*files} - {*validation})
        assert test == [*range(500, 600)]
    first, *_ = split(dataset, SplitConfig(50, batches, split_seed=0, subset=5)).validation.rows
    assert first == files[np.random.RandomState(0).permutation(len(files))[0]]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (SplitConfig(validation=500), "--validation 500 leaves none of the 500"),
        (SplitConfig(validation=100, train_batches=(3,)), "--validation 100 leaves none of the 100"),
        (SplitConfig(validation=50, subset=451), "--subset 451 is more than the 450"),
    ],
)
def test_more_images_than_there_are_is_refused(dataset: Dataset, config: SplitConfig, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        split(dataset, config)


def test_standardisation_is_that_of_the_float64_formula(dataset: Dataset) -> None:
    for config in (SplitConfig(validation=50), SplitConfig(train_batches=(2, 5), validation=7)):
        splits = split(dataset, config)
        x = dataset.images[splits.train.rows].astype(np.float64)
        std = x.std(axis=0)
        std[5] = 1.0
        for part in (splits.train, splits.validation, splits.test):
            np.testing.assert_allclose(part.mean, x.mean(axis=0), rtol=1e-14)
            np.testing.assert_allclose(part.inverse_std, 1 / std, rtol=1e-12)


def test_standardisation_of_extreme_images_does_not_overflow() -> None:
    """50 000 white pixels sum to squares beyond 32 bits; one black one among them must still show."""
    images = np.full((50_000, 3), 255, np.uint8)
    images[0, 1] = 0
    mean, inverse_std = standardisation(images, np.arange(len(images)))
    p = 1 / 50_000
    np.testing.assert_allclose(mean, [255, 255 * (1 - p), 255], rtol=1e-15)
    np.testing.assert_allclose(inverse_std, [1, 1 / (255 * np.sqrt(p * (1 - p))), 1], rtol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-6), (np.float32, 3e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize(
    "index", [np.array([3, 449, 0, 3]), slice(0, 449), slice(10, 400, 3), slice(5, 5), np.arange(100, 260)]
)
def test_a_batch_is_the_standardised_images(
    dataset: Dataset, index: np.ndarray | slice, dtype: type, tolerance: float
) -> None:
    train = split(dataset, SplitConfig(validation=50)).train
    X, y = train.batch(index, dtype)
    chosen = np.arange(450)[index]
    pixels = dataset.images[:450].astype(np.float64)
    std = pixels.std(axis=0)
    std[5] = 1
    np.testing.assert_allclose(X, (pixels[chosen] - pixels.mean(axis=0)) / std, rtol=0, atol=tolerance)
    assert X.dtype == dtype
    assert y.tolist() == dataset.labels[chosen].tolist()
    assert y.dtype == np.intp


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("index", [np.array([3, 449, 0, 3]), slice(0, 130), slice(5, 5)])
def test_each_image_can_be_standardised_by_itself(
    dataset: Dataset, index: np.ndarray | slice, dtype: type, tolerance: float
) -> None:
    splits = split(dataset, SplitConfig(validation=50)).standardised("image")
    for part, rows in ((splits.train, np.arange(450)), (splits.test, np.arange(500, 600))):
        chosen = rows[index] if isinstance(index, slice) else rows[index % len(rows)]
        X, y = part.batch(index if isinstance(index, slice) else index % len(rows), dtype)
        pixels = dataset.images[chosen].astype(np.float64)
        expected = [
            (image - image.sum() / 3072) / np.sqrt(((image - image.mean()) ** 2).sum() / 3072) for image in pixels
        ]
        np.testing.assert_allclose(X, np.array(expected).reshape(-1, 3072), rtol=0, atol=tolerance)
        assert X.dtype == dtype
        assert y.tolist() == dataset.labels[chosen].tolist()
    assert splits.train.standardised("pixel").batch(slice(9))[0].tobytes() == (
        split(dataset, SplitConfig(validation=50)).train.batch(slice(9))[0].tobytes()
    )


def test_a_constant_image_becomes_0_and_an_extreme_one_does_not_overflow(dataset: Dataset) -> None:
    images = np.array([np.full(3072, 255), np.zeros(3072), [255, *[0] * 3071]], np.uint8)
    zeros, ones = np.zeros(3072), np.ones(3072)
    X, _ = Split(images, np.arange(3), np.zeros(3, np.intp), zeros, ones, "image").batch(slice(None), np.float64)
    assert not X[:2].any()
    p = 1 / 3072  # one pixel of all is white
    np.testing.assert_allclose(X[2], np.where(np.arange(3072) == 0, 1 - p, -p) / np.sqrt(p * (1 - p)), rtol=1e-12)


def test_rows_in_any_order_are_respected(dataset: Dataset) -> None:
    """First and last row can look like a run where the ones between are not."""
    zeros, ones = np.zeros(3072), np.ones(3072)
    shuffled = np.array([10, 12, 11, 13])
    part = Split(dataset.images, shuffled, dataset.labels[shuffled].astype(np.intp), zeros, ones)
    assert np.array_equal(part.batch(slice(None))[0], dataset.images[shuffled])


def test_a_batch_leaves_the_images_alone(dataset: Dataset) -> None:
    before = dataset.images.copy()
    X, _ = split(dataset, SplitConfig(validation=50)).train.batch(slice(0, 60))
    X += 1
    assert np.array_equal(dataset.images, before)


def test_a_memory_map_gives_the_same_batches(dataset: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", dataset.images)
    mapped = Dataset(**{**vars(dataset), "images": np.load(tmp_path / "images.npy", mmap_mode="r")})
    index = np.array([4, 400, 17])
    config = SplitConfig(validation=50)
    assert np.array_equal(split(mapped, config).train.batch(index)[0], split(dataset, config).train.batch(index)[0])


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    order = epoch_order(1000, 5, 2)
    assert sorted(order.tolist()) == list(range(1000))
    assert np.array_equal(order, epoch_order(1000, 5, 2))
    assert not np.array_equal(order, epoch_order(1000, 5, 3))
    assert not np.array_equal(order, epoch_order(1000, 6, 2))
    # Seed and epoch do not stand in for each other.
    assert not np.array_equal(epoch_order(1000, 2, 5), order)
