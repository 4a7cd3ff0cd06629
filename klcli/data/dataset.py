"""A data set in memory: its splits, their standardisation, and the order of the images in an epoch."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from klcli.settings.split_config import FILES, SplitConfig

PIXELS = 3072  # 3 channels of 32 x 32, channel-major
CLASSES = 10
SYNTHETIC, BUILT_IN = "synthetic", "built in"  # name of the built-in set; its source and layout
ORDER = 1  # spawn key of the generator that draws the order

STANDARDISE_ROWS = 50  # 600 kB of float32: the three passes over a block stay in the second-level cache
Index = np.ndarray | slice
Change = Callable[[np.ndarray], np.ndarray]
SUM_ROWS = 256  # 1.5 MB of squares as uint16; the sums stay far below 2**32


@dataclass(frozen=True)
class Dataset:
    """All images of a data set, training batches 1 to 5 in order and then the test batch."""

    name: str  # "cifar10" or "synthetic"
    images: np.ndarray  # (60000, 3072) uint8, channel-major; may be a read-only memory map
    labels: np.ndarray  # (60000,) uint8
    class_names: tuple[str, ...]
    sha256: str  # hex, over the labels and then the images: the same for every layout of the same data
    source: str  # absolute path in use, as `path_text`, or "built in"
    layout: str  # "python", "binary" or "matlab", each also with " archive", or "built in"
    official: bool | None = None  # whether these are the published images; None for the built-in set
    images_file: Path | None = None  # the prepared copy behind a memory map
    passed_over: tuple[str, ...] = ()  # what is wrong with the usual places that were tried before this one


def content_sha256(labels: np.ndarray, images: np.ndarray) -> str:
    """Return the identity of a data set: the hash over its labels and then its images, in hexadecimal digits."""
    digest = hashlib.sha256(np.ascontiguousarray(labels).data)
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """The train, validation or test split: rows of the data set's images, which are never copied as a whole."""

    images: np.ndarray  # (N, 3072) uint8, of the whole data set
    rows: np.ndarray  # (n,) intp, the images of this split
    labels: np.ndarray  # (n,) intp
    mean: np.ndarray  # (3072,) float64, of the training split
    inverse_std: np.ndarray  # (3072,) float64, of the training split
    standardise: str = "pixel"  # "pixel": by these two; "image": each image by its own mean and standard deviation

    def __len__(self) -> int:
        return len(self.rows)

    def batch(
        self, index: Index, dtype: DTypeLike = np.float32, change: Change | None = None, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return X (k, 3072) of `dtype`, (pixel - mean) / std, and y (k,) intp of the positions `index`.

        `change` may replace the bytes first; X goes to `out` if given. Bytes need a quarter of the memory traffic.
        """
        dtype, pixels = np.dtype(dtype), np.take(self.images, self.rows[index], axis=0)
        pixels = pixels if change is None else change(pixels)
        X = np.empty(pixels.shape, dtype) if out is None else out
        mean, inverse_std = self.mean.astype(dtype), self.inverse_std.astype(dtype)
        for start in range(0, len(X), STANDARDISE_ROWS):
            block, raw = X[start : start + STANDARDISE_ROWS], pixels[start : start + STANDARDISE_ROWS]
            if self.standardise == "image":
                scale = _mean_and_inverse_std(_sums(raw, axis=1), PIXELS)
                mean, inverse_std = (one[:, None].astype(dtype) for one in scale)
            block[...] = raw
            block -= mean
            block *= inverse_std
        return X, self.labels[index]

    def standardised(self, how: str) -> "Split":
        return self if how == self.standardise else replace(self, standardise=how)


@dataclass(frozen=True)
class Inputs:
    """What the inputs and outputs of a network mean: with it, a picture can be classified without the data set."""

    mean: np.ndarray  # (3072,) float64, of each pixel over the training split, 0 to 255
    std: np.ndarray  # (3072,) float64, above 0
    class_names: tuple[str, ...]  # of the outputs, in order

    def split(self, pixels: Sequence[np.ndarray], standardise: str) -> Split:
        """Return images (3072,) uint8 as a split, standardised as in the training; labels are unknown and set to 0."""
        rows = np.arange(len(pixels))
        # 1 / std gives back the bits of the `inverse_std` that std was computed from: of two roundings, one is exact.
        return Split(np.stack(pixels), rows, np.zeros_like(rows), self.mean, 1 / self.std, standardise)


@dataclass(frozen=True)
class Splits:
    """The three splits of one data set, disjoint and standardised alike."""

    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    def standardised(self, how: str) -> "Splits":
        return Splits(self.class_names, *(part.standardised(how) for part in (self.train, self.validation, self.test)))

    @property
    def inputs(self) -> Inputs:
        return Inputs(self.train.mean, 1 / self.train.inverse_std, self.class_names)


def split(dataset: Dataset, config: SplitConfig) -> Splits:
    """Divide the data set and standardise by the training split. Raises ConfigError, as `sizes`, for too few images."""
    files = np.arange(len(dataset.images)).reshape(FILES, -1)  # the rows of each batch file
    sizes = config.sizes(files.shape[1])
    numbers = (config.batches, [*config.validation_batches], [FILES])
    train, validation, test = (files[[batch - 1 for batch in part]].reshape(-1) for part in numbers)
    if not config.validation_batches:
        chosen = np.arange(len(train) - config.validation, len(train))
        if config.split_seed is not None:
            # By NumPy's legacy generator, whose stream never changes: `numpy.random.seed(split_seed)` and then
            # `numpy.random.choice(n, validation, replace=False)` name the same images in any program.
            chosen = np.random.RandomState(config.split_seed).choice(len(train), config.validation, replace=False)
        train, validation = np.delete(train, chosen), train[chosen]
    parts = [rows[:size] for rows, size in zip((train, validation, test), sizes, strict=True)]
    # Every slice of a memory map runs Python code; a slice of its plain ndarray view does not.
    images = np.asarray(dataset.images)
    scale = standardisation(images, parts[0])
    found = (Split(images, rows, dataset.labels[rows].astype(np.intp), *scale) for rows in parts)
    return Splits(dataset.class_names, *found)


def standardisation(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and 1 / std of each pixel over `rows` of `images` (N, 3072) uint8: two (3072,) float64.

    std is biased, sqrt(mean(x^2) - mean(x)^2), of exact integer sums. A constant pixel gets std 1 and becomes 0.
    """
    sums = np.zeros((2, images.shape[1]), np.uint64)
    for start in range(0, len(rows), SUM_ROWS):
        sums += _sums(images[rows[start : start + SUM_ROWS]], axis=0)
    return _mean_and_inverse_std(sums, len(rows))


def _sums(pixels: np.ndarray, axis: int) -> np.ndarray:
    """Return the sums of uint8 pixels and of their squares along an axis: (2, m) uint64."""
    squares = np.multiply(pixels, pixels, dtype=np.uint16)
    return np.array([pixels.sum(axis=axis, dtype=np.uint32), squares.sum(axis=axis, dtype=np.uint32)], np.uint64)


def _mean_and_inverse_std(sums: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    total, squares = sums
    spread = n * squares - total * total  # n^2 times the variance, below 2^64 for 500 000 values
    std = np.sqrt(spread.astype(np.float64)) / n
    std[spread == 0] = 1.0
    return total / np.float64(n), 1.0 / std


def epoch_order(n: int, order_seed: int, epoch: int) -> np.ndarray:
    """Return the (n,) permutation in which `epoch` visits a split of n images: a pure function of its arguments."""
    return generator(order_seed, ORDER, epoch).permutation(n)


def generator(seed: int, *purpose: int) -> np.random.Generator:
    """Return the generator of a seed for one purpose, its spawn key: no two of them draw the same numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=purpose)))
