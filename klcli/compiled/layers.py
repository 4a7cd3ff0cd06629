"""The layers and the loss of engine/ in compiled code.

Each class computes in training what its base class computes, up to rounding. The base class computes for arrays of
another precision or with more axes, as a gradient check has; in evaluation, it also computes BatchNorm and Dropout.
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

    X: np.ndarray  # (m or 1, n, k)
    G: np.ndarray  # (m, n, d)
    shape: tuple[int, ...]  # of W

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return (self.X.mT @ self.G).reshape(self.shape).astype(dtype or self.G.dtype)


@dataclass
class Compiled:
    """The part that all layers share, before the base class of each."""

    team: "Team" = field(kw_only=True, repr=False)

    def forward(self, X: np.ndarray, *, training: bool, track: bool = False) -> tuple[np.ndarray, Backward]:
        """Compute in compiled code, or as the base class for arrays that compiled code does not take."""
        found = self.fast(X, training, track)
        base: Any = super()
        return base.forward(X, training=training, track=track) if found is None else found

    def fast(self, X: np.ndarray, training: bool, track: bool) -> tuple[np.ndarray, Backward] | None:
        """Return what `forward` returns, None for arrays that compiled code does not take."""
        raise NotImplementedError

    def fit(self, X: np.ndarray, *others: np.ndarray) -> bool:
        """Whether compiled code takes these arrays: they have its precision, C order and at most three axes.

        Raises ValueError for other arrays while operations are recorded: what the base class computes is not recorded.
        """
        dtype = self.team.dtype
        fit = all(one.dtype == dtype and one.ndim <= 3 and one.flags.c_contiguous for one in (X, *others))
        if not fit and self.team.recorded is not None:
            raise ValueError("only arrays in C order and of the precision of the team can be recorded")
        return fit

    def run(self, kind: int, *arrays: np.ndarray, like: np.ndarray | None = None, extra: int = 0) -> np.ndarray:
        """Execute an operation whose last array is a new one, shaped like the first or like `like`; return that."""
        result = np.empty_like(arrays[0] if like is None else like)
        self.team.run(kind, *arrays, result, extra=extra)
        return result


@dataclass
class Linear(Compiled, layers.Linear):
    """`Y = X @ W + b`."""

    def fast(self, X: np.ndarray, training: bool, track: bool) -> tuple[np.ndarray, Backward] | None:
        W, b = self.W, self.b
        if not self.fit(X, W) or b.size * W.shape[-2] != W.size or (X.ndim == 3) > (W.ndim == 3):
            return None
        X, stacked = _stacked(X), _stacked(W)
        parts = self.team.forward(X, stacked)
        Y = self.run(kernels.ADD_BIAS, parts, b, like=parts[0])

        def backward(G: np.ndarray) -> tuple[np.ndarray | None, Gradients]:
            G = _stacked(G)
            db = self.run(kernels.SUM, G, like=b)
            dX = None if self.is_first else self.team.backward(G, stacked)
            if dX is not None and W.ndim == 2:
                dX = dX[0]
            return dX, {"W": Factors(X, G, W.shape), "b": db}

        return Y if W.ndim == 3 else Y[0], backward


@dataclass
class Whitening(Compiled, layers.Whitening):
    """`Y = X @ V`."""

    def fast(self, X: np.ndarray, training: bool, track: bool) -> tuple[np.ndarray, Backward] | None:
        if not self.fit(X, self.V) or X.ndim > 2:
            return None
        parts = self.team.forward(X[None], self.V[None])
        Y = self.run(kernels.ADD_BIAS, parts, np.zeros(self.V.shape[1], X.dtype), like=parts[0, 0])
        return Y, lambda G: (G @ self.V.T, {})


@dataclass
class BatchNorm(Compiled, layers.BatchNorm):
    """Batch normalisation over the samples."""

    def fast(self, X: np.ndarray, training: bool, track: bool) -> tuple[np.ndarray, Backward] | None:
        size = X.shape[-1] * (len(X) if X.ndim == 3 else 1)
        if not training or not self.fit(X) or not self.gamma.size == self.beta.size == size:
            return None
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


@dataclass
class ReLU(Compiled, layers.ReLU):
    """`Y = max(X, 0)`."""

    def fast(self, X: np.ndarray, training: bool, track: bool) -> tuple[np.ndarray, Backward] | None:
        if not self.fit(X):
            return None
        return self.run(kernels.RELU, X), lambda G: (self.run(kernels.RELU_BACKWARD, G, X), {})


@dataclass
class SiLU(Compiled, layers.SiLU):
    """`Y = X * sigmoid(slope * X)`."""

    def fast(self, X: np.ndarray, training: bool, track: bool) -> tuple[np.ndarray, Backward] | None:
        if not self.fit(X):
            return None
        slope, sigmoid = np.array([self.slope], X.dtype), np.empty_like(X)
        Y = self.run(kernels.SILU, X, slope, sigmoid)
        return Y, lambda G: (self.run(kernels.SILU_BACKWARD, G, slope, sigmoid, Y), {})


@dataclass
class Dropout(Compiled, layers.Dropout):
    """Inverted dropout."""

    def fast(self, X: np.ndarray, training: bool, track: bool) -> tuple[np.ndarray, Backward] | None:
        if not training or not self.fit(X):
            return None
        n, d = X.shape[-2:]
        bits = np.empty((n, d), np.uint16)
        self.team.each_time(lambda: np.copyto(bits, self.bits(n, d)))

        def masked(Z: np.ndarray) -> np.ndarray:
            return self.run(kernels.DROPOUT, Z, bits, extra=self.dropped)

        return masked(X), lambda G: (masked(G), {})


def cross_entropy(
    S: np.ndarray, y: np.ndarray, *, team: "Team", smoothing: float = 0.0, other: Any = None, share: Any = 1.0
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


def _stacked(X: np.ndarray) -> np.ndarray:
    """Return X (n, d) as (1, n, d); X (m, n, d) as it is."""
    return X if X.ndim == 3 else X[None]
