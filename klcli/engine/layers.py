"""The layers of a fully connected network, each forward pass with its backward pass beneath it.

In training, `forward(X)` returns `(Y, backward)`. The closure `backward(G)` keeps the arrays that it needs, takes
`G = dJ/dY` and returns `(dJ/dX, {parameter: gradient})`; the layer itself caches nothing. In evaluation, `evaluate(X)`
returns Y.

Rows are samples: `X (n, d)`. Every parameter may carry a leading axis of `m` replicas, the networks of a stack that
train in lockstep; activations are then `(m, n, d)`. Samples are `axis=-2` and features `axis=-1` for one network or m.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

DROPOUT = 2  # spawn key of the masks, distinct from those of weights, order and augmentation
Gradients = dict[str, Any]  # arrays, or objects that `np.asarray` converts to arrays
Backward = Callable[[np.ndarray], tuple[np.ndarray | None, Gradients]]


class SameInEvaluation:
    """A layer whose Y in evaluation is that of training."""

    forward: Callable[[np.ndarray], tuple[np.ndarray, Backward]]

    def evaluate(self, X: np.ndarray) -> np.ndarray:
        return self.forward(X)[0]


@dataclass
class Linear(SameInEvaluation):
    """`Y = X @ W + b`."""

    W: np.ndarray  # (d_in, d_out) or (m, d_in, d_out)
    b: np.ndarray  # (d_out,) or (m, 1, d_out)
    is_first: bool = False  # the input is data, so dJ/dX is not computed: that saves a third of the products here

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, Backward]:
        """`X (..., n, d_in)` to `(..., n, d_out)`; an X (n, d_in) is shared by all replicas."""

        def backward(G: np.ndarray) -> tuple[np.ndarray | None, Gradients]:
            """`dW = X^T G`, `db` the sum of the rows of G, `dX = G W^T`."""
            dX = None if self.is_first else G @ self.W.mT
            return dX, {"W": X.mT @ G, "b": _sum(G, self.b)}

        return X @ self.W + self.b, backward


@dataclass
class Whitening(SameInEvaluation):
    """`Y = X @ V` before the first linear layer, with a fixed V that all replicas share.

    V scales the principal components of the images to nearly equal variance (LeCun et al. 1998, Efficient BackProp).
    """

    V: np.ndarray  # (d_in, k)

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, Backward]:
        """`X (n, d_in)` to `(n, k)`; X is data and V is fixed, so the backward pass ends here at the latest."""
        return X @ self.V, lambda G: (None, {})


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

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, Backward]:
        """`Y = gamma * X_hat + beta` with `X_hat = (X - mu) / sqrt(v + eps)`."""
        mu = X.mean(axis=-2, keepdims=True)
        centred = X - mu
        v = np.square(centred).mean(axis=-2, keepdims=True)
        std = np.sqrt(v + self.eps)
        gamma, X_hat = self.gamma, centred / std
        if track:
            self._track(mu.reshape(gamma.shape), v.reshape(gamma.shape))

        def backward(G: np.ndarray) -> tuple[np.ndarray, Gradients]:
            """`dX = gamma / sqrt(v + eps) * (G - mean(G) - X_hat * mean(G * X_hat))`."""
            G_X_hat = G * X_hat
            means = G.mean(axis=-2, keepdims=True), G_X_hat.mean(axis=-2, keepdims=True)
            dX = gamma / std * (G - means[0] - X_hat * means[1])
            return dX, {"gamma": _sum(G_X_hat, gamma), "beta": _sum(G, gamma)}

        return gamma * X_hat + self.beta, backward

    def evaluate(self, X: np.ndarray) -> np.ndarray:
        """Normalise by mu_av and v_av."""
        mean, inverse_std = self.averages()
        return self.gamma * ((X - mean) * inverse_std) + self.beta

    def averages(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mu_av and `1 / sqrt(v_av + eps)`; mu_av and v_av are 0 and 1 before the first tracked minibatch."""
        mean = np.zeros_like(self.gamma) if self.running_mean is None else self.running_mean
        variance = np.ones_like(self.gamma) if self.running_variance is None else self.running_variance
        return mean, 1 / np.sqrt(variance + self.eps)

    def _track(self, mu: np.ndarray, v: np.ndarray) -> None:
        """`mu_av = alpha mu_av + (1 - alpha) mu`, likewise v_av; the first minibatch sets them."""
        if self.running_mean is None or self.running_variance is None:
            self.running_mean, self.running_variance = mu.copy(), v.copy()
            return
        past, present = self.momentum, 1 - self.momentum
        self.running_mean = past * self.running_mean + present * mu
        self.running_variance = past * self.running_variance + present * v


@dataclass
class ReLU(SameInEvaluation):
    """`Y = max(X, 0)`, backward `dX = G` where X > 0, else 0."""

    second_moment: ClassVar[float] = 0.5  # mean of Y^2 if X is N(0, 1)

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, Backward]:
        return np.maximum(X, 0), lambda G: (G * (X > 0), {})  # np.maximum keeps NaN, so that divergence is detected


@dataclass
class SiLU(SameInEvaluation):
    """`Y = X * sigmoid(a X)` with a fixed slope a (Ramachandran et al. 2017, arXiv 1710.05941).

    Backward `dX = G * (sigmoid(a X) + a Y (1 - sigmoid(a X)))`. With a = 1.702 it approximates GELU within 0.02.
    """

    slope: float = 1.0

    @property
    def second_moment(self) -> float:
        """The mean of Y^2 if X is N(0, 1), by Gauss-Hermite quadrature within 0.03 %, exact below a slope of 2."""
        X, weights = np.polynomial.hermite_e.hermegauss(100)
        return float(weights @ np.square(self.evaluate(X)) / weights.sum())

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, Backward]:
        sigmoid = (1 + np.tanh(self.slope / 2 * X)) / 2  # unlike an exponential, tanh does not overflow
        Y = X * sigmoid
        return Y, lambda G: (G * (sigmoid + self.slope * Y * (1 - sigmoid)), {})


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

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, Backward]:
        mask = self.mask(X.shape[-2], X.shape[-1], X.dtype)
        return X * mask, lambda G: (G * mask, {})

    def evaluate(self, X: np.ndarray) -> np.ndarray:
        return X

    def mask(self, n: int, d: int, dtype: np.dtype) -> np.ndarray:
        """Return the mask `(n, d)` of this step."""
        return (self.bits(n, d) >= self.dropped) * np.asarray(65536 / (65536 - self.dropped), dtype)

    @property
    def dropped(self) -> int:
        """How many of the 65536 values of 16 bits drop a unit."""
        return min(round(self.p * 65536), 65535)

    def bits(self, n: int, d: int) -> np.ndarray:
        """Return 16 random bits for each unit, `(n, d)` uint16: four units from each 64 bits of the generator."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(DROPOUT, self.step, self.index))
        return np.random.PCG64(sequence).random_raw(-(-n * d // 4)).view(np.uint16)[: n * d].reshape(n, d)


def _sum(X: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return the sum of the rows of `X (..., n, d)` in the shape of a parameter."""
    return np.asarray(X.sum(axis=-2)).reshape(like.shape)


Activation = ReLU | SiLU
Layer = Whitening | Linear | BatchNorm | Activation | Dropout
