"""Minibatches: the images of an update, augmented, and their labels."""

from functools import partial

import numpy as np

from klcli.compiled import NUMPY, Engine
from klcli.compiled.images import Drawn, Images
from klcli.data.augmentation import draw_contrast, draw_moves, mixup
from klcli.data.dataset import CLASSES, Split, epoch_order, generator
from klcli.engine.losses import Loss
from klcli.settings.train_config import WEAK_CONTRAST, WEAK_SHIFT, TrainConfig

AUGMENTATION, MIXUP = 3, 4  # spawn keys, distinct from those of weights, order and dropout


class Minibatches:
    """The minibatches of a stack, each determined by the config and the update step alone."""

    def __init__(self, config: TrainConfig, split: Split, updates: int, team: Engine = NUMPY) -> None:
        self.config, self.split, self.updates = config, split, updates
        if not ((split.labels >= 0) & (split.labels < CLASSES)).all():  # compiled code does not check them
            raise ValueError(f"labels must be 0 to {CLASSES - 1}")
        self._images = Images(split, config.dtype, team, updates, self._draw)
        self._y, self._share = np.empty(config.batch_size, np.intp), np.ones(())  # of the update
        self.loss: Loss = team.cross_entropy
        if config.label_smoothing or config.mixup:
            mixed = {"share": self._share, "other": self._y[::-1]} if config.mixup else {}
            self.loss = partial(self.loss, smoothing=config.label_smoothing, **mixed)
        self._epoch, self._order = -1, np.empty(0, dtype=np.intp)  # of the images in that epoch

    def images(self, step: int) -> np.ndarray:
        """Return the images of update `step`, counted from 0, `(n, 3072)`, valid until the call for the next update."""
        X = self._images.of(step)
        if self.config.mixup:
            mixup(X, self.share(step))
        return X

    def labels(self, step: int) -> np.ndarray:
        """Return the labels of update `step`, `y (n,)`, always in the same array, for the function `loss`."""
        self._y[:] = self.split.labels[self._index(step)]
        if self.config.mixup:
            self._share[...] = self.share(step)
        return self._y

    def _draw(self, step: int) -> Drawn:
        config, moves, factors = self.config, None, None
        shift, contrast, n = config.shift, config.contrast, config.batch_size
        if step >= self.updates - round(config.weak_augmentation * self.updates):
            shift, contrast = min(shift, WEAK_SHIFT), min(contrast, WEAK_CONTRAST)
        if config.flip or shift or contrast:  # a generator takes 20 us to make
            rng = generator(config.shared_seed, AUGMENTATION, step)
            moves = draw_moves(rng, n, flip=config.flip, shift=shift) if config.flip or shift else None
            factors = draw_contrast(rng, n, contrast) if contrast else None
        return self._index(step), moves, factors

    def _index(self, step: int) -> np.ndarray:
        config, n = self.config, len(self.split)
        epoch, position = divmod(step, n // config.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = epoch_order(n, config.shared_seed, epoch) if config.shuffle else np.arange(n)
        return self._order[position * config.batch_size :][: config.batch_size]

    def share(self, step: int) -> float:
        """Return the mixup share of update `step`, from Beta(alpha, alpha)."""
        return float(generator(self.config.shared_seed, MIXUP, step).beta(self.config.mixup, self.config.mixup))
