"""WeightGradient: `dJ/dW = X^T G + 2 lambda W` as its factors, multiplied out only where somebody needs the numbers.

W (d_in, d_out) lies in memory transposed, as d_out rows of d_in numbers (`laid_out`), and members lie one below
the other. A unit's weights are then next to each other, X meets all units of all members in one product of plain
matrices, and so does `G^T X`, which is the step of W as W lies in memory: product and update together take no
longer than the product `X^T G` alone into an array of the other layout.
"""

from dataclasses import dataclass

import numpy as np

from klcli.engine.losses import l2_gradient
from klcli.engine.members import for_members
from klcli.engine.numbers import number
from klcli.engine.products import Rest, descend, product


@dataclass(slots=True)
class WeightGradient:
    """The gradient of the weights of one linear layer, of one network or of m members."""

    X: np.ndarray  # (n, d_in), shared by all members, or (m, n, d_in)
    G: np.ndarray  # dJ/dY, (n, d_out) or (m, n, d_out)
    W: np.ndarray  # (d_in, d_out) or (m, d_in, d_out)
    lam: float | np.ndarray = 0.0  # a number, or (m,)

    def array(self) -> np.ndarray:
        """Return `X^T G + 2 lambda W`, shaped like W."""
        dW = transposed(self.products(0, self.W.shape[-1]))
        dW += l2_gradient(self.W, self.lam)
        return dW

    def products(self, start: int, stop: int) -> np.ndarray:
        """Return `G^T X (..., stop - start, d_in)` of the units from start to stop alone."""
        return _steps(self.G[..., start:stop], self.X)

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """Let NumPy take the gradient for an array."""
        return self.array().astype(dtype or self.W.dtype)

    def descend(self, eta: float | np.ndarray, rest: Rest = None) -> Rest:
        """Take one step of gradient descent in place, `W <- (1 - 2 eta lambda) W - eta X^T G`.

        The same as `W -= eta * array()` to rounding, with two passes over W in place of four. eta is a number, or (m,).
        `rest`, and what is returned, are those of `products.descend`.
        """
        X, W, G = self.X, transposed(self.W), transposed(self.G * for_members(eta, self.G))
        keep = 1 - 2 * eta * self.lam
        if W.ndim == 2:
            return descend(G, X, keep, W, rest)
        if W.flags.c_contiguous and (len(W) == 1 or X.ndim == 2):  # one below the other, they are one matrix
            rows = W.shape[0] * W.shape[1]
            if isinstance(keep, np.ndarray):
                keep = np.repeat(keep.astype(W.dtype), W.shape[1])[:, None]
            return descend(G.reshape(rows, -1), X if X.ndim == 2 else X[0], keep, W.reshape(rows, -1), rest)
        if rest is not None:
            rest()
        W *= keep[:, None, None].astype(W.dtype) if isinstance(keep, np.ndarray) else number(keep, W.dtype)
        W -= product(G, X)
        return None


def _steps(G: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Return `G^T X (..., d_out, d_in)`, from a single product where all members share X."""
    if X.ndim == 2 and G.ndim == 3:
        m, n, d_out = G.shape
        return product(transposed(G).reshape(m * d_out, n), X).reshape(m, d_out, -1)
    return product(transposed(G), X)


def times_wide(X: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return `X @ W + b (m, n, d_out)` for one X (n, d_in), W (m, d_in, d_out) and b (m, 1, d_out), from one product.

    BLAS reads X once for all members instead of once for each, which costs the first layer a fifth
    less per member. For a narrow layer it is up to a tenth faster with X on the left; only the sum with b
    is transposed in memory, as the activations of all other layers lie there.
    """
    m, d_in, d_out = W.shape
    n = len(X)
    wide = product(X, transposed(W).reshape(m * d_out, d_in).T).reshape(n, m, d_out)
    Y = transposed(np.empty((m, d_out, n), wide.dtype))
    return np.add(wide.transpose(1, 0, 2), b, out=Y)


def laid_out(W: np.ndarray) -> np.ndarray:
    """Return a copy of W (..., d_in, d_out) that lies in memory as this module's arithmetic is fastest."""
    return transposed(np.array(transposed(W), order="C"))


def transposed(A: np.ndarray) -> np.ndarray:
    """Return the view of A (..., p, q) as (..., q, p)."""
    return A.swapaxes(-1, -2)
