"""Loss, cost, accuracy and confusion of networks on one split, and scores of averaged probabilities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from klcli.compiled import NUMPY
from klcli.compiled.images import Images
from klcli.data.dataset import CLASSES, Split
from klcli.engine.losses import log_softmax, negative_log_likelihood
from klcli.engine.network import Network

ROWS = 500  # images per forward pass: 6 MB of float32, enough for BLAS to be efficient


@dataclass(frozen=True)
class Metrics:
    """The metrics of one network on one split."""

    loss: float  # cross-entropy alone
    cost: float  # J: loss plus the L2 term
    accuracy: float  # a fraction, 0 to 1


def evaluate(stack: Network, split: Split, lam: Sequence[float], dtype: str = "float32") -> list[Metrics]:
    """Return the metrics of every replica of a stack of `len(lam)`, with running averages; sums are in float64."""
    loss, correct = np.zeros(len(lam)), np.zeros(len(lam), dtype=np.int64)
    for S, y in scores(stack, split, dtype):
        loss += negative_log_likelihood(S, y).sum(axis=-1, dtype=np.float64)
        correct += (S.argmax(axis=-1) == y).sum(axis=-1)
    loss /= len(split)
    cost = loss + stack.penalty(np.asarray(lam))
    return [Metrics(*map(float, values)) for values in zip(loss, cost, correct / len(split), strict=True)]


def scores(network: Network, split: Split, dtype: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the scores and the labels of every block of ROWS images, with running averages."""
    engine = network.engine or NUMPY
    compute, everything = engine.repeated(network.scores), np.arange(len(split))
    blocks = [everything[start : start + ROWS] for start in range(0, len(split), ROWS)]
    images = Images(split, dtype, engine, len(blocks), lambda number: (blocks[number], None, None))
    for number, block in enumerate(blocks):
        yield compute(images.of(number)), split.labels[block]


@dataclass(frozen=True)
class Score:
    """Loss and accuracy of averaged probabilities on one split."""

    loss: float  # the mean of -log p_y
    accuracy: float


def log_probabilities(network: Network, split: Split, dtype: str = "float32") -> np.ndarray:
    """Return `log P (n, K)` of every image in float64, with running averages."""
    return np.concatenate([log_softmax(S.astype(np.float64)) for S, _ in scores(network, split, dtype)])


def log_mean(log_P: Sequence[np.ndarray]) -> np.ndarray:
    """Return the log of the mean of probabilities, given as log probabilities, without underflow."""
    return np.asarray(reduce(np.logaddexp, log_P) - np.log(len(log_P)))


def score_of(log_P: np.ndarray, split: Split) -> Score:
    """Return the score of log probabilities (n, K)."""
    loss = -log_P[np.arange(len(split)), split.labels].mean()
    return Score(float(loss), float(np.mean(log_P.argmax(axis=-1) == split.labels)))


def confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the number of images of each class (row) that were predicted as each class (column), (K, K)."""
    return np.bincount(labels * CLASSES + predicted, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def predict(network: Network, split: Split, dtype: str = "float32") -> np.ndarray:
    """Return the class (n,) of the highest score of every image, with running averages."""
    return np.concatenate([S.argmax(axis=-1) for S, _ in scores(network, split, dtype)])
