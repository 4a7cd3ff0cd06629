"""WeightGradient: `dJ/dW = X^T G + 2 lambda W`, kept as its factors until the product itself is needed.

W (d_in, d_out) is stored in Fortran order, as d_out rows of d_in numbers, one replica of a stack after another.
X is then multiplied with all units of all replicas in one product, and `G^T X` is a step of W in the memory order of
W: product and update together take as long as the product `X^T G` alone into an array in C order.
"""

from dataclasses import dataclass

import numpy as np

from klcli.engine.broadcasting import per_replica, scalar
from klcli.engine.losses import l2_gradient
from klcli.engine.products import PendingStep, descend, product


@dataclass(slots=True)
class WeightGradient:
    """The gradient of the weights of one linear layer, of one network or of m replicas."""

    X: np.ndarray  # (n, d_in), shared by all replicas, or (m, n, d_in)
    G: np.ndarray  # dJ/dY, (n, d_out) or (m, n, d_out)
    W: np.ndarray  # (d_in, d_out) or (m, d_in, d_out)
    lam: float | np.ndarray = 0.0  # a number, or (m,)

    def products(self, start: int, stop: int) -> np.ndarray:
        """Return `G^T X (..., stop - start, d_in)` for units start to stop, without the L2 term."""
        G, X = self.G[..., start:stop], self.X
        if X.ndim == 2 and G.ndim == 3:  # a single product, because all replicas share X
            m, n, units = G.shape
            return product(G.mT.reshape(m * units, n), X).reshape(m, units, -1)
        return product(G.mT, X)

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """`X^T G + 2 lambda W`, shaped like W: `np.asarray(gradient)`."""
        dW = self.products(0, self.W.shape[-1]).mT
        dW += l2_gradient(self.W, self.lam)
        return dW.astype(dtype or self.W.dtype)

    def descend(self, eta: float | np.ndarray, pending: PendingStep = None) -> PendingStep:
        """Take one step of gradient descent in place, `W <- (1 - 2 eta lambda) W - eta X^T G`.

        Equal to `W -= eta * dW` up to rounding, with two passes over W instead of four. eta is a number, or (m,);
        `pending` and the result are as in `products.descend`.
        """
        X, W, G = self.X, self.W.mT, (self.G * per_replica(eta, self.G)).mT
        keep = 1 - 2 * eta * self.lam
        if W.ndim == 2:
            return descend(G, X, keep, W, pending)
        if W.flags.c_contiguous and (len(W) == 1 or X.ndim == 2):  # the units of all replicas as rows of one matrix
            rows = W.shape[0] * W.shape[1]
            if isinstance(keep, np.ndarray):
                keep = np.repeat(keep.astype(W.dtype), W.shape[1])[:, None]
            return descend(G.reshape(rows, -1), X if X.ndim == 2 else X[0], keep, W.reshape(rows, -1), pending)
        if pending is not None:
            pending()
        W *= keep[:, None, None].astype(W.dtype) if isinstance(keep, np.ndarray) else scalar(keep, W.dtype)
        W -= product(G, X)
        return None


def times_wide(X: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return `X @ W + b (m, n, d_out)` for one X (n, d_in), W (m, d_in, d_out) and b (m, 1, d_out) by a single product.

    BLAS reads X once instead of once per replica, which saves a fifth of the time of the first layer.
    """
    m, d_in, d_out = W.shape
    n = len(X)
    wide = product(X, W.mT.reshape(m * d_out, d_in).T).reshape(n, m, d_out)
    Y = np.empty((m, d_out, n), wide.dtype).mT  # in Fortran order, like all activations
    return np.add(wide.transpose(1, 0, 2), b, out=Y)


def in_fortran_order(W: np.ndarray) -> np.ndarray:
    """Return a copy of W (..., d_in, d_out) with every matrix in Fortran order."""
    return np.array(W.mT, order="C").mT
