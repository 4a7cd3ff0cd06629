"""The layers and the loss of engine/ in compiled code.

`compute` returns in training what the method `forward` of a layer returns, and `evaluate` what the method of that name
does, up to rounding; all arrays must have the precision of the team.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from klcli.compiled import kernels
from klcli.engine import layers
from klcli.engine.layers import Backward, Gradients, Layer

if TYPE_CHECKING:
    from klcli.compiled.team import Team

Computed = tuple[np.ndarray, Backward]


@dataclass(slots=True)
class Factors:
    """The gradient `X^T G` of a weight matrix as its factors: a step of W multiplies them itself, block by block.

    `np.asarray` returns the product.
    """

    X: np.ndarray  # (n, k) or (m, n, k)
    G: np.ndarray  # (n, d) or (m, n, d)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return (self.X.mT @ self.G).astype(dtype or self.G.dtype)


def compute(team: "Team", layer: Layer, X: np.ndarray, *, track: bool = False) -> Computed:
    """Return Y and its backward pass, as `layer.forward(X, track=track)`."""
    return LAYERS[type(layer)](team, layer, X, track)


def evaluate(team: "Team", layer: Layer, X: np.ndarray) -> np.ndarray:
    """Return Y, as `layer.evaluate(X)`."""
    if isinstance(layer, layers.BatchNorm):
        return team.run(kernels.NORMALISE, X, *layer.averages(), layer.gamma, layer.beta, np.empty_like(X))
    return X if isinstance(layer, layers.Dropout) else compute(team, layer, X)[0]


def _linear(team: "Team", layer: layers.Linear, X: np.ndarray, track: bool) -> Computed:
    W, b = layer.W, layer.b

    def backward(G: np.ndarray) -> tuple[np.ndarray | None, Gradients]:
        dX = None if layer.is_first else team.backward(G, W)
        return dX, {"W": Factors(X, G), "b": team.run(kernels.SUM, G, np.empty_like(b))}

    parts = team.forward(X, W)
    return team.run(kernels.ADD_BIAS, b, parts, np.empty_like(parts[0])), backward


def _whitening(team: "Team", layer: layers.Whitening, X: np.ndarray, track: bool) -> Computed:
    no_bias = np.zeros(layer.V.shape[1], X.dtype)
    return _linear(team, layers.Linear(layer.V, no_bias), X, track)[0], lambda G: (None, {})


def _batch_norm(team: "Team", layer: layers.BatchNorm, X: np.ndarray, track: bool) -> Computed:
    gamma, numbers = layer.gamma, np.array([layer.eps, layer.momentum], X.dtype)
    averages: Any = layer.running_mean, layer.running_variance
    if not track or averages[0] is None:
        averages, numbers[1] = (np.zeros_like(gamma), np.zeros_like(gamma)), 0
        if track:
            layer.running_mean, layer.running_variance = averages
    centred, std = np.empty_like(X), np.empty_like(gamma)
    Y = team.run(kernels.BATCH_NORM, X, gamma, layer.beta, numbers, *averages, centred, std, np.empty_like(X))

    def backward(G: np.ndarray) -> tuple[np.ndarray, Gradients]:
        dgamma, dbeta = np.empty_like(gamma), np.empty_like(gamma)
        dX = team.run(kernels.BATCH_NORM_BACKWARD, G, centred, gamma, std, dgamma, dbeta, np.empty_like(G))
        return dX, {"gamma": dgamma, "beta": dbeta}

    return Y, backward


def _relu(team: "Team", layer: layers.ReLU, X: np.ndarray, track: bool) -> Computed:
    def masked(Z: np.ndarray) -> np.ndarray:
        return team.run(kernels.RELU, Z, X, np.empty_like(Z))

    return masked(X), lambda G: (masked(G), {})


def _silu(team: "Team", layer: layers.SiLU, X: np.ndarray, track: bool) -> Computed:
    slope, sigmoid = np.array([layer.slope], X.dtype), np.empty_like(X)
    Y = team.run(kernels.SILU, X, slope, sigmoid, np.empty_like(X))
    return Y, lambda G: (team.run(kernels.SILU_BACKWARD, G, slope, sigmoid, Y, np.empty_like(G)), {})


def _dropout(team: "Team", layer: layers.Dropout, X: np.ndarray, track: bool) -> Computed:
    n, d = X.shape[-2:]
    bits = np.empty((n, d), np.uint16)
    team.each_time(lambda: np.copyto(bits, layer.bits(n, d)))

    def masked(Z: np.ndarray) -> np.ndarray:
        return team.run(kernels.DROPOUT, Z, bits, np.empty_like(Z), extra=layer.dropped)

    return masked(X), lambda G: (masked(G), {})


LAYERS: dict[type, Callable[..., Computed]] = {
    layers.Linear: _linear, layers.Whitening: _whitening, layers.BatchNorm: _batch_norm,
    layers.ReLU: _relu, layers.SiLU: _silu, layers.Dropout: _dropout,
}  # fmt: skip


def cross_entropy(
    team: "Team", S: np.ndarray, y: np.ndarray, *, smoothing: float = 0.0, other: Any = None, share: Any = 1.0
) -> tuple[np.ndarray, Callable[[], np.ndarray]]:
    """Return the loss, a number or `(m,)`, and its backward pass, as `losses.cross_entropy`; share may be an array."""
    G, loss, numbers = np.empty_like(S), np.empty(S.shape[:-2], S.dtype), np.empty(2, S.dtype)
    labels = np.empty((2, S.shape[-2]), np.int64)

    def refresh() -> None:
        numbers[:] = share, smoothing
        labels[:] = y, y if other is None else other

    team.each_time(refresh)
    team.run(kernels.LOSS, S, labels[0], labels[1], numbers, G, loss)
    return loss, lambda: G
