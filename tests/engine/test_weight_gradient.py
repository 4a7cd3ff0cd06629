"""WeightGradient: a step in place equals a step with the dense gradient, in any memory order."""

import numpy as np
import pytest

from klcli.engine.weight_gradient import WeightGradient

N, D, H = 7, 5, 4


def arrays(replicas: int | None, shared: bool, dtype: type, layout: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, G and W of a layer; in C order, or with the rows of all replicas interleaved."""
    rng = np.random.default_rng(0)
    if replicas is None:
        return tuple(rng.standard_normal(shape).astype(dtype) for shape in ((N, D), (N, H), (D, H)))
    X = rng.standard_normal((N, D) if shared else (replicas, N, D)).astype(dtype)
    G, W = (rng.standard_normal((replicas, *shape)).astype(dtype) for shape in ((N, H), (D, H)))
    if layout == "rows":
        G, W = (np.ascontiguousarray(array.transpose(1, 0, 2)).transpose(1, 0, 2) for array in (G, W))
        X = X if shared else np.ascontiguousarray(X.transpose(1, 0, 2)).transpose(1, 0, 2)
    return X, G, W


def by_hand(X: np.ndarray, G: np.ndarray, W: np.ndarray, lam: float | np.ndarray) -> np.ndarray:
    """The formula in float64, replica by replica."""
    X, G, W = (np.asarray(array, np.float64) for array in (X, G, W))
    if W.ndim == 2:
        return X.T @ G + 2 * lam * W
    lams = np.broadcast_to(lam, len(W))
    return np.stack([(X if X.ndim == 2 else X[i]).T @ G[i] + 2 * lams[i] * W[i] for i in range(len(W))])


REPLICAS = [
    pytest.param(None, False, "replicas", id="one network"),
    *(
        pytest.param(m, shared, layout, id=f"{m} replicas, {'shared' if shared else 'own'} X, by {layout}")
        for m in (1, 3)
        for shared in (True, False)
        for layout in ("replicas", "rows")
    ),
]


@pytest.mark.parametrize(("replicas", "shared", "layout"), REPLICAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_array_is_the_formula(replicas, shared, layout, dtype):
    X, G, W = arrays(replicas, shared, dtype, layout)
    gradient = np.asarray(WeightGradient(X, G, W, 0.3))
    assert gradient.dtype == dtype
    np.testing.assert_allclose(gradient, by_hand(X, G, W, 0.3), rtol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize(("replicas", "shared", "layout"), REPLICAS)
@pytest.mark.parametrize("given_per_replica", ["nothing", "lambda", "eta", "both"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_in_place_is_the_formula(replicas, shared, layout, given_per_replica, dtype):
    X, G, W = arrays(replicas, shared, dtype, layout)
    lam = np.linspace(0.0, 0.5, replicas) if replicas and given_per_replica in ("lambda", "both") else 0.3
    eta = np.linspace(0.1, 0.4, replicas) if replicas and given_per_replica in ("eta", "both") else 0.2
    step = eta[:, None, None] if isinstance(eta, np.ndarray) else eta
    expected = W.astype(np.float64) - step * by_hand(X, G, W, lam)
    before = G.copy()
    assert WeightGradient(X, G, W, lam).descend(eta) is None  # nothing is left to be done
    np.testing.assert_allclose(W, expected, rtol=2e-5 if dtype == np.float32 else 1e-12, atol=1e-6)
    assert W.dtype == dtype
    np.testing.assert_array_equal(G, before)


def test_a_view_of_a_larger_array_is_updated_in_place():
    X, G, W = arrays(None, False, np.float64, "replicas")
    larger = np.zeros((D, 2 * H))
    view = larger[:, ::2]
    view[...] = W
    expected = W - 0.2 * by_hand(X, G, W, 0.3)
    assert WeightGradient(X, G, view, 0.3).descend(0.2) is None
    np.testing.assert_allclose(view, expected, rtol=1e-12)
    assert not larger[:, 1::2].any()
