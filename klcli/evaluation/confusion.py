"""Predictions of a trained network on a split, and the confusion matrix."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from klcli.data.dataset import CLASSES, Split
from klcli.engine.network import Network
from klcli.evaluation.metrics import scores


def predict(network: Network, split: Split, dtype: str = "float32") -> np.ndarray:
    """Return the class (n,) of the highest score of every image, with running averages."""
    return np.concatenate([S.argmax(axis=-1) for S, _ in scores(network, split, dtype)])


@dataclass(frozen=True)
class Confusion:
    """The number of images of each class (row) that were predicted as each class (column)."""

    counts: np.ndarray[Any, np.dtype[np.int64]]  # (K, K)

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.counts) / self.counts.sum())

    def most_confused(self, n: int) -> list[tuple[int, int, int]]:
        """Return the n most confused unordered pairs of classes, with their counts."""
        both = self.counts + self.counts.T
        pairs = [(a, b, int(both[a, b])) for a in range(len(both)) for b in range(a + 1, len(both)) if both[a, b]]
        return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))[:n]


def confusion(labels: np.ndarray, predicted: np.ndarray) -> Confusion:
    """Count the pairs of true and predicted class."""
    counts = np.bincount(labels * CLASSES + predicted, minlength=CLASSES**2)
    return Confusion(counts.reshape(CLASSES, CLASSES))
