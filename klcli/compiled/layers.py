"""The layers and the loss of engine/ in compiled code.

Each class computes in training what its base class computes, up to rounding. The base class computes for arrays of
another precision or with more axes, as a gradient check has; in evaluation, it also computes BatchNorm and Dropout.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from klcli.compiled import operations
from klcli.compiled.team import Team
from klcli.engine import layers
from klcli.engine.layers import Backward, Gradients
from klcli.engine.network import Network


@dataclass(slots=True)
class Factors:
    """The gradient `X^T G` of a weight matrix as its factors: a step of W multiplies them itself, block by block.

    `np.asarray` returns the product.
    """

    X: np.ndarray  # (m or 1, n, k)
    G: np.ndarray  # (m, n, d)
    shape: tuple[int, ...]  # of W

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return (self.X.mT @ self.G).reshape(self.shape).astype(dtype or self.G.dtype)


@dataclass
class Linear(layers.Linear):
    """`Y = X @ W + b`."""

    team: Team = field(kw_only=True, repr=False)

    def forward(self, X: np.ndarray, *, training: bool, track: bool = False) -> tuple[np.ndarray, Backward]:
        team, W, b = self.team, self.W, self.b
        if not _fit(team, X, W) or b.size * W.shape[-2] != W.size or (X.ndim == 3) > (W.ndim == 3):
            return super().forward(X, training=training, track=track)
        X, stacked = _stacked(X), _stacked(W)
        parts = team.forward(X, stacked)
        count, m, n, d = parts.shape
        Y = np.empty((m, n, d), W.dtype)
        team.run(operations.ADD_BIAS, (m, n, count, d), parts, b, Y)

        def backward(G: np.ndarray) -> tuple[np.ndarray | None, Gradients]:
            G = _stacked(G)
            db = np.empty((len(G), 1, G.shape[-1]), G.dtype)
            team.run(operations.SUM, (m, n, 0, d), G, db)
            dX = None if self.is_first else team.backward(G, stacked)
            if dX is not None and W.ndim == 2:
                dX = dX[0]
            return dX, {"W": Factors(X, G, W.shape), "b": db.reshape(b.shape)}

        return Y if W.ndim == 3 else Y[0], backward


@dataclass
class Whitening(layers.Whitening):
    """`Y = X @ V`."""

    team: Team = field(kw_only=True, repr=False)

    def forward(self, X: np.ndarray, *, training: bool, track: bool = False) -> tuple[np.ndarray, Backward]:
        if not _fit(self.team, X, self.V) or X.ndim > 2:
            return super().forward(X, training=training, track=track)
        parts = self.team.forward(X[None], self.V[None])
        Y = np.empty(parts.shape[2:], X.dtype)
        n, k = Y.shape
        self.team.run(operations.ADD_BIAS, (1, n, len(parts), k), parts, np.zeros(k, X.dtype), Y)
        return Y, lambda G: (G @ self.V.T, {})


@dataclass
class BatchNorm(layers.BatchNorm):
    """Batch normalisation over the samples."""

    team: Team = field(kw_only=True, repr=False)

    def forward(self, X: np.ndarray, *, training: bool, track: bool = False) -> tuple[np.ndarray, Backward]:
        replicas = len(X) if X.ndim == 3 else 1
        fits = (
            self.team is not None and _fit(self.team, X) and self.gamma.size == self.beta.size == replicas * X.shape[-1]
        )
        if not training or not fits:
            return super().forward(X, training=training, track=track)
        team, gamma, beta, shape = self.team, self.gamma, self.beta, X.shape
        n, d = shape[-2:]
        sizes = replicas, n, 0, d
        numbers, std = np.array([self.eps, self.momentum], X.dtype), np.empty_like(gamma)
        averages = self.running_mean, self.running_variance
        if not track or averages[0] is None:
            averages, numbers[1] = (np.zeros_like(gamma), np.zeros_like(gamma)), 0
            if track:
                self.running_mean, self.running_variance = averages
        centred, Y = np.empty_like(X), np.empty_like(X)
        team.run(operations.BATCH_NORM, sizes, X, gamma, beta, numbers, *averages, centred, std, Y)

        def backward(G: np.ndarray) -> tuple[np.ndarray, Gradients]:
            dgamma, dbeta, dX = np.empty_like(gamma), np.empty_like(gamma), np.empty_like(centred)
            team.run(operations.BATCH_NORM_BACKWARD, sizes, G, centred, gamma, std, dgamma, dbeta, dX)
            return dX, {"gamma": dgamma, "beta": dbeta}

        return Y, backward


@dataclass
class ReLU(layers.ReLU):
    """`Y = max(X, 0)`."""

    team: Team = field(kw_only=True, repr=False)

    def forward(self, X: np.ndarray, *, training: bool, track: bool = False) -> tuple[np.ndarray, Backward]:
        team = self.team
        if not _fit(team, X):
            return super().forward(X, training=training, track=track)
        Y = np.empty_like(X)
        team.run(operations.RELU, (1, 1, 0, X.size), X, Y)

        def backward(G: np.ndarray) -> tuple[np.ndarray, Gradients]:
            dX = np.empty_like(G)
            team.run(operations.RELU_BACKWARD, (1, 1, 0, X.size), G, X, dX)
            return dX, {}

        return Y, backward


@dataclass
class Dropout(layers.Dropout):
    """Inverted dropout."""

    team: Team = field(kw_only=True, repr=False)

    def forward(self, X: np.ndarray, *, training: bool, track: bool = False) -> tuple[np.ndarray, Backward]:
        team = self.team
        if not training or not _fit(team, X):
            return super().forward(X, training=training, track=track)
        n, d = X.shape[-2:]
        bits = np.empty((n, d), np.uint16)
        team.each_time(lambda: np.copyto(bits, self.bits(n, d)))

        def masked(Z: np.ndarray) -> np.ndarray:
            Y = np.empty_like(Z)
            team.run(operations.DROPOUT, (Z.size // (n * d), n, self.dropped, d), Z, bits, Y)
            return Y

        return masked(X), lambda G: (masked(G), {})


def cross_entropy(
    S: np.ndarray,
    y: np.ndarray,
    *,
    smoothing: float = 0.0,
    other: np.ndarray | None = None,
    share: float | np.ndarray = 1.0,
    team: Team,
) -> tuple[np.ndarray, Callable[[], np.ndarray]]:
    """Return the loss, a number or `(m,)`, and its backward pass, with the equations of `losses.cross_entropy`."""
    n, K = S.shape[-2:]
    G, loss, numbers = np.empty_like(S), np.empty(S.shape[:-2], S.dtype), np.empty(2, S.dtype)
    labels = np.empty((2, n), np.int64)

    def refresh() -> None:
        numbers[:] = share, smoothing
        labels[:] = y, y if other is None else other

    team.each_time(refresh)
    team.run(operations.LOSS, (loss.size, n, 0, K), S, labels[0], labels[1], numbers, G, loss)
    return loss, lambda: G


OWN: dict[type, type] = {
    layers.Linear: Linear, layers.Whitening: Whitening, layers.BatchNorm: BatchNorm, layers.ReLU: ReLU,
    layers.Dropout: Dropout,
}  # fmt: skip


def accelerated(network: Network, team: Team) -> Network:
    """Return the network with compiled layers. They share its arrays; those that are not in C order are copied."""
    network = network.converted(lambda name, array: np.ascontiguousarray(array))
    made = {name: OWN[type(layer)](**vars(layer), team=team) for name, layer in network.layers.items()}
    return Network(made)


def plain(network: Network) -> Network:
    """Return the network with the layers of engine/, which share its arrays."""
    bases = {own: base for base, own in OWN.items()}
    made = {}
    for name, layer in network.layers.items():
        values = {key: value for key, value in vars(layer).items() if key != "team"}
        made[name] = bases[type(layer)](**values)
    return Network(made)


def _fit(team: Team, X: np.ndarray, *others: np.ndarray) -> bool:
    """Whether compiled code takes these arrays: they have its precision, C order and at most three axes.

    Raises ValueError for other arrays while operations are recorded: what the base class computes is not recorded.
    """
    fit = all(one.dtype == team.dtype and one.ndim <= 3 and one.flags.c_contiguous for one in (X, *others))
    if not fit and team.is_recording:
        raise ValueError("only arrays in C order and of the precision of the team can be recorded")
    return fit


def _stacked(X: np.ndarray) -> np.ndarray:
    """Return X (n, d) as (1, n, d); X (m, n, d) as it is."""
    return X if X.ndim == 3 else X[None]
