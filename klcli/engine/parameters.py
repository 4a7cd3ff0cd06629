"""Parameters: the trained arrays of a stack for the optimizer: every W, and one array with all vectors."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from klcli.engine.layers import Gradients
from klcli.engine.network import Network
from klcli.engine.optimizers import Gradient


class Parameters:
    """Every W (m, d_in, d_out), and all b, gamma and beta in one (m, 1, d), because a step costs one call per array."""

    def __init__(self, stacked: Network) -> None:
        """Copy the vectors of a stack into one array and replace those of its layers by views of it."""
        arrays = stacked.parameters()
        self._weights = [name for name in arrays if name.endswith(".W")]
        self._vectors = [name for name in arrays if name not in self._weights]
        self._cuts = np.cumsum([arrays[name].shape[-1] for name in self._vectors])[:-1]
        self.arrays = [*(arrays[name] for name in self._weights), self._joined(arrays)]
        views = self.by_name(self.arrays)
        for name in self._vectors:
            stacked.set_array(name, views[name])

    def in_order(self, gradients: Gradients) -> list[Gradient]:
        """Convert gradients by name to the shapes and order of `arrays`."""
        return [*(gradients[name] for name in self._weights), self._joined(gradients)]

    def by_name(self, arrays: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """Convert arrays shaped like `arrays` to arrays by parameter name, the vectors as views."""
        *weights, joined = arrays
        vectors = np.split(joined, self._cuts, axis=-1)
        return dict(zip([*self._weights, *self._vectors], [*weights, *vectors], strict=True))

    def like(self, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Copy values by name to the shapes, precision and memory order of `arrays`."""
        copies = [np.empty_like(array) for array in self.arrays]
        for name, array in self.by_name(copies).items():
            array[...] = values[name]
        return copies

    def _joined(self, arrays: Mapping[str, Any]) -> np.ndarray:
        return np.concatenate([arrays[name] for name in self._vectors], axis=-1)
