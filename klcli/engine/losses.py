"""Softmax, cross-entropy and the L2 term. *loss* is the cross-entropy alone, *cost* is J, the loss plus the L2 term."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Loss = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Callable[[], np.ndarray]]]  # (S, y) -> loss, backward


def log_softmax(S: np.ndarray) -> np.ndarray:
    """Return `log P` of the scores `S (..., n, K)`, finite even if P rounds to 0."""
    shifted = S - S.max(axis=-1, keepdims=True)  # prevents overflow of the exponential
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def negative_log_likelihood(S: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return `-log p_y (..., n)` of the scores `S (..., n, K)` and labels `y (n,)`."""
    return -log_softmax(S)[..., np.arange(len(y)), y]


def cross_entropy(
    S: np.ndarray, y: np.ndarray, *, smoothing: float = 0.0, other: np.ndarray | None = None, share: float = 1.0
) -> tuple[np.ndarray, Callable[[], np.ndarray]]:
    """Return the mean of `-sum_k q_k log p_k` (a number, or `(m,)`), and its backward pass, which returns dJ/dS.

    `q = (1 - smoothing) * (share * Y + (1 - share) * Y') + smoothing / K`: label smoothing (Szegedy et al.
    2016, arXiv 1512.00567, section 7) of mixup labels (Zhang et al. 2018, arXiv 1710.09412). Y and Y' are the
    one-hot forms of `y (n,)` and `other (n,)`, which are never constructed; without both, q is Y.
    """
    (n, K), rows = S.shape[-2:], np.arange(S.shape[-2])
    weights = [(y, (1 - smoothing) * share)]
    weights += [] if other is None else [(other, (1 - smoothing) * (1 - share))]
    shifted = S - S.max(axis=-1, keepdims=True)
    P = np.exp(shifted)
    total = P.sum(axis=-1, keepdims=True)
    likelihood = shifted.sum(axis=-1) * (smoothing / K)
    for labels, weight in weights:
        likelihood += weight * shifted[..., rows, labels]
    loss = (np.log(total[..., 0]) - likelihood).sum(axis=-1) / n

    def backward() -> np.ndarray:
        """`dJ/dS = (P - q) / n`."""
        G = P / total - smoothing / K
        for labels, weight in weights:
            G[..., rows, labels] -= weight
        return np.asarray(G / n)

    return loss, backward


def l2_penalty(weights: Iterable[np.ndarray], lam: float | np.ndarray) -> np.ndarray:
    """Return `lambda * sum_l ||W_l||_F^2`: no factor 1/2; every W including the output layer's, no b, gamma or beta.

    lam is a number, or `(m,)` for weights `(m, d_in, d_out)`; summed in float64. The square of a complex number is not
    that of its modulus, so that the complex step differentiates it.
    """
    squares = (np.square(W, dtype=np.result_type(W, np.float64)).sum(axis=(-2, -1)) for W in weights)
    return np.asarray(lam, np.float64) * sum(squares)


def with_l2(name: str, theta: np.ndarray, gradient: Any, lam: float | np.ndarray) -> np.ndarray:
    """Return the gradient of J: that of the loss, and for a weight matrix (`.W`) `2 lambda W`, that of the L2 term."""
    gradient = np.asarray(gradient)
    return gradient + per_replica(2 * np.asarray(lam), theta) * theta if name.endswith(".W") else gradient


def per_replica(values: float | np.ndarray, array: np.ndarray) -> np.ndarray:
    """Return a number, or one per replica `(m,)` as `(m, 1, 1)`, in the precision of `array`."""
    values = np.asarray(values, array.dtype)
    return values[:, None, None] if values.ndim else values
