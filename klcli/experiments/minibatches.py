"""Minibatches: which images an update sees, and what is done to them and to their labels before it does."""

from functools import partial

import numpy as np

from klcli.data.augmentation import augmented, background_of, mixup
from klcli.data.dataset import Split, epoch_order
from klcli.engine.losses import Loss, cross_entropy, soft_cross_entropy
from klcli.experiments.config import TrainConfig

AUGMENTATION, MIXUP = 3, 4  # spawn keys; those of weights, order and dropout are others

Minibatch = tuple[np.ndarray, np.ndarray, Loss]  # X (n, 3072), y (n,) and the loss that goes with them


class Minibatches:
    """The minibatches of a group of members, each a function of the config and of the update step alone."""

    def __init__(self, config: TrainConfig, split: Split) -> None:
        self.config = config
        self.split = split
        self._background = background_of(split)
        self._epoch = -1
        self._order = np.empty(0, dtype=np.intp)  # of the images in that epoch

    def at(self, step: int) -> Minibatch:
        """Return the minibatch of update `step`, counted from 0."""
        config = self.config
        epoch, position = divmod(step, len(self.split) // config.batch_size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._order_of(epoch)
        index = self._order[position * config.batch_size : (position + 1) * config.batch_size]
        X, y = self.split.batch(index, config.dtype, self._change(step) if config.flip or config.shift else None)
        if not (config.mixup or config.label_smoothing):
            return X, y, cross_entropy
        loss = partial(soft_cross_entropy, smoothing=config.label_smoothing)
        if config.mixup:
            loss = partial(loss, share=mixup(X, config.mixup, self._rng(MIXUP, step)), other=y[::-1])
        return X, y, loss

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
