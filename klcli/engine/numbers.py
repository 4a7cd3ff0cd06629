"""Numbers that meet small arrays."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def number(value: float, dtype: np.dtype) -> np.ndarray:
    """Return one number as an array without axes that cannot be written to.

    NumPy takes 0.4 us for a small array and such a number, and twice that where it has to make one of a float.
    """
    array = np.asarray(value, dtype)
    array.flags.writeable = False
    return array
