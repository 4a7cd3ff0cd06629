"""Matrix products and gradient descent steps; large ones are divided in two, for the second core."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from klcli.second_core import begin, ended

if TYPE_CHECKING:
    from klcli.second_core.partner import Begun

Pair = tuple[np.ndarray, np.ndarray]
Where = slice | tuple[slice, slice]
PendingStep = Callable[[], None] | None  # completes the step when called

WORTH_HALVING = 3_000_000  # multiplications: about 80 us; passing half of them to the second core costs 20 us
LESS = 1_200_000  # multiplications that this core computes less in a step by columns: it also makes all small steps
CACHED = 300_000  # numbers in W: half of them take 600 kB in float32, and a second-level cache has 1 MB or more


def product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return `A @ B` for `A (p, q)` and `B (q, r)`, or for both with a leading axis of m replicas.

    A large product is divided along the longest of p, q and r, which slows the halves down least; the two halves of
    q are added. A product of several replicas is divided along m.
    """
    if A.size * B.shape[-1] < WORTH_HALVING or A.ndim != B.ndim:  # ndim: only one has replicas, as in a gradient check
        return A @ B
    p, q, r = *A.shape[-2:], B.shape[-1]
    if A.ndim == 3:
        m = len(A)
        if m == 1:
            return product(A[0], B[0])[None]
        half = m // 2
        return _in_halves((m, p, r), (A[:half], B[:half]), (A[half:], B[half:]), np.s_[:half], np.s_[half:])
    half = max(p, q, r) // 2
    if q >= max(p, r):
        rest = np.empty((p, r), A.dtype)
        begun = begin(multiply, A[:, half:], B[half:], out=rest)
        Y = A[:, :half] @ B[:half]
        if not ended(begun):
            multiply(A[:, half:], B[half:], rest)
        Y += rest
        return np.asarray(Y)
    if p >= r:
        return _in_halves((p, r), (A[:half], B), (A[half:], B), np.s_[:half], np.s_[half:])
    return _in_halves((p, r), (A, B[:, :half]), (A, B[:, half:]), np.s_[:, :half], np.s_[:, half:])


def _in_halves(shape: tuple[int, ...], first: Pair, second: Pair, here: Where, there: Where) -> np.ndarray:
    """Return an array with the product of the first pair in its part `here`, of the second in `there`."""
    Y = np.empty(shape, first[0].dtype)
    begun = begin(multiply, *second, out=Y[there])
    multiply(*first, Y[here])
    if not ended(begun):
        multiply(*second, Y[there])
    return Y


def multiply(A: np.ndarray, B: np.ndarray, Y: np.ndarray) -> None:
    """`Y <- A @ B`."""
    np.matmul(A, B, out=Y)


def descend(
    G: np.ndarray, X: np.ndarray, keep: float | np.ndarray, W: np.ndarray, pending: PendingStep = None
) -> PendingStep:
    """`W <- keep * W - G X` for `W (p, r)`, `G (p, n)` and `X (n, r)`; keep is a number, or one for each row (p, 1).

    The call of the returned PendingStep completes the step. `pending` is the PendingStep of an earlier step: it is
    called before this step is divided, or returned if this step is too small to divide.

    If half of W fits into the cache of a core, the step is divided along r: that half and its part of X stay in the
    cache from one update to the next. A larger W is divided along p, so that each core processes contiguous rows.
    """
    p, r = W.shape
    if p * r * len(X) < WORTH_HALVING:
        _descend(G, X, keep, W)
        return pending
    if pending is not None:
        pending()
    if p * r <= CACHED:
        own = max(1, r // 2 - LESS // (p * len(X)))
        here, there = slice(None, own), slice(own, None)
        begun = begin(_descend, G, X[:, there], keep, out=W[:, there], in_place=True)
        if begun is None:  # the same two products, then updates of whole rows
            step = np.empty_like(W)
            for part in (here, there):
                multiply(G, X[:, part], step[:, part])
            W *= keep
            W -= step
            return None
        _descend(G, X[:, here], keep, W[:, here])
        return partial(_complete, begun, G, X[:, there], keep, W[:, there])
    here, there = slice(None, p // 2), slice(p // 2, None)
    keeps = (keep[here], keep[there]) if isinstance(keep, np.ndarray) else (keep, keep)
    begun = begin(_descend, G[there], X, keeps[1], out=W[there], in_place=True)
    _descend(G[here], X, keeps[0], W[here])
    return partial(_complete, begun, G[there], X, keeps[1], W[there])


def _complete(begun: "Begun | None", *step: Any) -> None:
    """Wait for the other core, or compute its half here if it has not done so."""
    if not ended(begun):
        _descend(*step)


def _descend(G: np.ndarray, X: np.ndarray, keep: float | np.ndarray, W: np.ndarray) -> None:
    step = G @ X
    W *= keep
    W -= step
