"""Parameters: the trained arrays of a stack as the optimizer gets them, every W and one array of all vectors."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from klcli.engine.layers import Gradients
from klcli.engine.network import Network
from klcli.engine.optimizers import Gradient


class Parameters:
    """Every W (m, d_in, d_out), and all b, gamma and beta in one (m, 1, d), because a step of each costs one call."""

    def __init__(self, stacked: Network) -> None:
        """Copy the vectors of a stack into one array; its layers get views of it."""
        arrays = stacked.parameters()
        self._weights = [name for name in arrays if name.endswith(".W")]
        self._vectors = [name for name in arrays if name not in self._weights]
        self._cuts = np.cumsum([arrays[name].shape[-1] for name in self._vectors])[:-1]
        self.arrays = [*(arrays[name] for name in self._weights), self._joined(arrays)]
        views = self.by_name(self.arrays)
        for name in self._vectors:
            stacked.set_array(name, views[name])

    def in_order(self, gradients: Gradients) -> list[Gradient]:
        """Return gradients, given by name, in the shapes and order of `arrays`."""
        return [*(gradients[name] for name in self._weights), self._joined(gradients)]

    def by_name(self, arrays: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """Return arrays shaped like `arrays` by the names of the parameters, the vectors as views."""
        *weights, joined = arrays
        vectors = np.split(joined, self._cuts, axis=-1)
        return dict(zip([*self._weights, *self._vectors], [*weights, *vectors], strict=True))

    def like(self, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return copies of values, given by name, in the shapes, precision and memory order of `arrays`."""
        copies = [np.empty_like(array) for array in self.arrays]
        for name, array in self.by_name(copies).items():
            array[...] = values[name]
        return copies

    def _joined(self, arrays: Mapping[str, Any]) -> np.ndarray:
        return np.concatenate([arrays[name] for name in self._vectors], axis=-1)
