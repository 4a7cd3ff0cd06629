"""Products in halves are those in one piece."""

import numpy as np
import pytest

from klcli.engine import products
from klcli.engine.products import product

SHAPES = [
    pytest.param((6, 40), (40, 5), id="inner side longest"),
    pytest.param((40, 6), (6, 5), id="rows longest"),
    pytest.param((5, 6), (6, 41), id="columns longest"),
    pytest.param((7, 7), (7, 7), id="square"),
    pytest.param((1, 40), (40, 1), id="a single number"),
    pytest.param((1, 6, 40), (1, 40, 5), id="one member"),
    pytest.param((3, 6, 40), (3, 40, 5), id="three members"),
    pytest.param((6, 40), (3, 40, 5), id="members of the right side alone"),
    pytest.param((3, 6, 40), (40, 5), id="members of the left side alone"),
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


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_the_second_core_changes_no_bit(left, right, monkeypatch, use_cores):
    rng = np.random.default_rng(1)
    A, B = (rng.standard_normal(shape, dtype=np.float32) for shape in (left, right))
    monkeypatch.setattr(products, "WORTH_HALVING", 1)
    results = []
    for cores in (1, 2):
        use_cores(cores)
        results.append(product(A, B))
    np.testing.assert_array_equal(*results)
