"""Values per member, shaped to meet the arrays of the members."""

import numpy as np

from klcli.engine.numbers import number


def for_members(values: float | np.ndarray, array: np.ndarray) -> np.ndarray:
    """Return one number per member, `(m,)`, as `(m, 1, h)` in the precision of `array (m, d, h)`.

    A plain number, for all members, stays one. `(m, 1, 1)` would broadcast to the same result, but NumPy
    would then work through the h columns of a single member at a time: twice as slow for a narrow layer.
    """
    if not isinstance(values, np.ndarray) or values.ndim == 0:
        return number(float(values), array.dtype)
    values = values.astype(array.dtype)
    return np.repeat(values, array.shape[-1]).reshape(-1, 1, array.shape[-1])
