"""Initial weights: their distribution within statistical bounds, and their determinism."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from klcli.engine.initializers import he, normal, xavier
from klcli.engine.layers import ReLU, SiLU
from klcli.engine.network import build

D_IN, D_OUT = 800, 250
DRAWS = D_IN * D_OUT

INITIALIZERS = [
    pytest.param(he, math.sqrt(2 / D_IN), id="he"),
    pytest.param(partial(he, second_moment=0.4), math.sqrt(2.5 / D_IN), id="he of another activation"),
    pytest.param(xavier, math.sqrt(1 / D_IN), id="xavier"),
    pytest.param(partial(normal, sigma=1e-4), 1e-4, id="normal 1e-4"),
    pytest.param(partial(normal, sigma=0.1), 0.1, id="normal 0.1"),
]


@pytest.mark.parametrize(("initializer", "std"), INITIALIZERS)
def test_weights_are_normal_with_mean_zero_and_the_promised_deviation(
    initializer: Callable[..., np.ndarray], std: float
) -> None:
    W = initializer(D_IN, D_OUT, rng=np.random.default_rng(0))
    assert W.shape == (D_IN, D_OUT)
    # Five standard errors of each estimate: a right initialiser fails once in a million seeds.
    assert abs(W.mean()) < 5 * std / math.sqrt(DRAWS)
    assert abs(W.std() - std) < 5 * std / math.sqrt(2 * DRAWS)
    for deviations in (0.5, 1, 2, 3):
        expected = math.erf(deviations / math.sqrt(2))
        share = np.mean(np.abs(W) < deviations * std)
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / DRAWS)


def test_sigma_does_not_depend_on_the_width_while_he_and_xavier_do() -> None:
    rng = np.random.default_rng(0)
    narrow, wide = 50, 5000
    assert normal(narrow, 2000, sigma=0.3, rng=rng).std() == pytest.approx(0.3, rel=0.02)
    assert normal(wide, 20, sigma=0.3, rng=rng).std() == pytest.approx(0.3, rel=0.02)
    assert he(narrow, 2000, rng=rng).std() == pytest.approx(math.sqrt(2 / 50), rel=0.02)
    assert he(wide, 20, rng=rng).std() == pytest.approx(math.sqrt(2 / 5000), rel=0.02)
    assert xavier(narrow, 2000, rng=rng).std() == pytest.approx(math.sqrt(1 / 50), rel=0.02)
    assert xavier(wide, 20, rng=rng).std() == pytest.approx(math.sqrt(1 / 5000), rel=0.02)


@pytest.mark.parametrize(("initializer", "std"), INITIALIZERS)
def test_one_seed_gives_one_network_and_another_seed_another(
    initializer: Callable[..., np.ndarray], std: float
) -> None:
    first, again, other = (initializer(20, 10, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > std / 10


def test_one_seed_gives_the_same_network_in_either_precision() -> None:
    single, double = (
        build(6, [5, 4], 3, initializer=partial(he, rng=np.random.default_rng(0)), batch_norm=True, dtype=dtype)
        for dtype in (np.float32, np.float64)
    )
    for name, array in single.parameters().items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, double.parameters()[name].astype(np.float32))


def test_biases_and_shifts_begin_at_zero_and_scales_at_one() -> None:
    network = build(6, [5, 4], 3, initializer=partial(he, rng=np.random.default_rng(0)), batch_norm=True)
    for name, array in network.parameters().items():
        kind = name.split(".")[1]
        if kind != "W":
            np.testing.assert_array_equal(array, 1 if kind == "gamma" else 0)


@pytest.mark.parametrize("activation", [ReLU(), SiLU(), SiLU(1.7)])
def test_he_preserves_the_mean_square_through_ten_layers(activation: ReLU | SiLU) -> None:
    draw = partial(he, second_moment=activation.second_moment, rng=np.random.default_rng(0))
    network = build(1000, [1000] * 10, 10, initializer=draw, activation=activation, dtype=np.float64)
    X = np.random.default_rng(1).standard_normal((20, 1000)) * math.sqrt(activation.second_moment)
    inputs = []  # of every activation
    for layer in network.layers.values():
        if layer == activation:
            inputs.append(np.mean(X**2))
        X, _ = layer.forward(X)
    assert min(inputs) > 0.5 and max(inputs) < 2  # a factor of 2 too much or too little would make 2^10 of it
