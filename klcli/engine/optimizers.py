"""Optimizers, and the exponential average of the weights. They operate on arrays, never on a network.

`update(parameters, gradients, eta)` takes one step: it changes every parameter in place and overwrites the gradients.
eta is a number, or `(m,)` for parameters with a leading axis of m replicas. `memory` is the state of an optimizer
between updates: by name, one array per parameter. Weight decay applies only to parameters with a WeightGradient.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from klcli.engine.broadcasting import per_replica
from klcli.engine.losses import l2_gradient
from klcli.engine.products import PendingStep
from klcli.engine.weight_gradient import WeightGradient

Gradient = np.ndarray | WeightGradient
Memory = dict[str, list[np.ndarray]]
Rate = float | np.ndarray

BLOCK = 32_768  # numbers per block: four arrays of 131 kB in float32 fit into a second-level cache
PRODUCT_UNITS = 384  # columns of dW per block; with fewer, BLAS reads X too often


@dataclass
class SGD:
    """Stochastic gradient descent, `theta -= eta * (g + weight_decay * W)`, optionally with Nesterov momentum.

    `velocity <- momentum * velocity + g`, `theta -= eta * (g + momentum * velocity)` (Sutskever et al. 2013; PyTorch).
    """

    momentum: float = 0.0
    weight_decay: float = 0.0  # of W only
    memory: Memory = field(default_factory=dict)

    def update(self, parameters: Iterable[np.ndarray], gradients: Iterable[Gradient], eta: Rate) -> None:
        if self.momentum:
            self._update_with_momentum(list(parameters), gradients, eta)
            return
        pending: PendingStep = None  # the last large step, on the second core during the small steps on this one
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if isinstance(gradient, WeightGradient):
                if self.weight_decay:  # without momentum, the same as an L2 term with lambda = weight_decay / 2
                    gradient = replace(gradient, lam=gradient.lam + self.weight_decay / 2)
                pending = gradient.descend(eta, pending)
            else:
                gradient *= per_replica(eta, gradient)
                parameter -= gradient
        if pending is not None:
            pending()

    def _update_with_momentum(self, parameters: list[np.ndarray], gradients: Iterable[Gradient], eta: Rate) -> None:
        self.memory = self.memory or _zeros_like(parameters, "velocity")
        for parameter, gradient, velocity in zip(parameters, gradients, self.memory["velocity"], strict=True):
            for theta, g, v in _blocks(gradient, parameter, velocity):
                v *= self.momentum
                v += g
                g += self.momentum * v
                _descend(theta, g, gradient, eta, eta, self.weight_decay)


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
    updates: int = 0  # number of updates so far
    memory: Memory = field(default_factory=dict)

    def update(self, parameters: Iterable[np.ndarray], gradients: Iterable[Gradient], eta: Rate) -> None:
        parameters = list(parameters)
        self.memory = self.memory or _zeros_like(parameters, "mean", "square")
        means, squares = self.memory["mean"], self.memory["square"]
        self.updates += 1
        scale = np.sqrt((1 - self.b2) / (1 - self.b2**self.updates))  # of sqrt(square)
        rate = eta * float((1 - self.b1) / (1 - self.b1**self.updates) / scale)
        eps = float(self.eps / scale)
        for parameter, gradient, mean, square in zip(parameters, gradients, means, squares, strict=True):
            for theta, g, m, v in _blocks(gradient, parameter, mean, square):
                m *= self.b1
                m += g
                g *= g
                v *= self.b2
                v += g
                np.sqrt(v, out=g)
                g += eps
                np.divide(m, g, out=g)
                _descend(theta, g, gradient, rate, eta, self.weight_decay)


@dataclass
class WeightAverage:
    """`average <- average + share * (theta - average)` with `share = (1 - decay) / (1 - decay^t)`, t counting from 1.

    The exponential average of a network's arrays (after Polyak and Juditsky 1992), bias-corrected like Adam's moments.
    """

    decay: float
    updates: int = 0  # number of averaged updates
    state: dict[str, np.ndarray] = field(default_factory=dict)  # the averages by name

    def update(self, state: dict[str, np.ndarray]) -> None:
        """Include the arrays of a network, as in Network.state, after one more update."""
        self.updates += 1
        if not self.state:
            self.state = {name: array.copy(order="K") for name, array in state.items()}
            return
        share = (1 - self.decay) / (1 - self.decay**self.updates)
        for name, array in state.items():
            average, theta = (values.ravel(order="K") for values in (self.state[name], array))
            for start in range(0, len(theta), BLOCK):
                part = slice(start, start + BLOCK)
                average[part] += share * (theta[part] - average[part])


def _descend(theta: np.ndarray, g: np.ndarray, gradient: Gradient, rate: Rate, eta: Rate, decay: float) -> None:
    """`theta <- theta - rate * g`; for a weight matrix, `W <- (1 - eta * decay) W - rate * g`."""
    g *= per_replica(rate, g)
    if decay and isinstance(gradient, WeightGradient):
        theta *= per_replica(1 - eta * decay, theta)
    theta -= g


def _zeros_like(parameters: list[np.ndarray], *names: str) -> Memory:
    return {name: [np.zeros_like(parameter) for parameter in parameters] for name in names}  # in their memory order


def _blocks(gradient: Gradient, parameter: np.ndarray, *memory: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield views (parameter, gradient, *memory); those of a W are transposed blocks of units that fit the cache.

    Without blocks, every pass over a large W waits for main memory; with 3072 x 2048, that is a third of the time.
    """
    if not isinstance(gradient, WeightGradient):
        yield parameter, gradient, *memory
        return
    W, moments = parameter.mT, [array.mT for array in memory]
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
