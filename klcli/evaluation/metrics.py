"""evaluate: loss, cost and accuracy of a group of members on one split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from klcli import second_core
from klcli.data.dataset import Split
from klcli.engine.losses import log_softmax, negative_log_likelihood
from klcli.engine.network import Network

ROWS = 1000  # images per forward pass: 12 MB of float32, enough for BLAS and little for the memory


@dataclass(frozen=True)
class Metrics:
    """One network on one split."""

    loss: float  # cross-entropy alone
    cost: float  # J: loss plus the L2 term
    accuracy: float  # a fraction, 0 to 1


def evaluate(members: Network, split: Split, lam: Sequence[float], dtype: str = "float32") -> list[Metrics]:
    """Return the metrics of every member, with running averages, from one pass over the split.

    `members` has a leading axis of `len(lam)`. Sums are kept in float64.
    """
    blocks = [slice(start, start + ROWS) for start in range(0, len(split), ROWS)]
    half = len(blocks) // 2
    begun = second_core.begin(_sums, members, split, blocks[half:], dtype) if half else None
    here = _sums(members, split, blocks[:half], dtype)
    there = begun.value if begun and second_core.ended(begun) else _sums(members, split, blocks[half:], dtype)
    loss = np.zeros(len(lam))
    correct = np.zeros(len(lam), dtype=np.int64)
    for part in here + there:  # in the order of the images, whoever has added them up
        loss += part[0]
        correct += part[1]
    loss /= len(split)
    cost = loss + members.penalty(np.asarray(lam))
    return [Metrics(*map(float, values)) for values in zip(loss, cost, correct / len(split), strict=True)]


def _sums(members: Network, split: Split, blocks: list[slice], dtype: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the sum of the losses and the number of right answers, each `(m,)`, of every block of images."""
    sums = []
    for block in blocks:
        X, y = split.batch(block, dtype)
        S = members.scores(X)
        right = (S.argmax(axis=-1) == y).sum(axis=-1)
        sums.append((negative_log_likelihood(S, y).sum(axis=-1, dtype=np.float64), right))
    return sums


@dataclass(frozen=True)
class Score:
    """A classification of one split."""

    loss: float  # the mean of -log p_y
    accuracy: float


def log_probabilities(network: Network, split: Split, dtype: str = "float32") -> np.ndarray:
    """Return `log P (n, K)` of every image in float64, with running averages."""
    parts = []
    for start in range(0, len(split), ROWS):
        X, _ = split.batch(slice(start, start + ROWS), dtype)
        parts.append(log_softmax(network.scores(X).astype(np.float64)))
    return np.concatenate(parts)


def log_mean(log_P: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logarithm of the mean of probabilities that are given by their logarithms; nothing underflows."""
    total = log_P[0]
    for other in log_P[1:]:
        total = np.logaddexp(total, other)
    return np.asarray(total - np.log(len(log_P)))


def score_of(log_P: np.ndarray, split: Split) -> Score:
    """Return the score of probabilities that are given by their logarithms (n, K)."""
    loss = -log_P[np.arange(len(split)), split.labels].mean()
    return Score(float(loss), float(np.mean(log_P.argmax(axis=-1) == split.labels)))
