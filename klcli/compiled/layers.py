"""The layers and the loss of engine/ in compiled code.

Each class computes in training what its base class computes, up to rounding; all arrays must have the precision of the
team.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from klcli.compiled import kernels
from klcli.engine import layers
from klcli.engine.layers import Backward, Gradients

if TYPE_CHECKING:
    from klcli.compiled.team import Team


@dataclass(slots=True)
class Factors:
    """The gradient `X^T G` of a weight matrix as its factors: a step of W multiplies them itself, block by block.

    `np.asarray` returns the product.
    """

    X: np.ndarray  # (n, k) or (m, n, k)
    G: np.ndarray  # (n, d) or (m, n, d)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return (self.X.mT @ self.G).astype(dtype or self.G.dtype)


@dataclass
class Compiled:
    """The part that all layers share."""

    team: "Team" = field(kw_only=True, repr=False)

    def run(self, kind: int, *arrays: np.ndarray, like: np.ndarray | None = None, extra: int = 0) -> np.ndarray:
        """Execute an operation whose last array is a new one, shaped like the first or like `like`; return that."""
        result = np.empty_like(arrays[0] if like is None else like)
        self.team.run(kind, *arrays, result, extra=extra)
        return result

    def linear(self, X: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return `X @ W + b`."""
        parts = self.team.forward(X, W)
        return self.run(kernels.ADD_BIAS, b, parts, like=parts[0])


@dataclass
class Linear(Compiled, layers.Linear):
    """`Y = X @ W + b`."""

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, Backward]:
        W, b = self.W, self.b

        def backward(G: np.ndarray) -> tuple[np.ndarray | None, Gradients]:
            dX = None if self.is_first else self.team.backward(G, W)
            return dX, {"W": Factors(X, G), "b": self.run(kernels.SUM, G, like=b)}

        return self.linear(X, W, b), backward


@dataclass
class Whitening(Compiled, layers.Whitening):
    """`Y = X @ V`."""

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, Backward]:
        return self.linear(X, self.V, np.zeros(self.V.shape[1], X.dtype)), lambda G: (G @ self.V.T, {})


@dataclass
class BatchNorm(Compiled, layers.BatchNorm):
    """Batch normalisation over the samples."""

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, Backward]:
        gamma, numbers = self.gamma, np.array([self.eps, self.momentum], X.dtype)
        averages: Any = self.running_mean, self.running_variance
        if not track or averages[0] is None:
            averages, numbers[1] = (np.zeros_like(gamma), np.zeros_like(gamma)), 0
            if track:
                self.running_mean, self.running_variance = averages
        centred, std = np.empty_like(X), np.empty_like(gamma)
        Y = self.run(kernels.BATCH_NORM, X, gamma, self.beta, numbers, *averages, centred, std)

        def backward(G: np.ndarray) -> tuple[np.ndarray, Gradients]:
            dgamma, dbeta = np.empty_like(gamma), np.empty_like(gamma)
            dX = self.run(kernels.BATCH_NORM_BACKWARD, G, centred, gamma, std, dgamma, dbeta)
            return dX, {"gamma": dgamma, "beta": dbeta}

        return Y, backward

    def evaluate(self, X: np.ndarray) -> np.ndarray:
        return self.run(kernels.NORMALISE, X, *self._averages(), self.gamma, self.beta)


@dataclass
class ReLU(Compiled, layers.ReLU):
    """`Y = max(X, 0)`."""

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, Backward]:
        return self.run(kernels.RELU, X, X), lambda G: (self.run(kernels.RELU, G, X), {})


@dataclass
class SiLU(Compiled, layers.SiLU):
    """`Y = X * sigmoid(slope * X)`."""

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, Backward]:
        slope, sigmoid = np.array([self.slope], X.dtype), np.empty_like(X)
        Y = self.run(kernels.SILU, X, slope, sigmoid)
        return Y, lambda G: (self.run(kernels.SILU_BACKWARD, G, slope, sigmoid, Y), {})


@dataclass
class Dropout(Compiled, layers.Dropout):
    """Inverted dropout."""

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, Backward]:
        n, d = X.shape[-2:]
        bits = np.empty((n, d), np.uint16)
        self.team.each_time(lambda: np.copyto(bits, self.bits(n, d)))

        def masked(Z: np.ndarray) -> np.ndarray:
            return self.run(kernels.DROPOUT, Z, bits, extra=self.dropped)

        return masked(X), lambda G: (masked(G), {})


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
