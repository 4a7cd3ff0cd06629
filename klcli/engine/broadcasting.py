"""Scalars and per-replica values in the shapes that broadcast fastest against small arrays."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def scalar(value: float, dtype: np.dtype) -> np.ndarray:
    """Return one number as a read-only array of shape (): with a small array, it takes half the time of a float."""
    array = np.asarray(value, dtype)
    array.flags.writeable = False
    return array


def per_replica(values: float | np.ndarray, array: np.ndarray) -> np.ndarray:
    """Return one number per replica, `(m,)`, as `(m, 1, h)` in the precision of `array (m, d, h)`.

    A single number becomes `()`. With `(m, 1, 1)`, NumPy loops over single rows, which is slower for a narrow layer.
    """
    if not isinstance(values, np.ndarray) or values.ndim == 0:
        return scalar(float(values), array.dtype)
    return np.repeat(values.astype(array.dtype), array.shape[-1]).reshape(-1, 1, array.shape[-1])
