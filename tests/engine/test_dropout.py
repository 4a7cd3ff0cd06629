"""Dropout: its mask, the same mask in the backward pass and for replicas, and the identity in evaluation."""

from dataclasses import replace

import numpy as np
import pytest

from klcli.engine.layers import Dropout

X = np.random.default_rng(0).standard_normal((40, 30))


def test_evaluation_is_the_identity() -> None:
    np.testing.assert_array_equal(Dropout(0.5, seed=1, index=1).evaluate(X), X)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_units_are_dropped_with_probability_p_and_the_others_are_scaled_up(p: float) -> None:
    mask = Dropout(p, seed=1, index=1).mask(1000, 500, np.dtype(np.float64))
    share = (mask == 0).mean()
    assert share == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / mask.size))
    np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - p)], rtol=1e-3)
    # Neither rows nor columns are treated alike: their shares scatter as independent draws do.
    for axis, n in ((0, 1000), (1, 500)):
        assert (mask == 0).mean(axis=axis).std() == pytest.approx(np.sqrt(p * (1 - p) / n), rel=0.2)


def test_the_mask_is_a_function_of_seed_layer_and_step() -> None:
    layer = Dropout(0.5, seed=1, index=1, step=7)
    same = layer.forward(X)[0]
    np.testing.assert_array_equal(layer.forward(X)[0], same)
    for other in ({"seed": 2}, {"index": 2}, {"step": 8}):
        assert (replace(layer, **other).forward(X)[0] != same).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_backward_pass_has_the_same_mask(dtype: type) -> None:
    Y, backward = Dropout(0.3, seed=1, index=1).forward(X.astype(dtype))
    G, gradients = backward(np.ones_like(Y))
    assert gradients == {}
    assert (Y.dtype, G.dtype) == (dtype, dtype)
    np.testing.assert_allclose(Y, X.astype(dtype) * G, rtol=1e-6)


def test_replicas_share_the_mask() -> None:
    layer = Dropout(0.3, seed=1, index=1)
    replicas = np.stack([X, 2 * X])
    Y, _ = layer.forward(replicas)
    np.testing.assert_array_equal(Y[1], layer.forward(2 * X)[0])


def test_the_largest_probability_leaves_numbers() -> None:
    assert np.isfinite(Dropout(1 - 1e-9, seed=1, index=1).forward(X)[0]).all()
