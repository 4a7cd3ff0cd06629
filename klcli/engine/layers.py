"""The layers of a fully connected network, each forward pass with its backward pass beneath it.

`forward(X, training=...)` returns `(Y, backward)`. The closure `backward(G)` keeps the arrays that it needs, takes
`G = dJ/dY` and returns `(dJ/dX, {parameter: gradient})`; the layer itself caches nothing.

Rows are samples: `X (n, d)`. Every parameter may carry a leading axis of `m` replicas, the networks of a stack that
train in lockstep; activations are then `(m, n, d)`. Samples are `axis=-2` and features `axis=-1` for one network or m.

Activations are stored in Fortran order like the weights, as d rows of n numbers, for speed only: a layer is often
narrower than a minibatch, and NumPy is faster on fewer, longer rows. Elementwise operations keep the order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from klcli.engine.broadcasting import scalar
from klcli.engine.products import product
from klcli.engine.weight_gradient import WeightGradient, times_wide

DROPOUT = 2  # spawn key of the masks, distinct from those of weights, order and augmentation
Gradients = dict[str, np.ndarray | WeightGradient]
Backward = Callable[[np.ndarray], tuple[np.ndarray | None, Gradients]]


@dataclass
class Linear:
    """`Y = X @ W + b`."""

    W: np.ndarray  # (d_in, d_out) or (m, d_in, d_out)
    b: np.ndarray  # (d_out,) or (m, 1, d_out)
    is_first: bool = False  # the input is data, so dJ/dX is not computed: that saves a third of the products here

    def forward(self, X: np.ndarray, *, training: bool, track: bool = False) -> tuple[np.ndarray, Backward]:
        """`X (..., n, d_in)` to `(..., n, d_out)`; an X (n, d_in) is shared by all replicas."""
        if X.ndim == 2 and self.W.ndim == self.b.ndim == 3:
            Y = times_wide(X, self.W, self.b)
        else:
            Y = product(self.W.mT, X.mT).mT + self.b

        def backward(G: np.ndarray) -> tuple[np.ndarray | None, Gradients]:
            """`dW = X^T G`, `db` the sum of the rows of G, `dX = G W^T`."""
            db = sum_over_samples(G).reshape(self.b.shape)
            dX = None if self.is_first else product(self.W, G.mT).mT
            return dX, {"W": WeightGradient(X, G, self.W), "b": db}

        return Y, backward


@dataclass
class Whitening:
    """`Y = X @ V` before the first linear layer, with a fixed V that all replicas share.

    V scales the principal components of the images to nearly equal variance (LeCun et al. 1998, Efficient BackProp).
    """

    V: np.ndarray  # (d_in, k)

    def forward(self, X: np.ndarray, *, training: bool, track: bool = False) -> tuple[np.ndarray, Backward]:
        """`X (n, d_in)` to `(n, k)`; backward `dX = G V^T`."""
        return product(X, self.V), lambda G: (product(G, self.V.T), {})


@dataclass
class BatchNorm:
    """Batch normalisation over the samples (Ioffe and Szegedy 2015, arXiv 1502.03167).

    Training normalises every feature by the mean and the *biased* variance of the minibatch, evaluation by the
    running averages of both. Only a forward pass with `track=True`, as in a training update, changes these.
    """

    gamma: np.ndarray  # (d,) or (m, 1, d)
    beta: np.ndarray  # (d,) or (m, 1, d)
    momentum: float  # alpha, the weight of the past in the running averages
    eps: float
    running_mean: np.ndarray | None = None  # mu_av, shaped like gamma; None before the first tracked minibatch
    running_variance: np.ndarray | None = None  # v_av

    def forward(self, X: np.ndarray, *, training: bool, track: bool = False) -> tuple[np.ndarray, Backward]:
        """`Y = gamma * X_hat + beta` with `X_hat = (X - mu) / sqrt(v + eps)`."""
        if not training:
            return self._forward_with_running_averages(X)
        n = X.shape[-2]
        shares, ones = _row_of(1 / n, n, X.dtype), _row_of(1.0, n, X.dtype)
        mu = shares @ X
        centred = X - mu
        v = shares @ (centred * centred)
        std = np.sqrt(v + scalar(self.eps, v.dtype))
        gamma = self.gamma
        if track:
            self._track(mu.reshape(gamma.shape), v.reshape(gamma.shape))
        scale = gamma / std
        Y = centred * scale + self.beta

        def backward(G: np.ndarray) -> tuple[np.ndarray, Gradients]:
            """`dX = gamma / sqrt(v + eps) * (G - mean(G) - X_hat * mean(G * X_hat))`.

            The means, of the derivatives of mu and v, are dbeta / n and dgamma / n. X_hat is not computed: its factor
            1 / sqrt(v + eps) is applied to the means, which saves two passes over the samples.
            """
            share = scalar(1 / n, G.dtype)
            dbeta = ones @ G
            dgamma = ones @ (G * centred) / std
            dX = G - dbeta * share
            dX -= centred * (dgamma / std * share)
            dX *= scale
            return dX, {"gamma": dgamma.reshape(gamma.shape), "beta": dbeta.reshape(gamma.shape)}

        return Y, backward

    def _forward_with_running_averages(self, X: np.ndarray) -> tuple[np.ndarray, Backward]:
        """Normalise by the constants mu_av and v_av: 0 and 1 before the first tracked minibatch."""
        mean = np.zeros_like(self.gamma) if self.running_mean is None else self.running_mean
        variance = np.ones_like(self.gamma) if self.running_variance is None else self.running_variance
        inverse_std = 1 / np.sqrt(variance + self.eps)
        X_hat, gamma = (X - mean) * inverse_std, self.gamma

        def backward(G: np.ndarray) -> tuple[np.ndarray, Gradients]:
            dgamma = sum_over_samples(G * X_hat).reshape(gamma.shape)
            return G * (gamma * inverse_std), {"gamma": dgamma, "beta": sum_over_samples(G).reshape(gamma.shape)}

        return gamma * X_hat + self.beta, backward

    def _track(self, mu: np.ndarray, v: np.ndarray) -> None:
        """`mu_av = alpha mu_av + (1 - alpha) mu`, likewise v_av; the first minibatch sets them."""
        if self.running_mean is None or self.running_variance is None:
            self.running_mean, self.running_variance = mu.copy(), v.copy()
            return
        past, present = scalar(self.momentum, mu.dtype), scalar(1 - self.momentum, mu.dtype)
        self.running_mean = past * self.running_mean + present * mu
        self.running_variance = past * self.running_variance + present * v


@dataclass
class ReLU:
    """`Y = max(X, 0)`, backward `dX = G` where X > 0, else 0."""

    def forward(self, X: np.ndarray, *, training: bool, track: bool = False) -> tuple[np.ndarray, Backward]:
        if not training:
            return np.maximum(X, 0), lambda G: (G * (X > 0), {})
        # 1 or 0 in the precision of X, for both passes: np.maximum takes as long as both products. 0 * NaN is NaN, so
        # divergence is detected.
        on = np.greater(X, scalar(0, X.dtype)).astype(X.dtype)
        return X * on, lambda G: (G * on, {})


@dataclass
class Dropout:
    """Inverted dropout (Srivastava et al. 2014): in training, each unit of each sample is 0 with probability p.

    `Y = X * mask` with a mask of 0 and 1 / (1 - p), so that the mean of Y is X and evaluation is the identity; backward
    `dX = G * mask`. The mask is a function of `seed`, `index` and `step` alone; the replicas of a stack share it.
    """

    p: float  # rounded to a multiple of 1 / 65536
    seed: int
    index: int  # of the layer, so that no two layers of a network share a mask
    step: int = 0  # number of the update, set by the training loop

    def forward(self, X: np.ndarray, *, training: bool, track: bool = False) -> tuple[np.ndarray, Backward]:
        if not training:
            return X, lambda G: (G, {})
        mask = self.mask(X.shape[-2], X.shape[-1], X.dtype)
        return X * mask, lambda G: (G * mask, {})

    def mask(self, n: int, d: int, dtype: np.dtype) -> np.ndarray:
        """Return the mask `(n, d)` of this step."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(DROPOUT, self.step, self.index))
        # Four units from each 64 random bits take a third of the time of one float per unit.
        bits = np.random.PCG64(sequence).random_raw(-(-n * d // 4)).view(np.uint16)[: n * d].reshape(n, d)
        dropped = min(round(self.p * 65536), 65535)
        return (bits >= dropped) * np.asarray(65536 / (65536 - dropped), dtype)


def sum_over_samples(X: np.ndarray) -> np.ndarray:
    """Return the sum of the rows of `X (..., n, d)` as `(..., 1, d)`."""
    return _row_of(1.0, X.shape[-2], X.dtype) @ X


@lru_cache(maxsize=16)
def _row_of(value: float, n: int, dtype: np.dtype) -> np.ndarray:
    """Return a constant `(1, n)`: its product with X, the sum or mean of rows, takes a third of the time of `sum`."""
    return np.full((1, n), value, dtype)


Layer = Whitening | Linear | BatchNorm | ReLU | Dropout
