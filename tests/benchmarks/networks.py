"""The networks, updates and images of the benchmark, the same for every contestant."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from klcli.data.dataset import Splits, split
from klcli.data.sources import open_dataset
from klcli.settings.presets import preset
from klcli.settings.train_config import TrainConfig

UPDATES = 450  # one epoch of 45 000 images in minibatches of 100
# One order of the images for all seeds, and a training that no number of rounds completes.
BASE = TrainConfig(batch_norm=True, order_seed=0, cycles=1000)
LAMBDAS = tuple(float(lam) for lam in np.geomspace(1e-4, 1e-1, 8))


@dataclass(frozen=True)
class Race:
    """One network and the images on which it is trained."""

    name: str
    splits: Splits = field(repr=False)
    sha256: str  # of the data set
    config: TrainConfig = BASE  # of klcli's contestant; the others take their settings from here
    updates: int = 300  # per round
    networks: int = 1  # that train at once

    @property
    def widths(self) -> tuple[int, ...]:
        """All widths, from the pixels to the classes."""
        return (3072, *self.config.hidden, 10)

    def products(self) -> Iterator[tuple[int, int, bool]]:
        """Yield the shape of every weight matrix, and whether an update needs the gradient of its input."""
        for index, (a, b) in enumerate(itertools.pairwise(self.widths)):
            yield a, b, index > 0

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
    images = splits, dataset.sha256
    narrow = replace(BASE, hidden=(50, 30, 20, 20, 10, 10, 10, 10))
    return [
        Race("3-layer BN", *images),
        Race("3-layer", *images, replace(BASE, batch_norm=False)),
        Race("9-layer BN", *images, narrow),
        Race("[512, 256] BN", *images, replace(BASE, hidden=(512, 256)), updates=100),
        Race("best preset's shapes", *images, preset("best").config, updates=20),
        Race("search of 8 lambdas, per network", *images, updates=UPDATES, networks=len(LAMBDAS)),
    ]
