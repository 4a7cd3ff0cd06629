"""The oracle of every gradient test: central differences in float64."""

from collections.abc import Callable

import numpy as np
import pytest

NumericalGradient = Callable[[Callable[[], float], np.ndarray], np.ndarray]


def central_differences(objective: Callable[[], float], array: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Differentiate `objective()` by every element of `array`, which it reads and which is restored."""
    assert array.dtype == np.float64, "float32 would leave three digits of the difference"
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + h
        above = objective()
        array[index] = value - h
        below = objective()
        array[index] = value
        gradient[index] = (above - below) / (2 * h)
    return gradient


@pytest.fixture
def numerical_gradient() -> NumericalGradient:
    return central_differences
