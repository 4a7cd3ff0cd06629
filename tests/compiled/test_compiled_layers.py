"""Compiled layers and losses against those of NumPy, on random shapes, executed and repeated from their records."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klcli import compiled
from klcli.compiled.team import Team
from klcli.engine import layers, losses
from klcli.engine.gradient_check import check_gradients
from klcli.engine.network import Network, build, stack
from klcli.engine.optimizers import SGD, Adam, WeightAverage
from klcli.training.environment import arithmetic


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def both(layer: Any, X: np.ndarray, G: np.ndarray, **how: bool) -> list[list[np.ndarray]]:
    """Outputs, derivatives and running averages of a layer in NumPy, and compiled."""
    found = []
    with Team(X.dtype) as team:
        plain = Network({"linear1": layer})
        for network in (plain, team.accelerated(plain.copy())):
            Y, [backward] = network.forward(X, **how)
            dX, gradients = backward(G)
            averages = [getattr(network.layers["linear1"], name, None) for name in ("running_mean", "running_variance")]
            arrays = [Y, dX, *map(np.asarray, gradients.values()), network.scores(X), *averages]
            found.append([array for array in arrays if array is not None])
    return found


SIZES = st.integers(1, 40)


@settings(max_examples=60)
@given(
    m=st.sampled_from([None, 1, 3]), n=st.integers(2, 40), k=SIZES, d=SIZES, shared=st.booleans(), first=st.booleans()
)
def test_linear(m: int | None, n: int, k: int, d: int, shared: bool, first: bool) -> None:
    replicas = () if m is None else (m,)
    X = drawn(1, *(() if shared else replicas), n, k)
    vector = (d,) if m is None else (m, 1, d)
    layer = layers.Linear(drawn(2, *replicas, k, d), drawn(3, *vector), is_first=first)
    plain, own = both(layer, X, drawn(4, *replicas, n, d))
    assert len(plain) == len(own)
    for one, other in zip(plain, own, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-12)


@settings(max_examples=60)
@given(
    m=st.sampled_from([None, 1, 3]), n=st.integers(2, 40), d=SIZES, tracked=st.booleans(), begun=st.booleans(),
    eps=st.sampled_from([1e-8, 1e-2]), momentum=st.sampled_from([0.0, 0.9, 1.0]),
)  # fmt: skip
def test_batch_norm(m: int | None, n: int, d: int, tracked: bool, begun: bool, eps: float, momentum: float) -> None:
    replicas, vector = (() if m is None else (m,)), ((d,) if m is None else (m, 1, d))
    layer = layers.BatchNorm(drawn(2, *vector), drawn(3, *vector), momentum, eps)
    if begun:
        layer.running_mean, layer.running_variance = drawn(5, *vector), drawn(6, *vector) ** 2
    plain, own = both(layer, drawn(1, *replicas, n, d), drawn(4, *replicas, n, d), track=tracked)
    for one, other in zip(plain, own, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu_and_dropout_keep_what_is_not_a_number(dtype: type) -> None:
    X = drawn(1, 3, 8, 5).astype(dtype)
    X[0, 0], X[1, 1, 2], X[2, 0] = np.nan, np.inf, 0
    G = drawn(2, 3, 8, 5).astype(dtype)
    for layer in (layers.ReLU(), layers.SiLU(), layers.Dropout(0.4, seed=1, index=2, step=7)):
        with arithmetic():
            plain, own = both(layer, X, G)
        for one, other in zip(own, plain, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 6e-7), (np.float64, 1e-15)])
@pytest.mark.parametrize("slope", [1.0, 1.7])
def test_silu_is_right_for_every_size_of_its_input(dtype: type, tolerance: float, slope: float) -> None:
    """Absolute errors relative to 1 + |x|, against the formula in float64; 5001 is no multiple of a block."""
    X = np.concatenate([np.linspace(-150, 150, 3001), np.linspace(-2, 2, 2000)]).astype(dtype)
    plain, own = both(layers.SiLU(slope), X[None], np.ones_like(X)[None])
    x = X.astype(np.float64)
    sigmoid = 1 / (1 + np.exp(-slope * x))
    expected = x * sigmoid, sigmoid * (1 + slope * x * (1 - sigmoid))
    for found in (plain, own):
        for one, other in zip(found, (*expected, expected[0]), strict=True):
            assert (np.abs(one[0] - other) / (1 + np.abs(x))).max() < tolerance


@pytest.mark.parametrize("m", [None, 1, 4])
@pytest.mark.parametrize("how", [{}, {"smoothing": 0.1}, {"share": 0.3, "smoothing": 0.2, "other": True}])
def test_cross_entropy(m: int | None, how: dict[str, Any]) -> None:
    S, y = 30 * drawn(1, *(() if m is None else (m,)), 17, 10), np.arange(17) % 10
    how = how | ({"other": y[::-1]} if "other" in how else {})
    expected, expected_backward = losses.cross_entropy(S, y, **how)
    with Team(np.float64) as team:
        loss, backward = team.cross_entropy(S, y, **how)
        np.testing.assert_allclose(loss, expected, rtol=1e-12)
        np.testing.assert_allclose(backward(), expected_backward(), rtol=1e-10, atol=1e-14)


NETWORKS = {
    "plain": {}, "BN": {"batch_norm": True}, "BN after": {"batch_norm": True, "bn_position": "after"},
    "SiLU": {"batch_norm": True, "activation": layers.SiLU(1.7)}, "SiLU without BN": {"activation": layers.SiLU()},
    "dropout": {"batch_norm": True, "dropout": 0.3}, "whitened": {"whitening": drawn(9, 12, 6)},
}  # fmt: skip


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("how", NETWORKS.values(), ids=NETWORKS)
def test_the_gradients_of_the_code_that_trains_are_numerical_ones(how: dict[str, Any], replicas: int) -> None:
    made = [
        build(12, (7, 5), 10, initializer=lambda a, b, i=i: 0.5 * drawn(i, a, b), dtype=np.float64, **how)  # type: ignore[misc]
        for i in range(replicas)
    ]
    network, lam = stack(made), np.linspace(0.01, 0.1, replicas)
    X, y = drawn(50, 9, 12), np.arange(9) % 10
    with compiled.open_team(np.float64) as team:
        assert team is not compiled.NUMPY
        own, loss = team.accelerated(network), team.cross_entropy
        checks = check_gradients(network, X, y, lam, gradients=own.gradients(X, y, lam, loss=loss)[1])
        assert all(check.passes(1e-8, 1e-6) for check in checks)
        broken = team.accelerated(network.copy())
        broken.layers["linear2"].W *= 1.01  # type: ignore[union-attr]
        wrong = check_gradients(network, X, y, lam, gradients=broken.gradients(X, y, lam, loss=loss)[1])
        assert not all(check.passes(1e-8, 1e-6) for check in wrong)


def test_what_is_repeated_is_what_would_be_computed() -> None:
    """Labels, rates, random masks and shares change between repetitions."""
    rng = np.random.default_rng(0)
    made = build(
        30, (20, 10), 10, initializer=lambda a, b: 0.3 * drawn(1, a, b), batch_norm=True, dropout=0.2, dtype=np.float64
    )
    lam, eta, share = np.array([0.01]), np.zeros(1), np.ones(())
    y = np.zeros(16, np.intp)
    states = []
    for is_repeated in (False, True):
        rng = np.random.default_rng(0)
        with compiled.open_team(np.float64) as team:
            network = team.accelerated(stack([made.copy()]))
            sgd, adam, average = SGD(0.9), Adam(0.9), WeightAverage(0.9)
            loss = partial(team.cross_entropy, smoothing=0.1, other=y[::-1], share=share)
            parameters = network.parameters()

            def update(X: np.ndarray) -> np.ndarray:
                value, gradients = network.gradients(X, y, None, loss=loss, track=True)  # noqa: B023
                for optimizer in (sgd, adam):  # noqa: B023
                    team.update(optimizer, parameters, gradients, eta, lam)  # noqa: B023
                team.average(average, network.state())  # noqa: B023
                return value.copy()

            compute = team.repeated(update) if is_repeated else update
            buffers = [np.empty((16, 30)) for _ in range(2)]
            for step in range(9):
                X = buffers[step % 2]
                X[:], y[:] = rng.standard_normal((16, 30)), rng.integers(0, 10, 16)
                eta[:], share[...] = 0.01 * (1 + step), rng.random()
                for layer in network.layers.values():
                    if isinstance(layer, layers.Dropout):
                        layer.step = step
                compute(X)
            states.append({**network.state(), **{f"average.{k}": v for k, v in average.state.items()}})
    for name, array in states[0].items():
        np.testing.assert_array_equal(states[1][name], array, err_msg=name)
