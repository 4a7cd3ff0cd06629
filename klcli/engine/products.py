"""Products of matrices, the large ones in two halves."""

import numpy as np

from klcli.second_core import both

WORTH_HALVING = 4_000_000  # multiplications: about 100 us, and 10 to 60 us go to waking the second core


def product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return `A @ B` for `A (p, q)` and `B (q, r)`, or for both with a leading axis of m members.

    A large product is divided along the longest of p, q and r, where a half loses least; two halves of q
    are two sums. Several members are divided among themselves.
    """
    if A.ndim == B.ndim == 3 and len(A) == len(B):
        return _product_of_members(A, B)
    if A.ndim != 2 or B.ndim != 2:  # only one of them has members, as in a gradient check
        return A @ B
    p, q, r = *A.shape, B.shape[-1]
    if p * q * r < WORTH_HALVING:
        return A @ B
    half = max(p, q, r) // 2
    if q >= max(p, r):
        Y, rest = both(lambda: A[:, :half] @ B[:half], lambda: A[:, half:] @ B[half:])
        Y += rest
        return Y
    Y = np.empty((p, r), A.dtype)
    if p >= r:
        both(lambda: np.matmul(A[:half], B, out=Y[:half]), lambda: np.matmul(A[half:], B, out=Y[half:]))
    else:
        both(lambda: np.matmul(A, B[:, :half], out=Y[:, :half]), lambda: np.matmul(A, B[:, half:], out=Y[:, half:]))
    return Y


def _product_of_members(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    m, p, q = A.shape
    if m == 1:
        return product(A[0], B[0])[None]
    if m * p * q * B.shape[-1] < WORTH_HALVING:
        return A @ B
    Y = np.empty((m, p, B.shape[-1]), A.dtype)
    half = m // 2
    both(lambda: np.matmul(A[:half], B[:half], out=Y[:half]), lambda: np.matmul(A[half:], B[half:], out=Y[half:]))
    return Y
