"""Images: the standardised images of every step; a helper writes those of the next one while the network computes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from klcli.compiled import NUMPY, Engine
from klcli.data.augmentation import background_of, moved
from klcli.data.dataset import Split

# The positions of images in a split, and their moves `(k, 3)` and factors of contrast `(k,)` of data.augmentation.
Drawn = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


class Images:
    """The images of `steps` steps in one precision; `draw(step)` says which they are."""

    def __init__(self, split: Split, dtype: str, engine: Engine, steps: int, draw: Callable[[int], Drawn]) -> None:
        self.split, self.dtype, self.steps, self.draw = split, np.dtype(dtype), steps, draw
        self._team: Any = None if engine is NUMPY else engine
        self._is_ahead = engine.has_helper  # otherwise one X, which stays in the cache, is faster than two in turn
        self._background = background_of(split)
        self._scale = [one.astype(self.dtype) for one in (split.mean, split.inverse_std)]
        self._begun, self._X = -1, np.empty(0)  # the last step whose images were begun to be written, and these
        # By number of images, and by parity of the step: X, the inputs of the row that writes it, and this row.
        self._buffers: dict[tuple[int, int], tuple[np.ndarray, ...]] = {}

    def of(self, step: int) -> np.ndarray:
        """Return the images `X (k, 3072)` of a step, and let a helper begin to write those of the next one.

        X is one of the same few arrays. It stays as it is until the call for `step + 1`.
        """
        if self._begun != step:
            self._begin(step)
        X = self._X
        if self._team is not None:
            self._team.finish()
        if self._is_ahead and step + 1 < self.steps:
            self._begin(step + 1)
        else:
            self._begun = -1  # whoever gets X may change it
        return X

    def _begin(self, step: int) -> None:
        index, moves, factors = self.draw(step)
        key = len(index), step % 2 if self._is_ahead else 0
        if key not in self._buffers:
            self._buffers[key] = self._buffer(len(index))
        self._begun, (self._X, rows, own_moves, own_factors, row) = step, self._buffers[key]
        if self._team is not None:
            rows[:], own_moves[:] = self.split.rows[index], 0 if moves is None else moves
            own_factors[:] = 1 if factors is None else factors
            self._team.offer(row, self)
            return
        change = None if moves is None else partial(moved, moves=moves, background=self._background)
        self.split.batch(index, self.dtype, change, out=self._X)
        if factors is not None:
            self._X *= factors[:, None].astype(self.dtype)

    def _buffer(self, n: int) -> tuple[np.ndarray, ...]:
        X, factors = np.empty((n, self.split.images.shape[1]), self.dtype), np.empty(n, self.dtype)
        rows, moves = np.empty(n, np.int64), np.empty((n, 3), np.int64)
        arrays = self.split.images, rows, moves, self._background, *self._scale, factors, X
        row = self._team and self._team.row(0, *arrays, extra=self.split.standardise == "image")
        return X, rows, moves, factors, row
