"""Optimizers: they know lists of arrays, never a network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from klcli.engine.members import for_members


@dataclass
class SGD:
    """Stochastic gradient descent: `theta -= eta * gradient`."""

    def update(
        self, parameters: Sequence[np.ndarray], gradients: Sequence[np.ndarray], eta: float | np.ndarray
    ) -> None:
        """Move every parameter in place; the gradients are used up as work space.

        eta is a number, or `(m,)` for parameters with a leading axis of m members.
        """
        for parameter, gradient in zip(parameters, gradients, strict=True):
            gradient *= for_members(eta, gradient)
            parameter -= gradient
