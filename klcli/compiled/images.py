"""Images: writes standardised images of a split, while the network computes with the minibatch before."""

from functools import partial

import numpy as np

from klcli.compiled import NUMPY, Engine
from klcli.data.augmentation import background_of, moved
from klcli.data.dataset import Index, Split


class Images:
    """Writes images of one split in one precision; in NumPy before `begin` returns."""

    def __init__(self, split: Split, dtype: str, engine: Engine = NUMPY) -> None:
        self.split, self.dtype, self.engine = split, np.dtype(dtype), engine
        self._background = background_of(split)
        self._scale = [one.astype(self.dtype) for one in (split.mean, split.inverse_std)]

    def begin(
        self, index: Index, X: np.ndarray, moves: np.ndarray | None = None, factors: np.ndarray | None = None
    ) -> None:
        """Begin to write the images at positions `index` to X (k, 3072).

        `moves (k, 3)` and the `factors (k,)` of the contrast are those of data.augmentation.
        """
        if self.engine is NUMPY:
            change = None if moves is None else partial(moved, moves=moves, background=self._background)
            self.split.batch(index, self.dtype, change, out=X)
            if factors is not None:
                X *= factors[:, None].astype(self.dtype)
            return
        rows = np.ascontiguousarray(self.split.rows[index], np.int64)
        moves = np.zeros((len(rows), 3), np.int64) if moves is None else moves
        factors = np.ones(len(rows), self.dtype) if factors is None else factors.astype(self.dtype)
        by_image = self.split.standardise == "image"
        self.engine.offer_images(self.split.images, rows, moves, factors, self._background, by_image, *self._scale, X)

    def finish(self) -> None:
        """Wait until all of X is written."""
        self.engine.finish_images()
