"""Optimizers: they know lists of arrays, never a network.

`update(parameters, gradients, eta)` moves every parameter in place and uses the gradients up as work
space. eta is a number, or `(m,)` for parameters with a leading axis of m members. What an optimizer
carries from one update to the next is its `memory`: by name, one array for each parameter.

A WeightGradient marks its parameter as the weights of a layer; only these decay.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from klcli.engine.losses import l2_gradient
from klcli.engine.members import for_members
from klcli.engine.products import Rest
from klcli.engine.weight_gradient import WeightGradient, transposed

Gradient = np.ndarray | WeightGradient
Memory = dict[str, list[np.ndarray]]

BLOCK = 32_768  # numbers of W worked on at once: four arrays of 131 kB in float32 stay in a second-level cache
PRODUCT_UNITS = 384  # columns of dW multiplied out at once: fewer, and BLAS reads X too often


@dataclass
class SGD:
    """Stochastic gradient descent, `theta -= eta * (g + weight_decay * W)`, or with Nesterov's momentum.

    `velocity <- momentum * velocity + g`, then `theta -= eta * (g + momentum * velocity)`: the form of
    Sutskever et al. 2013 as PyTorch computes it.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0  # of W only
    memory: Memory = field(default_factory=dict)

    def update(self, parameters: Iterable[np.ndarray], gradients: Iterable[Gradient], eta: float | np.ndarray) -> None:
        """Make one step."""
        if self.momentum:
            self._update_with_momentum(list(parameters), gradients, eta)
            return
        rest: Rest = None  # of the last large step, while the small ones are taken
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if isinstance(gradient, WeightGradient):
                if self.weight_decay:  # without a moment, it is an L2 term of half the size
                    gradient = replace(gradient, lam=gradient.lam + self.weight_decay / 2)
                rest = gradient.descend(eta, rest)
            else:
                gradient *= for_members(eta, gradient)
                parameter -= gradient
        if rest is not None:
            rest()

    def _update_with_momentum(
        self, parameters: list[np.ndarray], gradients: Iterable[Gradient], eta: float | np.ndarray
    ) -> None:
        velocities = _remembered(self.memory, "velocity", parameters)
        for parameter, gradient, velocity in zip(parameters, gradients, velocities, strict=True):
            decay = self.weight_decay if isinstance(gradient, WeightGradient) else 0.0
            for theta, g, v in _blocks(gradient, parameter, velocity):
                v *= self.momentum
                v += g
                g += self.momentum * v
                g *= for_members(eta, g)
                _shrink(theta, eta, decay)
                theta -= g


@dataclass
class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) with the decoupled decay of Loshchilov and Hutter (2019, 1711.05101).

    `m <- b1 m + (1 - b1) g`, `v <- b2 v + (1 - b2) g^2`, and with t counting updates from 1
    `theta -= eta * (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay * W)`.

    The memory holds `mean = m / (1 - b1)` and `square = v / (1 - b2)`, which saves two passes over W.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0  # of W only
    updates: int = 0  # made so far
    memory: Memory = field(default_factory=dict)

    def update(self, parameters: Iterable[np.ndarray], gradients: Iterable[Gradient], eta: float | np.ndarray) -> None:
        """Make one step."""
        parameters = list(parameters)
        means = _remembered(self.memory, "mean", parameters)
        squares = _remembered(self.memory, "square", parameters)
        self.updates += 1
        scale = np.sqrt((1 - self.b2) / (1 - self.b2**self.updates))  # of sqrt(square)
        rate = eta * float((1 - self.b1) / (1 - self.b1**self.updates) / scale)
        eps = float(self.eps / scale)
        for parameter, gradient, mean, square in zip(parameters, gradients, means, squares, strict=True):
            decay = self.weight_decay if isinstance(gradient, WeightGradient) else 0.0
            for theta, g, m, v in _blocks(gradient, parameter, mean, square):
                m *= self.b1
                m += g
                g *= g
                v *= self.b2
                v += g
                np.sqrt(v, out=g)
                g += eps
                np.divide(m, g, out=g)
                g *= for_members(rate, g)
                _shrink(theta, eta, decay)
                theta -= g


def _shrink(W: np.ndarray, eta: float | np.ndarray, decay: float) -> None:
    """`W <- (1 - eta * decay) W`."""
    if decay:
        W *= for_members(1 - eta * decay, W)


def _remembered(memory: Memory, name: str, parameters: list[np.ndarray]) -> list[np.ndarray]:
    """Return the arrays of that name: zeros at the first update, laid out in memory as the parameters are."""
    if name not in memory:
        memory[name] = [np.zeros_like(parameter) for parameter in parameters]
    return memory[name]


def _blocks(gradient: Gradient, parameter: np.ndarray, *memory: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield (parameter, gradient, *memory), those of a W transposed and in blocks of units that fit into the cache.

    All but the gradient are views. Every pass over a large W would otherwise wait for the main memory: for
    3072 x 2048 a third of the time.
    """
    if not isinstance(gradient, WeightGradient):
        yield parameter, gradient, *memory
        return
    W, moments = transposed(parameter), [transposed(array) for array in memory]
    n = W.shape[-2]
    units = max(1, BLOCK * n // W.size)
    products = max(units, PRODUCT_UNITS // units * units)
    has_l2 = isinstance(gradient.lam, np.ndarray) or gradient.lam != 0
    for start in range(0, n, products):
        dW = gradient.products(start, min(n, start + products))
        for first in range(0, dW.shape[-2], units):
            part = slice(start + first, min(start + first + units, start + dW.shape[-2]))
            theta, g = W[..., part, :], dW[..., first : first + units, :]
            if has_l2:
                g += l2_gradient(theta, gradient.lam)
            yield theta, g, *(array[..., part, :] for array in moments)
