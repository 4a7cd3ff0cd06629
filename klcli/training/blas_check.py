"""BLAS check: compares the products that klcli uses with sums in float64, before a BLAS trains anything."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

import numpy as np

from klcli.data.cifar10.prepared import cache_folder
from klcli.errors import KlcliError
from klcli.training.environment import numpy_environment

Multiply = Callable[..., np.ndarray]  # (A, B) or (A, B, out=Y), as np.matmul


class WrongBlas(KlcliError):
    """The BLAS of this NumPy computes wrong products."""


def check_blas() -> None:
    """Raise WrongBlas if a product is wrong. The verdict on each build of NumPy, BLAS and kernel is kept in the cache.

    NumPy 2.5.0, for example, computes `A @ A.T` wrongly in float32 on Apple's M4 (numpy/numpy#31776).
    """
    used = numpy_environment()
    about = json.dumps([used.threads, used.versions, np.show_config(mode="dicts")], sort_keys=True)
    _check(about, f"NumPy {used.versions['numpy']} with BLAS {used.versions['blas']}")


@lru_cache  # remembers the environments that this process has found right
def _check(about: str, name: str) -> None:
    file = cache_folder() / "blas" / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.json"
    known = ""
    with suppress(OSError, ValueError):
        known = file.read_text(encoding="utf-8")
    if known != about:
        if wrong := wrong_products():
            cure = f"install another version of NumPy, `pip install 'numpy!={np.__version__}'`"
            raise WrongBlas(f"{name} computes {', '.join(wrong)} wrongly: {cure}")
        with suppress(OSError):  # a cache that cannot be written: the next process checks again
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(about, encoding="utf-8")


def wrong_products(multiply: Multiply = np.matmul) -> list[str]:
    """Return the kinds of product that differ from a sum in float64, made without BLAS, by more than rounding."""
    # Odd sizes, so that the edges of a kernel's blocks are checked; 777 summands, more than one block of them.
    shapes = (35, 777), (35, 11), (11, 777), (777,), (67, 101), (3, 35, 101), (3, 11, 101)
    drawn = [np.random.default_rng(0).standard_normal(shape) for shape in shapes]
    wrong = []
    for dtype in (np.float32, np.float64):
        X, G, W, v, A, stack, weights = (array.astype(dtype) for array in drawn)
        W, weights = W.T, weights.mT
        kinds = {
            "X @ W": (X, W), "X @ W in C order": (X, W.copy()), "half of X @ W": (X[:, 388:], W[388:]),
            "X.T @ G": (X.T, G), "G.T @ X": (G.T, X), "G @ W.T": (G, W.T),
            "A @ A.T": (A, A.T), "A.T @ A": (A.T, A), "half of A @ A.T": (A[:, :50], A[:, :50].T),
            "X @ v": (X, v), "v @ W": (v[None], W), "X.T @ g": (X.T, G[:, 0]),
            "stacks": (stack, weights), "transposed stacks": (stack.mT, stack), "a stack on one X": (A[:35], weights),
        }  # fmt: skip
        for kind, (A_, B_) in kinds.items():
            columns = B_ if B_.ndim > 1 else B_[:, None]
            Y = np.einsum("...ij,...jk->...ik", A_.astype(np.float64), columns.astype(np.float64))
            lengths = np.linalg.norm(A_, axis=-1, keepdims=True) * np.linalg.norm(columns, axis=-2, keepdims=True)
            rounding = 4 * np.finfo(dtype).eps * np.sqrt(A_.shape[-1]) * lengths
            out = np.empty((*Y.shape[:-1], Y.shape[-1] + 5), dtype)[..., 2:-3]  # as a half of a larger array
            found = [multiply(A_, B_)] if B_.ndim == 1 else [multiply(A_, B_), multiply(A_, B_, out=out)]
            if not all((abs(one.reshape(Y.shape) - Y) <= rounding).all() for one in found):
                wrong.append(f"{kind} in {np.dtype(dtype)}")
    return wrong
