"""Minibatches: which images an update sees, and what is done to them and to their labels before it does."""

from functools import partial

import numpy as np

from klcli.data.augmentation import augmented, background_of, mixup
from klcli.data.dataset import Split, epoch_order
from klcli.engine.losses import Loss, cross_entropy, soft_cross_entropy
from klcli.second_core import Part
from klcli.settings.train_config import TrainConfig
from klcli.training.environment import BUFFER, pin_threads

PART = 25  # images: the core that makes a minibatch is free for other work after each of its parts
AUGMENTATION, MIXUP = 3, 4  # spawn keys; those of weights, order and dropout are others


class Minibatches:
    """The minibatches of a group of members, each a function of the config and of the update step alone."""

    def __init__(self, config: TrainConfig, split: Split) -> None:
        self.config = config
        self.split = split
        # Where images are changed, one generator draws for all of a minibatch, and mixup needs all of them.
        self.parts = 1 if config.flip or config.shift or config.mixup else max(1, config.batch_size // PART)
        self._background = background_of(split)
        self._epoch = -1
        self._order = np.empty(0, dtype=np.intp)  # of the images in that epoch

    def images(self, step: int, X: np.ndarray, part: Part = (0, 1)) -> None:
        """Write the images of update `step`, counted from 0, into `X (n, 3072)`, or one of up to `parts` parts."""
        config = self.config
        change = self._change(step) if config.flip or config.shift else None
        which, parts = part
        rows = slice(which * len(X) // parts, (which + 1) * len(X) // parts)
        self.split.batch(self._index(step)[rows], config.dtype, change, out=X[rows])
        if config.mixup:
            mixup(X, self.share(step))

    def labels(self, step: int) -> tuple[np.ndarray, Loss]:
        """Return the labels of update `step`, `y (n,)`, and the loss that goes with them."""
        config, y = self.config, self.split.labels[self._index(step)]
        if not (config.mixup or config.label_smoothing):
            return y, cross_entropy
        loss = partial(soft_cross_entropy, smoothing=config.label_smoothing)
        return y, partial(loss, share=self.share(step), other=y[::-1]) if config.mixup else loss

    def _index(self, step: int) -> np.ndarray:
        """Return which images of the split update `step` sees."""
        size = self.config.batch_size
        epoch, position = divmod(step, len(self.split) // size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._order_of(epoch)
        return self._order[position * size : (position + 1) * size]

    def share(self, step: int) -> float:
        """Return the share of update `step` in mixup, from Beta(alpha, alpha)."""
        return float(self._rng(MIXUP, step).beta(self.config.mixup, self.config.mixup))

    def _order_of(self, epoch: int) -> np.ndarray:
        n = len(self.split)
        return epoch_order(n, self.config.shared_seed, epoch) if self.config.shuffle else np.arange(n)

    def _change(self, step: int) -> "partial[np.ndarray]":
        """Return what augments the images of this update."""
        rng, config = self._rng(AUGMENTATION, step), self.config
        return partial(augmented, rng=rng, flip=config.flip, shift=config.shift, background=self._background)

    def _rng(self, purpose: int, step: int) -> np.random.Generator:
        sequence = np.random.SeedSequence(self.config.shared_seed, spawn_key=(purpose, step))
        return np.random.Generator(np.random.PCG64(sequence))


_followed: list[Minibatches] = []  # of a process on the second core, which makes the images of updates to come


def follow(minibatches: Minibatches) -> None:
    """Take these minibatches for those that `write_images` is asked for, and compute as the parent does."""
    pin_threads(1)
    np.setbufsize(BUFFER)
    _followed[:] = [minibatches]


def write_images(step: int, part: Part, X: np.ndarray) -> None:
    """Write a part of the images of an update into X."""
    _followed[0].images(step, X, part)
