"""Optimizers, and the exponential average of the weights. They operate on arrays, never on a network.

`update(parameters, gradients, eta, lam)` takes one step: it changes every parameter in place. `gradients` are those of
the loss, by the names of the parameters; for a weight matrix (`.W`), the optimizer adds the gradient of the L2 term,
`2 lam W`. eta and lam are numbers, or `(m,)` for parameters with a leading axis of m replicas. `memory` is the state of
an optimizer between updates: `memory["velocity"][name]` is shaped like the parameter. Weight decay applies to W only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from klcli.engine.losses import per_replica, with_l2

Arrays = Mapping[str, np.ndarray]
Rate = float | np.ndarray


@dataclass
class SGD:
    """Stochastic gradient descent, `theta -= eta * (g + weight_decay * W)`, optionally with Nesterov momentum.

    `velocity <- momentum * velocity + g`, `theta -= eta * (g + momentum * velocity)` (Sutskever et al. 2013; PyTorch).
    """

    momentum: float = 0.0
    weight_decay: float = 0.0  # of W only
    memory: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def update(self, parameters: Arrays, gradients: Mapping[str, Any], eta: Rate, lam: Rate = 0.0) -> None:
        if self.momentum:
            self.memory = self.memory or zeros_like(parameters, "velocity")
        for name, theta in parameters.items():
            g = with_l2(name, theta, gradients[name], lam)
            if self.momentum:
                velocity = self.memory["velocity"][name]
                velocity *= self.momentum
                velocity += g
                g = g + self.momentum * velocity
            _descend(name, theta, g, eta, eta, self.weight_decay)


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
    memory: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def update(self, parameters: Arrays, gradients: Mapping[str, Any], eta: Rate, lam: Rate = 0.0) -> None:
        self.memory = self.memory or zeros_like(parameters, "mean", "square")
        rate, eps = self.next_rate(eta)
        for name, theta in parameters.items():
            g = with_l2(name, theta, gradients[name], lam)
            mean, square = self.memory["mean"][name], self.memory["square"][name]
            mean *= self.b1
            mean += g
            square *= self.b2
            square += g * g
            _descend(name, theta, mean / (np.sqrt(square) + eps), rate, eta, self.weight_decay)

    def next_rate(self, eta: Rate) -> tuple[Rate, float]:
        """Count an update; return the rate of `mean / (sqrt(square) + eps)` in it, and that eps."""
        self.updates += 1
        scale = float(np.sqrt((1 - self.b2) / (1 - self.b2**self.updates)))  # of sqrt(square)
        return eta * ((1 - self.b1) / (1 - self.b1**self.updates) / scale), self.eps / scale


@dataclass
class WeightAverage:
    """`average <- average + share * (theta - average)` with `share = (1 - decay) / (1 - decay^t)`, t counting from 1.

    The exponential average of a network's arrays (after Polyak and Juditsky 1992), bias-corrected like Adam's moments.
    """

    decay: float
    updates: int = 0  # number of averaged updates
    state: dict[str, np.ndarray] = field(default_factory=dict)  # the averages by name

    def update(self, state: Arrays) -> None:
        """Include the arrays of a network, as in Network.state, after one more update."""
        share = self.next_share()
        if not self.state:
            self.state = {name: array.copy() for name, array in state.items()}
            return
        for name, array in state.items():
            self.state[name] += share * (array - self.state[name])

    def next_share(self) -> float:
        """Count an update; return its share in the average."""
        self.updates += 1
        return (1 - self.decay) / (1 - self.decay**self.updates)


def zeros_like(parameters: Arrays, *names: str) -> dict[str, dict[str, np.ndarray]]:
    """Return a memory of zeros: an array like each parameter for each of the `names`, such as "velocity"."""
    return {name: {key: np.zeros_like(array) for key, array in parameters.items()} for name in names}


def _descend(name: str, theta: np.ndarray, g: np.ndarray, rate: Rate, eta: Rate, decay: float) -> None:
    """`theta <- theta - rate * g`; for a weight matrix, `W <- (1 - eta * decay) W - rate * g`."""
    if decay and name.endswith(".W"):
        theta *= per_replica(1 - eta * decay, theta)
    theta -= per_replica(rate, g) * g
