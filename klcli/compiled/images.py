"""Images: writes standardised images of a split, while the network computes with the minibatch before."""

from functools import partial
from typing import Any

import numpy as np

from klcli.compiled import NUMPY, Engine
from klcli.data.augmentation import background_of, moved
from klcli.data.dataset import Index, Split


class Images:
    """Writes images of one split in one precision; in NumPy before `begin` returns."""

    def __init__(self, split: Split, dtype: str, engine: Engine = NUMPY) -> None:
        self.split, self.dtype = split, np.dtype(dtype)
        self._team: Any = None if engine is NUMPY else engine
        self._background = background_of(split)
        self._scale = [one.astype(self.dtype) for one in (split.mean, split.inverse_std)]
        self._minibatches: dict[int, tuple[np.ndarray, ...]] = {}  # by id of X: X, the row that writes it, its inputs

    def begin(
        self, index: Index, X: np.ndarray, moves: np.ndarray | None = None, factors: np.ndarray | None = None
    ) -> None:
        """Begin to write the images at positions `index` to X (k, 3072), always the same few arrays.

        `moves (k, 3)` and the `factors (k,)` of the contrast are those of data.augmentation.
        """
        if self._team is None:
            change = None if moves is None else partial(moved, moves=moves, background=self._background)
            self.split.batch(index, self.dtype, change, out=X)
            if factors is not None:
                X *= factors[:, None].astype(self.dtype)
            return
        if id(X) not in self._minibatches:
            inputs = np.empty(len(X), np.int64), np.zeros((len(X), 3), np.int64), np.ones(len(X), self.dtype)
            arrays = self.split.images, *inputs[:2], self._background, *self._scale, inputs[2], X
            row = self._team.row(0, *arrays, extra=self.split.standardise == "image")
            self._minibatches[id(X)] = X, row, *inputs
        _, row, rows, own_moves, own_factors = self._minibatches[id(X)]
        rows[:] = self.split.rows[index]
        own_moves[:] = 0 if moves is None else moves
        own_factors[:] = 1 if factors is None else factors
        self._team.offer(row, self)

    def finish(self) -> None:
        """Wait until all of X is written."""
        if self._team is not None:
            self._team.finish()
