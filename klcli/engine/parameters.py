"""Parameters: the trained arrays of m members as an optimizer steps them, every W and one array of all vectors."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from klcli.engine.layers import Gradients
from klcli.engine.network import Network
from klcli.engine.optimizers import Gradient


class Parameters:
    """Every W (m, d_in, d_out), and all b, gamma and beta side by side as one (m, 1, d).

    A step of a vector costs its call and not its numbers, and a deep network has three vectors a layer.
    """

    def __init__(self, members: Network) -> None:
        """Put the vectors of the members (what `stack` returns) into one array, of which theirs become views."""
        arrays = members.parameters()
        self._weights = [name for name in arrays if name.endswith(".W")]
        self._vectors = [name for name in arrays if name not in self._weights]
        self._cuts = np.cumsum([arrays[name].shape[-1] for name in self._vectors])[:-1]
        self.arrays = [*(arrays[name] for name in self._weights), self._joined(arrays)]
        views = self.by_name(self.arrays)
        for name in self._vectors:
            layer, _, field = name.partition(".")
            setattr(members.layers[layer], field, views[name])

    def in_order(self, gradients: Gradients) -> list[Gradient]:
        """Return gradients by name as an optimizer wants them, in the order of `arrays`."""
        return [*(gradients[name] for name in self._weights), self._joined(gradients)]

    def by_name(self, arrays: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """Return arrays shaped as `arrays` by the names of the parameters, the vectors as views."""
        *weights, joined = arrays
        vectors = np.split(joined, self._cuts, axis=-1)
        return dict(zip([*self._weights, *self._vectors], [*weights, *vectors], strict=True))

    def like(self, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return copies of values by name, shaped as `arrays`, in their precision and in memory as they lie there."""
        copies = [np.empty_like(array) for array in self.arrays]
        for name, array in self.by_name(copies).items():
            array[...] = values[name]
        return copies

    def _joined(self, arrays: Mapping[str, Any]) -> np.ndarray:
        return np.concatenate([arrays[name] for name in self._vectors], axis=-1)
