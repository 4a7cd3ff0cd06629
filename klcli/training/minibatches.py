"""Minibatches: the images of an update, augmented, and their labels."""

from functools import partial

import numpy as np

from klcli.data.augmentation import augmented, background_of, mixup
from klcli.data.dataset import Split, epoch_order
from klcli.engine.losses import Loss, cross_entropy, soft_cross_entropy
from klcli.second_core import Part
from klcli.settings.train_config import TrainConfig
from klcli.training.environment import BUFFER, pin_threads

PART = 25  # images per part: the second core can switch to other work after each part of a minibatch
AUGMENTATION, MIXUP = 3, 4  # spawn keys, distinct from those of weights, order and dropout


class Minibatches:
    """The minibatches of a stack, each determined by the config and the update step alone."""

    def __init__(self, config: TrainConfig, split: Split) -> None:
        self.config, self.split = config, split
        # One generator draws the augmentation of a whole minibatch, and mixup needs all of its images.
        self.parts = 1 if config.flip or config.shift or config.mixup else max(1, config.batch_size // PART)
        self._background = background_of(split)
        self._epoch, self._order = -1, np.empty(0, dtype=np.intp)  # of the images in that epoch

    def images(self, step: int, X: np.ndarray, part: Part = (0, 1)) -> None:
        """Write the images of update `step`, counted from 0, or one of up to `parts` parts, into `X (n, 3072)`."""
        config = self.config
        change = None
        if config.flip or config.shift:
            rng = self._rng(AUGMENTATION, step)
            change = partial(augmented, rng=rng, flip=config.flip, shift=config.shift, background=self._background)
        which, parts = part
        rows = slice(which * len(X) // parts, (which + 1) * len(X) // parts)
        self.split.batch(self._index(step)[rows], config.dtype, change, out=X[rows])
        if config.mixup:
            mixup(X, self.share(step))

    def labels(self, step: int) -> tuple[np.ndarray, Loss]:
        """Return the labels of update `step`, `y (n,)`, and the loss function for them."""
        config, y = self.config, self.split.labels[self._index(step)]
        if not (config.mixup or config.label_smoothing):
            return y, cross_entropy
        loss = partial(soft_cross_entropy, smoothing=config.label_smoothing)
        return y, partial(loss, share=self.share(step), other=y[::-1]) if config.mixup else loss

    def _index(self, step: int) -> np.ndarray:
        config, n = self.config, len(self.split)
        epoch, position = divmod(step, n // config.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = epoch_order(n, config.shared_seed, epoch) if config.shuffle else np.arange(n)
        return self._order[position * config.batch_size :][: config.batch_size]

    def share(self, step: int) -> float:
        """Return the mixup share of update `step`, from Beta(alpha, alpha)."""
        return float(self._rng(MIXUP, step).beta(self.config.mixup, self.config.mixup))

    def _rng(self, purpose: int, step: int) -> np.random.Generator:
        sequence = np.random.SeedSequence(self.config.shared_seed, spawn_key=(purpose, step))
        return np.random.Generator(np.random.PCG64(sequence))


_followed: list[Minibatches] = []  # of the process on the second core, which prepares the images of later updates


def follow(minibatches: Minibatches) -> None:
    """Use these minibatches in `write_images`, and configure NumPy as in the parent."""
    pin_threads(1)
    np.setbufsize(BUFFER)
    _followed[:] = [minibatches]


def write_images(step: int, part: Part, X: np.ndarray) -> None:
    """Write a part of the images of an update into X, in the process on the second core."""
    _followed[0].images(step, X, part)
