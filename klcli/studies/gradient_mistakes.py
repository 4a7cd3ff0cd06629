"""The usual mistakes in a backward pass written by hand: wrong formulas in place of right ones, in float64."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from klcli.engine.layers import BatchNorm, Dropout, Linear
from klcli.engine.losses import log_softmax
from klcli.engine.network import Network

Arrays = dict[str, np.ndarray]  # by key: dW1, db1, dgamma1, dbeta1
Formulas = Mapping[str, Callable[[Any], Any]]
# The mean and the sum over the images.
mean: Callable[[Any], Any] = partial(np.mean, axis=0)
total: Callable[[Any], Any] = partial(np.sum, axis=0)


def _bn(at: Any, of_mean: Any = 1, of_variance: Any = 1) -> np.ndarray:
    """Return dJ/dX of BN; the terms through the mean and through the variance have the factor 1 if it is right."""
    through_variance = at.X_hat * mean(at.G * at.X_hat)
    return np.asarray(at.gamma / at.std * (at.G - of_mean * mean(at.G) - of_variance * through_variance))


# `at` holds the quantities of one layer in the notation of the engine: input X (n, d), output Y, G = dJ/dY, parameters;
# of BN mu, v, std and X_hat; of the loss scores S, probabilities P, targets Q and one-hot labels, (n, K).
RIGHT: Formulas = {
    "P": lambda at: np.exp(log_softmax(at.S)),
    "dS": lambda at: (at.P - at.Q) / at.n,
    "dW": lambda at: at.X.T @ at.G,
    "db": lambda at: total(at.G),
    "dX": lambda at: at.G @ at.W.T,
    "dgamma": lambda at: total(at.G * at.X_hat),
    "dbeta": lambda at: total(at.G),
    "l2_of_W": lambda at: 2 * at.lam * at.W,
    "l2_of_b": lambda at: 0.0,
    "l2_of_gamma": lambda at: 0.0,
    "l2_of_beta": lambda at: 0.0,
    "activation": lambda at: at.derivative(at.G)[0],
    "dropout": lambda at: at.derivative(at.G)[0],
    "std": lambda at: np.sqrt(at.v + at.eps),
    "bn": _bn,
    "written": lambda at: at.gradient,
}


@dataclass(frozen=True)
class Mistake:
    """A name, an explanation with the right formula, and the formulas that it replaces."""

    name: str
    cure: str
    formulas: Formulas


def _row(name: str, cure: str, **formulas: Callable[[Any], Any]) -> Mistake:
    return Mistake(name, cure, formulas)


def _masked(at: Any, where: np.ndarray) -> np.ndarray:
    """Return G with the mask of another layer; the right mask where shapes differ."""
    return at.G * (where > 0) if where.shape == at.X.shape else RIGHT["activation"](at)


def _with_std(at: Any, std: np.ndarray) -> np.ndarray:
    """Return dJ/dX of BN with another std than that of the forward pass."""
    return _bn(at, 1, (at.std / std) ** 2) * at.std / std


def _unbiased(at: Any) -> np.ndarray:
    return np.sqrt(at.v * at.n / (at.n - 1) + at.eps)


def _softmax_twice(at: Any) -> np.ndarray:
    """Return dJ/dS of a loss that applies a softmax to the probabilities, as to scores."""
    G = (np.exp(log_softmax(at.P)) - at.Q) / at.n
    return np.asarray(at.P * (G - (G * at.P).sum(axis=1, keepdims=True)))


def _is_square(W: np.ndarray) -> bool:
    return W.ndim == 2 and W.shape[0] == W.shape[1]


_L2 = "J has lambda times the sum of W squared, its gradient is 2 lambda W"
_ONLY_W = "J has the squares of W alone, of every layer"
_L2_OF_BN: Formulas = {"l2_of_gamma": lambda at: 2 * at.lam * at.gamma, "l2_of_beta": lambda at: 2 * at.lam * at.beta}
_MASK = "G passes where the input of the ReLU of the same layer is above 0"
_BN = "dX = gamma / std * (G - mean(G) - X_hat * mean(G * X_hat)), means over the images"
_POWERS = "the variance term is gamma * (X - mu) * mean(G * (X - mu)) * (v + eps)^-1.5, other terms have (v + eps)^-0.5"
_VARIANCE = "the minibatch is normalised by the variance with 1/n, np.var without ddof, forward and backward"
_EPS = "use the eps of J, which the export has under the key eps"
_GAMMA = "dgamma is the sum over the images of G * X_hat, dbeta the sum of G, G = dJ/dY of BN"
_LOSS = "dJ/dS = (P - Y) / n for the mean over the n images"
ROUNDED = _row("float32 rounding", "right to the precision of float32: use float64, or allow it by --atol and --rtol")
REVERSED = _row("layers in reversed order", "store the gradient of layer l, counted from the input, under l")
FACTOR = _row("a factor", "J is the mean over the images plus lambda times the sum of W squared: no 1/2, no 2")
UPDATED = _row("dX with the updated W", "compute all gradients before the first update; dX = G W^T has the W of J")
OTHER_EPS = _row("BN with another eps", _EPS)
CATALOGUE = (
    ROUNDED,
    _row("1/n missing, sum for mean", _LOSS, dS=lambda at: at.P - at.Q),
    _row("1/n twice", _LOSS, dS=lambda at: (at.P - at.Q) / at.n**2),
    _row("mean over images and classes", _LOSS, dS=lambda at: (at.P - at.Q) / at.Q.size),
    _row("wrong sign of the loss", _LOSS, dS=lambda at: (at.Q - at.P) / at.n),
    _row("one-hot labels not subtracted", _LOSS, dS=lambda at: at.P / at.n),
    _row("label smoothing missing", "the targets are smoothed, not one-hot", dS=lambda at: (at.P - at.one_hot) / at.n),
    _row("softmax over the images", "the probabilities of an image sum to 1",
         P=lambda at: np.exp(log_softmax(at.S.T)).T),
    _row("softmax twice", "a loss with a softmax in it takes the scores, not the probabilities", dS=_softmax_twice),
    _row("wrong sign of every gradient", "save dJ/dW, not the step -dJ/dW", written=lambda at: -at.gradient),
    _row("factor 2 of L2 missing", _L2, l2_of_W=lambda at: at.lam * at.W),
    _row("factor 2 of L2 twice", _L2, l2_of_W=lambda at: 4 * at.lam * at.W),
    _row("L2 missing", _L2, l2_of_W=lambda at: 0.0),
    _row("L2 with the wrong sign", _L2, l2_of_W=lambda at: -2 * at.lam * at.W),
    _row("L2 divided by n", _L2, l2_of_W=lambda at: 2 * at.lam * at.W / at.n),
    _row("lambda on b", _ONLY_W, l2_of_b=lambda at: 2 * at.lam * at.b),
    _row("lambda on gamma and beta", _ONLY_W, **_L2_OF_BN),
    _row("lambda on b, gamma and beta", _ONLY_W, l2_of_b=lambda at: 2 * at.lam * at.b, **_L2_OF_BN),
    _row("transposed W", "dW1 is (inputs, outputs), dW1_T (outputs, inputs), both shaped like their W",
         written=lambda at: at.gradient.T if _is_square(at.gradient) else at.gradient),
    _row("W not transposed in dX", "dX = G W^T for W (inputs, outputs)",
         dX=lambda at: at.G @ (at.W if _is_square(at.W) else at.W.T)),
    UPDATED,
    REVERSED,
    _row("dW without 1/n", "dW = X^T G, and G has the 1/n", dW=lambda at: at.n * at.X.T @ at.G),
    _row("dW with 1/n twice", "dW = X^T G, and G has the 1/n", dW=lambda at: at.X.T @ at.G / at.n),
    _row("db without 1/n", "db is the sum of G over the images, and G has the 1/n", db=lambda at: at.n * total(at.G)),
    _row("db as a mean", "db is the sum of G over the images, and G has the 1/n", db=lambda at: mean(at.G)),
    _row("no gradient of b", "db is the sum of G over the images", db=lambda at: np.zeros_like(at.b)),
    _row("no ReLU mask", "the derivative of the activation is missing: " + _MASK, activation=lambda at: at.G),
    _row("ReLU mask inverted", _MASK, activation=lambda at: at.G * (at.X <= 0)),
    _row("ReLU mask by the sign of the gradient", _MASK, activation=lambda at: at.G * (at.G > 0)),
    _row("ReLU mask on the wrong side of BN", _MASK, activation=lambda at: _masked(at, at.other_side)),
    _row("ReLU mask of the layer before", _MASK, activation=lambda at: _masked(at, at.before)),
    _row("ReLU mask of the layer after", _MASK, activation=lambda at: _masked(at, at.after)),
    _row("no dropout mask", "G passes through the mask of the forward pass", dropout=lambda at: at.G),
    _row("BN treated as constant", "no gradient through mean and variance: " + _BN, bn=lambda at: _bn(at, 0, 0)),
    _row("no gradient through the mean of BN", _BN, bn=lambda at: _bn(at, 0)),
    _row("no gradient through the variance of BN", _BN, bn=lambda at: _bn(at, 1, 0)),
    _row("wrong sign of the mean term of BN", _BN, bn=lambda at: _bn(at, -1)),
    _row("wrong sign of the variance term of BN", _BN, bn=lambda at: _bn(at, 1, -1)),
    _row("wrong sign of both terms of BN", _BN, bn=lambda at: _bn(at, -1, -1)),
    _row("1/n missing in the mean term of BN", _BN, bn=lambda at: _bn(at, at.n)),
    _row("1/n missing in the variance term of BN", _BN, bn=lambda at: _bn(at, 1, at.n)),
    _row("sum for mean in BN", _BN, bn=lambda at: _bn(at, at.n, at.n)),
    _row("1/std missing in the mean term of BN", _BN, bn=lambda at: _bn(at, at.std)),
    _row("(v + eps)^-0.5 for (v + eps)^-1.5 in the variance term of BN", _POWERS,
         bn=lambda at: _bn(at, 1, at.std**2)),
    _row("powers of std for those of v + eps in dX of BN", _POWERS,
         bn=lambda at: _bn(at, 1, at.std) * at.std**0.5),
    _row("powers of v + eps for those of std in dX of BN", _POWERS, bn=lambda at: _bn(at, 1, at.std**-2) / at.std),
    _row("X_hat for X - mu in the variance term of BN", _POWERS, bn=lambda at: _bn(at, 1, at.std**-2)),
    _row("X for X - mu in the variance term of BN", _POWERS, bn=lambda at: at.gamma / at.std * (
        at.G - mean(at.G) - at.X * mean(at.G * at.X) / at.std**2)),
    _row("variance term of BN halved", _POWERS, bn=lambda at: _bn(at, 1, 0.5)),
    _row("variance term of BN doubled", _POWERS, bn=lambda at: _bn(at, 1, 2)),
    _row("eps missing in dX of BN", _POWERS, bn=lambda at: _with_std(at, np.sqrt(at.v))),
    _row("gamma missing in dX of BN", _BN, bn=lambda at: _bn(at) / at.gamma),
    _row("gamma twice in dX of BN", _BN, bn=lambda at: _bn(at) * at.gamma),
    _row("1/std missing in dX of BN", _BN, bn=lambda at: _bn(at) * at.std),
    _row("unbiased variance, with its own derivative", _VARIANCE, std=_unbiased,
         bn=lambda at: _bn(at, 1, at.n / (at.n - 1))),
    _row("unbiased variance", _VARIANCE, std=_unbiased),
    _row("unbiased variance in both powers of the backward pass", _VARIANCE,
         bn=lambda at: _with_std(at, _unbiased(at))),
    _row("unbiased variance in the backward pass", _VARIANCE, bn=lambda at: _bn(at) * at.std / _unbiased(at)),
    _row("BN with eps 1e-5", _EPS, std=lambda at: np.sqrt(at.v + 1e-5)),
    _row("BN with eps 1e-3", _EPS, std=lambda at: np.sqrt(at.v + 1e-3)),
    _row("eps outside the square root of BN", "std = sqrt(v + eps)", std=lambda at: np.sqrt(at.v) + at.eps),
    OTHER_EPS,
    _row("dgamma of the input that is not normalised", _GAMMA, dgamma=lambda at: total(at.G * at.X)),
    _row("dgamma without 1/std", _GAMMA, dgamma=lambda at: total(at.G * (at.X - at.mu))),
    _row("dgamma without X_hat", _GAMMA, dgamma=lambda at: total(at.G)),
    _row("dgamma of the output of BN", _GAMMA, dgamma=lambda at: total(at.G * at.Y)),
    _row("dgamma and dbeta of G that is already times gamma", _GAMMA,
         dgamma=lambda at: at.gamma * total(at.G * at.X_hat), dbeta=lambda at: at.gamma * total(at.G)),
    _row("no gradient of gamma and beta", _GAMMA, dgamma=lambda at: 0 * at.gamma, dbeta=lambda at: 0 * at.beta),
    _row("dgamma and dbeta as means", _GAMMA,
         dgamma=lambda at: mean(at.G * at.X_hat), dbeta=lambda at: mean(at.G)),
    _row("dgamma and dbeta without 1/n", _GAMMA,
         dgamma=lambda at: at.n * total(at.G * at.X_hat), dbeta=lambda at: at.n * total(at.G)),
    _row("dgamma and dbeta swapped", _GAMMA, dgamma=RIGHT["dbeta"], dbeta=RIGHT["dgamma"]),
    FACTOR,
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A single network and its minibatch in float64: the cost J whose gradients a program computes."""

    network: Network
    X: np.ndarray  # (n, d)
    y: np.ndarray  # (n,)
    lam: float
    smoothing: float

    def gradients(self, wrong: Formulas = RIGHT, only: int | None = None) -> Arrays:
        """Return dJ/dtheta by key, with the `wrong` formulas in every layer, or in the layer of number `only`."""

        def use(formula: str, at: Any) -> Any:
            is_wrong = formula in wrong and only in (None, at.number)
            return (wrong if is_wrong else RIGHT)[formula](at)

        steps, n = list[Any](), len(self.X)
        Y = self.X
        for name, layer in self.network.layers.items():
            at = SimpleNamespace(**vars(layer), layer=layer, number=number_of(name), X=Y, n=n, lam=self.lam)
            if isinstance(layer, BatchNorm):
                at.mu, at.v = mean(Y), np.var(Y, axis=0)
                at.std = use("std", at)
                at.X_hat = (Y - at.mu) / at.std
                at.Y = at.gamma * at.X_hat + at.beta
            else:
                at.Y, at.derivative = layer.forward(Y)
            steps.append(at)
            Y = at.Y
        self._add_other_masks(steps)
        one_hot = np.eye(Y.shape[1])[self.y]
        Q = (1 - self.smoothing) * one_hot + self.smoothing / Y.shape[1]
        loss = SimpleNamespace(number=0, S=Y, Q=Q, one_hot=one_hot, n=n)
        loss.P = use("P", loss)
        G, found = use("dS", loss), {}

        def write(at: Any, *fields: str) -> None:
            for field in fields:
                at.gradient = use(f"d{field}", at) + use(f"l2_of_{field}", at)
                found[f"d{field}{at.number}"] = use("written", at)

        for at in reversed(steps):
            at.G = G
            if isinstance(at.layer, Linear):
                write(at, "b", "W")
                G = None if at.is_first else use("dX", at)
            elif isinstance(at.layer, BatchNorm):
                write(at, "gamma", "beta")
                G = use("bn", at)
            else:
                G = use("dropout" if isinstance(at.layer, Dropout) else "activation", at)
        return found

    def _add_other_masks(self, steps: list[Any]) -> None:
        """Add to every activation the arrays whose signs a wrong mask may have."""
        activations = [at for at in steps if not isinstance(at.layer, Linear | BatchNorm | Dropout)]
        inputs = [self.X, *(at.X for at in activations), steps[-1].Y]
        norms = {at.number: at for at in steps if isinstance(at.layer, BatchNorm)}
        for place, at in enumerate(activations, start=1):
            at.before, at.after, bn = inputs[place - 1], inputs[place + 1], norms.get(at.number)
            at.other_side = at.X if bn is None else bn.X if bn.Y is at.X else bn.Y


def kind_of(key: str) -> str:
    """Return the letters of a key: `dW` of `dW1`."""
    return key.rstrip("0123456789")


def number_of(name: str) -> int:
    """Return the number of the layer of a name or key: 2 of `batch_norm2`, `dW2`."""
    return int(re.sub(r"\D", "", name))
