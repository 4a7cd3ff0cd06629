"""The steps of the optimizers in compiled code. A step of W also computes the gradient `X^T G`, block by block."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from klcli.compiled import kernels
from klcli.compiled.layers import Factors
from klcli.engine.optimizers import SGD, Adam, Arrays, Rate, WeightAverage, zeros_like

if TYPE_CHECKING:
    from klcli.compiled.team import Team


def update(
    team: "Team", optimizer: SGD | Adam, parameters: Arrays, gradients: Mapping[str, Any], eta: Rate, lam: Rate
) -> None:
    """Take one step of every parameter of a stack, as `optimizer.update`, from then on with the eta of each update."""
    kind, moments, decays = kernels.DESCENT, tuple[str, ...](), (0.0, 0.0)
    if isinstance(optimizer, Adam):
        kind, moments, decays = kernels.ADAM, ("mean", "square"), (optimizer.b1, optimizer.b2)
    elif optimizer.momentum:
        kind, moments, decays = kernels.NESTEROV, ("velocity",), (optimizer.momentum, 0.0)
    optimizer.memory = optimizer.memory or zeros_like(parameters, *moments)
    # The six numbers of `kernels.step` for each replica: of weights, and of vectors, without decay and L2 term.
    numbers = np.zeros((2, len(next(iter(parameters.values()))), 6), team.dtype)
    l2, decay = 2 * np.asarray(lam), optimizer.weight_decay
    numbers[0, :, kernels.L2], numbers[1, :, kernels.KEEP] = l2, 1
    numbers[..., kernels.FIRST], numbers[..., kernels.SECOND] = decays

    def refresh() -> None:
        rate, eps = optimizer.next_rate(eta) if isinstance(optimizer, Adam) else (eta, 0.0)
        numbers[..., kernels.RATE], numbers[..., kernels.EPS] = rate, eps
        # DESCENT has no l2 of its own.
        numbers[0, :, kernels.KEEP] = 1 - np.asarray(eta) * (decay if moments else l2 + decay)

    team.each_time(refresh)
    for name, theta in parameters.items():
        gradient, own = gradients[name], numbers[0 if name.endswith(".W") else 1]
        X, G = (gradient.X, gradient.G) if isinstance(gradient, Factors) else (None, gradient)
        team.step(kind, X, G, theta, own, *(optimizer.memory[moment][name] for moment in moments))


def average(team: "Team", average: WeightAverage, state: Arrays) -> None:
    """Include the arrays of a stack after one more update, as `average.update`."""
    if not average.state:
        average.update(state)
        return
    numbers = np.zeros((len(next(iter(state.values()))), 6), team.dtype)
    team.each_time(lambda: numbers[:, kernels.RATE].fill(average.next_share()))
    for name, array in state.items():
        if array.ndim == 3:  # V of Whitening has two axes and does not change
            team.step(kernels.AVERAGE, None, None, array, numbers, average.state[name])
