"""Products of matrices, the large ones in two halves."""

import numpy as np

from klcli.second_core import both

WORTH_HALVING = 4_000_000  # multiplications: about 100 us, and 10 to 60 us go to waking the second core


def product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return `A @ B` for `A (p, q)` and `B (q, r)`, or for both with a leading axis of m members.

    A large product is divided along the longest of p, q and r, where a half loses least; two halves of q
    are two sums. Several members are divided among themselves.
    """
    p, q, r = *A.shape[-2:], B.shape[-1]
    members = len(A) if A.ndim == 3 else 1
    if members * p * q * r < WORTH_HALVING or A.ndim != B.ndim:  # or only one has members, as in a gradient check
        return A @ B
    if A.ndim == 3:
        return _product_of_members(A, B)
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
    m = len(A)
    if m == 1:
        return product(A[0], B[0])[None]
    Y = np.empty((m, A.shape[1], B.shape[2]), A.dtype)
    half = m // 2
    both(lambda: np.matmul(A[:half], B[:half], out=Y[:half]), lambda: np.matmul(A[half:], B[half:], out=Y[half:]))
    return Y
