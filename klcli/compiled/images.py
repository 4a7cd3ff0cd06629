"""Images: writes standardised images of a split, while the network computes with the minibatch before."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from klcli.data.augmentation import background_of, moved
from klcli.data.dataset import Split

if TYPE_CHECKING:
    from klcli.compiled.team import Team


class Images:
    """Writes images of one split in one precision; without a team, in NumPy and before `begin` returns."""

    def __init__(self, split: Split, dtype: str, team: "Team | None") -> None:
        self.split, self.dtype, self.team = split, np.dtype(dtype), team
        self._background = background_of(split)
        self._scale = [one.astype(self.dtype) for one in (split.mean, split.inverse_std)]

    def begin(self, index: np.ndarray | slice, X: np.ndarray, moves: np.ndarray | None = None) -> None:
        """Begin to write the images at positions `index` to X (k, 3072), with `moves (k, 3)` of data.augmentation."""
        if self.team is None:
            change = None if moves is None else partial(moved, moves=moves, background=self._background)
            self.split.batch(index, self.dtype, change, out=X)
            return
        rows = np.ascontiguousarray(self.split.rows[index], np.int64)
        moves = np.zeros((len(rows), 3), np.int64) if moves is None else moves
        by_image = self.split.standardise == "image"
        self.team.offer_images(self.split.images, rows, moves, self._background, by_image, *self._scale, X)

    def finish(self) -> None:
        """Wait until all of X is written."""
        if self.team is not None:
            self.team.finish_images()
