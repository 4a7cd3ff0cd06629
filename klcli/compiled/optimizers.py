"""The optimizers of engine/ in compiled code. A step of W also computes the gradient `X^T G`, block by block."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from klcli.compiled import kernels
from klcli.compiled.layers import Factors
from klcli.engine import optimizers
from klcli.engine.optimizers import Arrays, Rate, zeros_like

if TYPE_CHECKING:
    from klcli.compiled.team import Team

Gradients = Mapping[str, Any]
Numbers = tuple[Rate, ...]  # the six of `kernels.step`; each is a number, or `(m,)` for m replicas


@dataclass
class SGD(optimizers.SGD):
    """Stochastic gradient descent, optionally with Nesterov momentum."""

    team: "Team" = field(kw_only=True, repr=False)

    def update(self, parameters: Arrays, gradients: Gradients, eta: Rate, lam: Rate = 0.0) -> None:
        def numbers() -> Numbers:
            l2 = 2 * np.asarray(lam)
            if self.momentum:
                return eta, 1 - np.asarray(eta) * self.weight_decay, l2, self.momentum, 0.0, 0.0
            return eta, 1 - np.asarray(eta) * (l2 + self.weight_decay), 0.0, 0.0, 0.0, 0.0

        if self.momentum:
            self.memory = self.memory or zeros_like(parameters, "velocity")
        kind = kernels.NESTEROV if self.momentum else kernels.DESCENT
        _update(self, kind, parameters, gradients, numbers)


@dataclass
class Adam(optimizers.Adam):
    """Adam with decoupled weight decay."""

    team: "Team" = field(kw_only=True, repr=False)

    def update(self, parameters: Arrays, gradients: Gradients, eta: Rate, lam: Rate = 0.0) -> None:
        def numbers() -> Numbers:
            rate, eps = self.next_rate(eta)
            return rate, 1 - np.asarray(eta) * self.weight_decay, 2 * np.asarray(lam), self.b1, self.b2, eps

        self.memory = self.memory or zeros_like(parameters, "mean", "square")
        _update(self, kernels.ADAM, parameters, gradients, numbers)


@dataclass
class WeightAverage(optimizers.WeightAverage):
    """The exponential average of the arrays of a network."""

    team: "Team" = field(kw_only=True, repr=False)

    def update(self, state: Arrays) -> None:
        if not self.state:
            super().update(state)
            return
        numbers = np.zeros((len(next(iter(state.values()))), 6), self.team.dtype)
        self.team.each_time(lambda: numbers[:, kernels.RATE].fill(self.next_share()))
        for name, array in state.items():
            if array.ndim == 3:  # V of Whitening has two axes and does not change
                self.team.average(array, self.state[name], numbers)


def _update(
    optimizer: SGD | Adam, kind: int, parameters: Arrays, gradients: Gradients, numbers: Callable[[], Numbers]
) -> None:
    """Take one step of every parameter of a stack; `numbers()` returns those of the present update."""
    team, m = optimizer.team, len(next(iter(parameters.values())))
    of_weights, of_vectors = np.empty((2, m, 6), team.dtype)  # those of vectors have no decay and no L2 term

    def refresh() -> None:
        for column, values in enumerate(numbers()):
            of_weights[:, column] = values
        of_vectors[:] = of_weights
        of_vectors[:, kernels.KEEP : kernels.L2 + 1] = 1, 0

    team.each_time(refresh)
    for name, theta in parameters.items():
        gradient, moments = gradients[name], [arrays[name] for arrays in optimizer.memory.values()]
        if isinstance(gradient, Factors):
            team.step(kind, gradient.X, gradient.G, theta, of_weights, *moments)
        else:
            mean, square = (*moments, None, None)[:2]
            numbers_of = of_weights if name.endswith(".W") else of_vectors
            team.run(kernels.STEP_OF_ARRAY, theta, gradient, mean, square, numbers_of, extra=kind)
