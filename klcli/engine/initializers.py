"""Initial weights `W (d_in, d_out)` in float64, cast later: a seed gives the same network in both precisions."""

import math

import numpy as np


def normal(d_in: int, d_out: int, *, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Draw from `N(0, sigma^2)`."""
    return sigma * rng.standard_normal((d_in, d_out))


def he(d_in: int, d_out: int, *, second_moment: float = 0.5, rng: np.random.Generator) -> np.ndarray:
    """`N(0, 1 / (c d_in))`: preserves the variance from layer to layer (He et al. 2015, arXiv 1502.01852).

    c is the `second_moment` of the activation, its mean square for inputs from N(0, 1): 1/2 for ReLU.
    """
    return normal(d_in, d_out, sigma=math.sqrt(1 / (second_moment * d_in)), rng=rng)


def xavier(d_in: int, d_out: int, *, rng: np.random.Generator) -> np.ndarray:
    """`N(0, 1 / d_in)`: preserves the variance through linear layers (Glorot and Bengio 2010)."""
    return normal(d_in, d_out, sigma=math.sqrt(1 / d_in), rng=rng)
