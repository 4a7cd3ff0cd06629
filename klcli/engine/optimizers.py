"""Optimizers: they know lists of arrays, never a network."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from klcli.engine.members import for_members
from klcli.engine.weight_gradient import WeightGradient


@dataclass
class SGD:
    """Stochastic gradient descent: `theta -= eta * gradient`."""

    def update(
        self,
        parameters: Iterable[np.ndarray],
        gradients: Iterable[np.ndarray | WeightGradient],
        eta: float | np.ndarray,
    ) -> None:
        """Move every parameter in place; the gradients are used up as work space.

        eta is a number, or `(m,)` for parameters with a leading axis of m members. A WeightGradient
        moves its own weights.
        """
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if isinstance(gradient, WeightGradient):
                gradient.descend(eta)
            else:
                gradient *= for_members(eta, gradient)
                parameter -= gradient
