"""Products and steps in two halves equal those in one piece."""

import numpy as np
import pytest

from klcli import second_core
from klcli.engine import products
from klcli.engine.products import descend, product
from klcli.engine.weight_gradient import in_fortran_order

SHAPES = [
    pytest.param((6, 40), (40, 5), id="inner side longest"),
    pytest.param((40, 6), (6, 5), id="rows longest"),
    pytest.param((5, 6), (6, 41), id="columns longest"),
    pytest.param((7, 7), (7, 7), id="square"),
    pytest.param((1, 40), (40, 1), id="a single number"),
    pytest.param((1, 6, 40), (1, 40, 5), id="one replica"),
    pytest.param((3, 6, 40), (3, 40, 5), id="three replicas"),
    pytest.param((6, 40), (3, 40, 5), id="replicas of the right side alone"),
    pytest.param((3, 6, 40), (40, 5), id="replicas of the left side alone"),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("worth_halving", [1, 10**9])
def test_the_product_is_that_of_float64(left, right, dtype, worth_halving, monkeypatch):
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal(left), rng.standard_normal(right)
    monkeypatch.setattr(products, "WORTH_HALVING", worth_halving)
    Y = product(A.astype(dtype), B.astype(dtype))
    assert Y.dtype == dtype
    np.testing.assert_allclose(Y, np.einsum("...ij,...jk->...ik", A, B), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_the_second_core_changes_no_bit(left, right, monkeypatch, use_cores, pieces):
    rng = np.random.default_rng(1)
    A, B = (rng.standard_normal(shape, dtype=np.float32) for shape in (left, right))
    monkeypatch.setattr(products, "WORTH_HALVING", 1)
    results = []
    for cores in (1, 2):
        use_cores(cores)
        assert second_core.start(1_000_000) == (cores == 2)
        results.append([product(A, B), product(in_fortran_order(A), in_fortran_order(B))])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(pieces)  # done by the other process
    assert len(pieces) == 2 * (A.ndim == B.ndim)


def finish(pending):
    if pending is not None:
        pending()


@pytest.mark.parametrize("cached", [0, 10**9], ids=["by rows", "by columns"])
@pytest.mark.parametrize("keep", [0.5, np.array([[0.5], [0.25], [1.0]])], ids=["one", "of each row"])
@pytest.mark.parametrize("worth_halving", [1, 10**9])
@pytest.mark.parametrize("less", [0, 100, 10**9])
def test_a_step_is_that_of_float64(cached, keep, worth_halving, less, monkeypatch):
    rng = np.random.default_rng(2)
    W, G, X = rng.standard_normal((3, 41)), rng.standard_normal((3, 7)), rng.standard_normal((7, 41))
    expected = keep * W - np.einsum("ij,jk->ik", G, X)
    monkeypatch.setattr(products, "WORTH_HALVING", worth_halving)
    monkeypatch.setattr(products, "CACHED", cached)
    monkeypatch.setattr(products, "LESS", less)
    finish(descend(G, X, keep, W))
    np.testing.assert_allclose(W, expected, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("cached", [0, 10**9], ids=["by rows", "by columns"])
def test_a_step_on_the_second_core_changes_no_bit(cached, monkeypatch, use_cores, pieces):
    rng = np.random.default_rng(3)
    start, G, X = (rng.standard_normal(shape, dtype=np.float32) for shape in ((30, 41), (30, 7), (7, 41)))
    keep = np.linspace(0, 1, 30, dtype=np.float32)[:, None]
    monkeypatch.setattr(products, "WORTH_HALVING", 1)
    monkeypatch.setattr(products, "CACHED", cached)
    results = []
    for cores in (1, 2):
        use_cores(cores)
        second_core.start(1_000_000)
        W = second_core.empty(start.shape, start.dtype)
        W[...] = start
        finish(descend(in_fortran_order(G), X, keep, W))
        results.append(W)
    assert pieces == [True]  # done by the other process
    np.testing.assert_array_equal(*results)
    assert not np.array_equal(results[0], start)


@pytest.mark.slow
@pytest.mark.parametrize("cached", [0, 10**9], ids=["by rows", "by columns"])
def test_steps_follow_each_other_before_the_last_is_completed(cached, monkeypatch, use_cores, pieces):
    monkeypatch.setattr(products, "WORTH_HALVING", 1000)
    monkeypatch.setattr(products, "CACHED", cached)
    monkeypatch.setattr(products, "LESS", 20)
    use_cores(2)
    second_core.start(1_000_000)
    rng, pending, expected, steps = np.random.default_rng(4), None, [], []
    for p, r in ((30, 41), (25, 31), (3, 4), (28, 20), (2, 2)):
        G, X = rng.standard_normal((p, 7)), rng.standard_normal((7, r))
        W = second_core.empty((p, r), "f8")
        W[...] = rng.standard_normal((p, r))
        expected.append(0.5 * W - np.einsum("ij,jk->ik", G, X))
        pending = descend(G, X, 0.5, W, pending)
        steps.append(W)
    finish(pending)
    assert pieces == [True] * 3
    for W, right in zip(steps, expected, strict=True):
        np.testing.assert_allclose(W, right, rtol=1e-12)
