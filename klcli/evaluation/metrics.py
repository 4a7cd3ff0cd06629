"""Loss, cost and accuracy of the replicas of a stack on one split, and scores of averaged probabilities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from klcli import second_core
from klcli.data.dataset import Split
from klcli.engine.losses import log_softmax, negative_log_likelihood
from klcli.engine.network import Network

ROWS = 1000  # images per forward pass: 12 MB of float32, enough for BLAS to be efficient


@dataclass(frozen=True)
class Metrics:
    """The metrics of one network on one split."""

    loss: float  # cross-entropy alone
    cost: float  # J: loss plus the L2 term
    accuracy: float  # a fraction, 0 to 1


def evaluate(stack: Network, split: Split, lam: Sequence[float], dtype: str = "float32") -> list[Metrics]:
    """Return the metrics of every replica of a stack of `len(lam)`, with running averages; sums are in float64."""
    blocks = blocks_of(split)
    half = len(blocks) // 2
    begun = second_core.begin(_sums, stack, split, blocks[half:], dtype) if half else None
    here = _sums(stack, split, blocks[:half], dtype)
    there = begun.value if begun and second_core.ended(begun) else _sums(stack, split, blocks[half:], dtype)
    loss, correct = np.zeros(len(lam)), np.zeros(len(lam), dtype=np.int64)
    for block_loss, block_correct in here + there:  # in the order of the images, for the same bits on one core and two
        loss += block_loss
        correct += block_correct
    loss /= len(split)
    cost = loss + stack.penalty(np.asarray(lam))
    return [Metrics(*map(float, values)) for values in zip(loss, cost, correct / len(split), strict=True)]


def _sums(stack: Network, split: Split, blocks: list[slice], dtype: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the sum of the losses and the number of correct predictions, each `(m,)`, of every block of images."""
    return [
        (negative_log_likelihood(S, y).sum(axis=-1, dtype=np.float64), (S.argmax(axis=-1) == y).sum(axis=-1))
        for S, y in scores(stack, split, dtype, blocks)
    ]


def scores(
    network: Network, split: Split, dtype: str, blocks: list[slice] | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the scores and the labels of every block of images, with running averages."""
    for block in blocks_of(split) if blocks is None else blocks:
        X, y = split.batch(block, dtype)
        yield network.scores(X), y


def blocks_of(split: Split) -> list[slice]:
    """Divide a split into blocks of ROWS images, so that memory does not grow with the size of the split."""
    return [slice(start, start + ROWS) for start in range(0, len(split), ROWS)]


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
