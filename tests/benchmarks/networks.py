"""The networks, updates and images of the benchmark, the same for every contestant."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from klcli.data.dataset import Splits, split
from klcli.data.sources import open_dataset
from klcli.settings.train_config import TrainConfig

UPDATES = 450  # one epoch of 45 000 images in minibatches of 100
LAMBDAS = tuple(float(lam) for lam in np.geomspace(1e-4, 1e-1, 8))


@dataclass(frozen=True)
class Race:
    """One network and the images on which it is trained."""

    name: str
    hidden: tuple[int, ...]
    batch_norm: bool
    splits: Splits = field(repr=False)
    sha256: str  # of the data set

    @property
    def config(self) -> TrainConfig:
        """The settings of klcli's contestant; the others take theirs from here."""
        return TrainConfig(hidden=self.hidden, batch_norm=self.batch_norm, order_seed=0)

    @property
    def widths(self) -> tuple[int, ...]:
        """All widths, from the pixels to the classes."""
        return (3072, *self.hidden, 10)

    @cached_property
    def standardised(self) -> tuple[np.ndarray, np.ndarray]:
        """All training images as float32, as a script keeps them, and their labels."""
        return _standardised(self.splits)

    def eta(self, step: int) -> float:
        """The cyclical learning rate of an update."""
        from klcli.engine.schedules import cyclical

        return cyclical(step, eta_min=1e-5, eta_max=1e-1, step_size=5 * UPDATES)


_IMAGES: dict[int, tuple[np.ndarray, np.ndarray]] = {}


def _standardised(splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Standardise once for all races: half a gigabyte."""
    if id(splits) not in _IMAGES:
        _IMAGES[id(splits)] = splits.train.batch(slice(None))
    return _IMAGES[id(splits)]


def races() -> list[Race]:
    """Return the races, on CIFAR-10 where it is found and on the built-in images elsewhere."""
    dataset = open_dataset(None)
    splits = split(dataset, TrainConfig().split)
    return [
        Race("3-layer BN", (50, 50), True, splits, dataset.sha256),
        Race("3-layer", (50, 50), False, splits, dataset.sha256),
        Race("9-layer BN", (50, 30, 20, 20, 10, 10, 10, 10), True, splits, dataset.sha256),
        Race("[512, 256] BN", (512, 256), True, splits, dataset.sha256),
    ]
