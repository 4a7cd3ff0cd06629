"""WeightGradient: `dJ/dW = X^T G + 2 lambda W` as its factors, multiplied out only where somebody needs the numbers."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from klcli.engine.losses import l2_gradient
from klcli.engine.members import for_members


@dataclass(frozen=True)
class WeightGradient:
    """The gradient of the weights of one linear layer, of one network or of m members."""

    X: np.ndarray  # (n, d_in), shared by all members, or (m, n, d_in)
    G: np.ndarray  # dJ/dY, (n, d_out) or (m, n, d_out)
    W: np.ndarray  # (d_in, d_out) or (m, d_in, d_out)
    lam: float | np.ndarray = 0.0  # a number, or (m,)

    def array(self) -> np.ndarray:
        """Return `X^T G + 2 lambda W`, shaped like W."""
        dW = self.products(0, self.W.shape[-2])
        dW += l2_gradient(self.W, self.lam)
        return dW

    def products(self, start: int, stop: int) -> np.ndarray:
        """Return these rows of `X^T G` alone, laid out in memory as those of W are."""
        X = self.X[..., start:stop]
        if X.ndim == 2 and self.G.ndim == 3:
            return times_wide(X.T, self.G)
        return np.matmul(X.swapaxes(-1, -2), self.G, out=np.empty_like(self.W[..., start:stop, :]))

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """Let NumPy take the gradient for an array."""
        return self.array().astype(dtype or self.W.dtype)

    def descend(self, eta: float | np.ndarray) -> None:
        """Take one step of gradient descent in place, `W <- (1 - 2 eta lambda) W - eta X^T G`.

        The same as `W -= eta * array()` to rounding, in one BLAS call that reads and writes W once
        where the two steps would go over it four times: a tenth of an update of a 3-layer network.
        eta is a number, or (m,).
        """
        # What differs between members goes to the columns beforehand, the rest to the scalars of the call.
        keep, alpha, G = 1 - 2 * eta * self.lam, -eta, self.G
        if isinstance(keep, np.ndarray):
            self.W[...] *= for_members(keep, self.W)
            keep = 1.0
        if isinstance(alpha, np.ndarray):
            G = G * for_members(alpha, G)
            alpha = 1.0
        if self.X.ndim == 3 and len(self.X) > 1:
            self.W[...] *= keep
            self.W[...] += alpha * (self.X.swapaxes(-1, -2) @ G)
            return
        X = self.X if self.X.ndim == 2 else self.X[0]
        W = _wide(self.W)
        # BLAS counts columns first: transposed, the arrays are what it expects and nothing is copied.
        transposed = _gemm(W.dtype)(alpha, _wide(G).T, X.T, keep, W.T, 0, 1, 1)
        if not np.may_share_memory(transposed, self.W):  # W lies otherwise, and BLAS was given a copy
            wide = transposed.T
            self.W[...] = wide if self.W.ndim == 2 else wide.reshape(len(W), len(self.W), -1).transpose(1, 0, 2)


@lru_cache(maxsize=2)
def _gemm(dtype: np.dtype) -> Any:
    """Return BLAS's `alpha a b + beta c` in place, which NumPy's matmul cannot do; slow to import, so on first use."""
    from scipy.linalg import blas

    return {np.dtype(np.float32): blas.sgemm, np.dtype(np.float64): blas.dgemm}[dtype]


def times_wide(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return `A @ B` for one `A (p, q)` and members `B (m, q, r)`, from a single product `A @ (q, m r)`.

    BLAS reads A once for all members instead of once for each, which costs the first layer a fifth
    less per member.
    """
    wide = A @ _wide(B)
    return wide.reshape(len(A), len(B), B.shape[-1]).transpose(1, 0, 2)


def _wide(B: np.ndarray) -> np.ndarray:
    """Return `B (m, q, r)` as `(q, m r)`, without a copy where it lies in memory as (q, m, r)."""
    if B.ndim == 2:
        return B
    return B.transpose(1, 0, 2).reshape(B.shape[1], -1)
