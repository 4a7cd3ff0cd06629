"""Network: names, shapes, replicas, state, and the gradient of the whole cost."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from klcli.engine.initializers import he
from klcli.engine.layers import BatchNorm, Linear, SiLU
from klcli.engine.network import Network, build, stack

NumericalGradient = Callable[[Callable[[], float], np.ndarray], np.ndarray]

D_IN, CLASSES, N = 5, 3, 8

KINDS: dict[str, dict[str, Any]] = {
    "1 layer": {"hidden": []},
    "2 layers": {"hidden": [4]},
    "3 layers": {"hidden": [4, 3]},
    "2 layers BN": {"hidden": [4], "batch_norm": True},
    "3 layers BN": {"hidden": [4, 3], "batch_norm": True},
    "3 layers BN after": {"hidden": [4, 3], "batch_norm": True, "bn_position": "after"},
    "4 layers BN": {"hidden": [4, 6, 3], "batch_norm": True},
    "3 layers SiLU": {"hidden": [4, 3], "activation": SiLU(1.7)},
    "3 layers SiLU BN": {"hidden": [4, 3], "activation": SiLU(), "batch_norm": True},
    "3 layers SiLU BN after": {"hidden": [4, 3], "activation": SiLU(), "batch_norm": True, "bn_position": "after"},
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def network(kind: str = "3 layers BN", seed: int = 0) -> Network:
    """A network of this kind in float64 with no parameter left at its special starting value."""
    rng = np.random.default_rng(seed)
    net = build(D_IN, n_classes=CLASSES, initializer=partial(he, rng=rng), dtype=np.float64, **KINDS[kind])
    for parameter in net.parameters().values():
        parameter += 0.3 * rng.standard_normal(parameter.shape)
    return net


def batch(seed: int = 0, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(100 + seed)
    return rng.standard_normal((n, D_IN)), rng.integers(0, CLASSES, n)


def reference_cost(kind: str, theta: dict[str, np.ndarray], X: np.ndarray, y: np.ndarray, lam: float) -> float:
    """J of design and textbook, written out once more in float64: no layer, no closure, no replicas."""
    settings = KINDS[kind]

    def normalised(H: np.ndarray, index: int) -> np.ndarray:
        v = np.einsum("nd,nd->d", H - H.mean(0), H - H.mean(0)) / len(H)
        H_hat = (H - H.mean(0)) / np.sqrt(v + 1e-8)
        return theta[f"batch_norm{index}.gamma"] * H_hat + theta[f"batch_norm{index}.beta"]

    H = X
    depth = len(settings["hidden"]) + 1
    for index in range(1, depth):
        H = np.einsum("ni,ij->nj", H, theta[f"linear{index}.W"]) + theta[f"linear{index}.b"]
        if settings.get("batch_norm") and settings.get("bn_position", "before") == "before":
            H = normalised(H, index)
        slope = getattr(settings.get("activation"), "slope", math.inf)
        H = np.where(H > 0, H, 0) if slope == math.inf else H / (1 + np.exp(-slope * H))
        if settings.get("bn_position") == "after":
            H = normalised(H, index)
    S = np.einsum("ni,ij->nj", H, theta[f"linear{depth}.W"]) + theta[f"linear{depth}.b"]
    P = np.exp(S) / np.exp(S).sum(axis=1, keepdims=True)
    loss = -np.mean([np.log(P[row, label]) for row, label in enumerate(y)])
    return float(loss + lam * sum((array**2).sum() for name, array in theta.items() if name.endswith(".W")))


def test_names_and_order_of_layers_and_parameters_with_bn_before_the_activation() -> None:
    net = network("3 layers BN")
    assert list(net.layers) == [
        "linear1", "batch_norm1", "relu1", "linear2", "batch_norm2", "relu2", "linear3",
    ]  # fmt: skip
    assert list(net.parameters()) == [
        "linear1.W", "linear1.b", "batch_norm1.gamma", "batch_norm1.beta",
        "linear2.W", "linear2.b", "batch_norm2.gamma", "batch_norm2.beta",
        "linear3.W", "linear3.b",
    ]  # fmt: skip


def test_names_and_order_of_layers_with_bn_after_the_activation_and_without_bn() -> None:
    assert list(network("3 layers BN after").layers) == [
        "linear1", "relu1", "batch_norm1", "linear2", "relu2", "batch_norm2", "linear3",
    ]  # fmt: skip
    assert list(network("3 layers").layers) == ["linear1", "relu1", "linear2", "relu2", "linear3"]
    assert list(network("1 layer").layers) == ["linear1"]


@EVERY_KIND
def test_k_counts_the_linear_layers_and_widths_chain(kind: str) -> None:
    linear = [layer for layer in network(kind).layers.values() if isinstance(layer, Linear)]
    assert len(linear) == int(kind[0])
    widths = [D_IN, *KINDS[kind]["hidden"], CLASSES]
    assert [layer.W.shape for layer in linear] == list(pairwise(widths))
    assert [layer.is_first for layer in linear] == [True] + [False] * (len(linear) - 1)


def test_settings_of_batch_normalisation_reach_every_layer() -> None:
    net = build(
        D_IN, [4, 3], CLASSES,
        initializer=partial(he, rng=np.random.default_rng(0)), batch_norm=True, bn_momentum=0.8, bn_eps=1e-3,
    )  # fmt: skip
    settings = [(bn.momentum, bn.eps) for bn in net.layers.values() if isinstance(bn, BatchNorm)]
    assert settings == [(0.8, 1e-3)] * 2


@pytest.mark.parametrize("lam", [0.0, 0.7])
@EVERY_KIND
def test_the_cost_is_the_textbook_formula(kind: str, lam: float) -> None:
    net, (X, y) = network(kind), batch()
    expected = reference_cost(kind, net.parameters(), X, y, lam)
    loss, _ = net.gradients(X, y, lam)
    assert float(loss + net.penalty(lam)) == pytest.approx(expected, rel=1e-12)
    assert float(loss) == pytest.approx(reference_cost(kind, net.parameters(), X, y, 0.0), rel=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.7])
@EVERY_KIND
def test_gradients_are_the_derivatives_of_the_textbook_cost(
    kind: str, lam: float, numerical_gradient: NumericalGradient
) -> None:
    net, (X, y) = network(kind), batch()
    _, gradients = net.gradients(X, y, lam)
    theta = net.parameters()
    assert list(gradients) == list(theta)
    for name, array in theta.items():
        numerical = numerical_gradient(lambda: reference_cost(kind, theta, X, y, lam), array)
        np.testing.assert_allclose(gradients[name], numerical, rtol=1e-6, atol=2e-8, err_msg=name)


def test_a_bias_in_front_of_bn_has_no_gradient_and_one_behind_has() -> None:
    X, y = batch()
    before, after = (
        network(kind).gradients(X, y, 0.1)[1]["linear1.b"] for kind in ("3 layers BN", "3 layers BN after")
    )
    np.testing.assert_allclose(before, 0, atol=1e-15)
    assert np.abs(after).max() > 1e-3


def test_only_a_tracked_gradient_moves_the_running_averages() -> None:
    net, (X, y) = network(), batch()
    net.gradients(X, y, 0.1)
    net.forward(X)
    net.scores(X)
    assert all(bn.running_mean is None for bn in net.layers.values() if isinstance(bn, BatchNorm))
    net.gradients(X, y, 0.1, track=True)
    first = net.layers["batch_norm1"]
    theta = net.parameters()
    assert isinstance(first, BatchNorm)
    assert first.running_mean is not None
    np.testing.assert_allclose(first.running_mean, (X @ theta["linear1.W"] + theta["linear1.b"]).mean(0), rtol=1e-12)


@EVERY_KIND
def test_the_score_of_an_image_in_evaluation_does_not_depend_on_its_neighbours(kind: str) -> None:
    net, (X, y) = network(kind), batch()
    net.gradients(X, y, 0.0, track=True)
    alone = np.concatenate([net.scores(row[None]) for row in X])
    np.testing.assert_allclose(net.scores(X), alone, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(net.scores(X[::-1]), alone[::-1], rtol=1e-12, atol=1e-13)


# --- replicas


@EVERY_KIND
def test_a_replica_of_a_stack_is_the_same_network_alone(kind: str) -> None:
    alone = [network(kind, seed) for seed in range(3)]
    lam = np.array([0.0, 0.1, 0.7])
    stacked, (X, y) = stack(alone), batch()
    loss, gradients = stacked.gradients(X, y, lam, track=True)
    penalty, scores = stacked.penalty(lam), stacked.scores(X)
    assert loss.shape == penalty.shape == (3,)
    for index, net in enumerate(alone):
        own_loss, own_gradients = net.gradients(X, y, float(lam[index]), track=True)
        np.testing.assert_allclose(loss[index], own_loss, rtol=1e-12)
        np.testing.assert_allclose(penalty[index], net.penalty(float(lam[index])), rtol=1e-12)
        np.testing.assert_allclose(scores[index], net.scores(X), rtol=1e-12, atol=1e-12)
        for name, gradient in own_gradients.items():
            got = gradients[name][index].reshape(gradient.shape)
            np.testing.assert_allclose(got, gradient, rtol=1e-12, atol=1e-12, err_msg=name)


@EVERY_KIND
def test_replicas_come_out_of_a_stack_as_they_went_in(kind: str) -> None:
    alone = [network(kind, seed) for seed in range(3)]
    for seed, net in enumerate(alone):
        net.gradients(*batch(seed), 0.0, track=True)
    stacked = stack(alone)
    for index, net in enumerate(alone):
        state, expected = stacked.replica(index).state(), net.state()
        assert list(state) == list(expected)
        for name, array in expected.items():
            assert state[name].shape == array.shape
            np.testing.assert_array_equal(state[name], array)
    first = stacked.replica(0).layers["linear1"]
    assert isinstance(first, Linear)
    assert first.is_first


def test_a_stack_copies_and_a_replica_shares() -> None:
    alone = [network(seed=0), network(seed=1)]
    stacked = stack(alone)
    replica = stacked.replica(1)
    for name, array in stacked.parameters().items():
        assert not np.shares_memory(array, alone[1].parameters()[name])
        assert np.shares_memory(array, replica.parameters()[name])


def test_replicas_do_not_touch_each_other() -> None:
    stacked, (X, y) = stack([network(seed=0), network(seed=1)]), batch()
    before = stacked.gradients(X, y, np.array([0.1, 0.2]))
    for array in stacked.parameters().values():
        array[1] = np.nan
    after = stacked.gradients(X, y, np.array([0.1, 0.2]))
    assert before[0][0] == after[0][0]
    assert np.isnan(after[0][1])
    for name in before[1]:
        np.testing.assert_array_equal(before[1][name][0], after[1][name][0])


# --- state


@EVERY_KIND
def test_state_carries_a_network_over(kind: str) -> None:
    source, target, (X, y) = network(kind, 0), network(kind, 1), batch()
    source.gradients(X, y, 0.0, track=True)
    assert np.abs(source.scores(X) - target.scores(X)).max() > 0.1
    target.load_state({name: array.copy() for name, array in source.state().items()})
    np.testing.assert_array_equal(target.scores(X), source.scores(X))


def test_state_names_parameters_and_running_averages() -> None:
    net, (X, y) = network("2 layers BN"), batch()
    names = {
        "linear1.W", "linear1.b", "linear2.W", "linear2.b", "batch_norm1.gamma", "batch_norm1.beta",
    }  # fmt: skip
    assert set(net.state()) == names
    net.gradients(X, y, 0.0, track=True)
    assert set(net.state()) == names | {"batch_norm1.running_mean", "batch_norm1.running_variance"}


def test_loading_takes_the_precision_of_the_network_and_forgets_old_averages() -> None:
    source, (X, y) = network(), batch()
    single = build(D_IN, [4, 3], CLASSES, initializer=partial(he, rng=np.random.default_rng(5)), batch_norm=True)
    single.gradients(X.astype(np.float32), y, 0.0, track=True)
    single.load_state(source.state())
    assert all(array.dtype == np.float32 for array in single.state().values())
    np.testing.assert_array_equal(single.parameters()["linear2.W"], source.parameters()["linear2.W"].astype("f4"))
    assert set(single.state()) == set(source.state()), "the source has no running averages, so its copy has none"


def test_loading_refuses_a_missing_array_and_another_shape_by_name() -> None:
    net = network()
    state = net.state()
    with pytest.raises(KeyError, match=r"linear2\.b"):
        net.load_state({name: array for name, array in state.items() if name != "linear2.b"})
    with pytest.raises(ValueError, match=r"linear1\.W has shape \(2, 2\), the network needs \(5, 4\)"):
        net.load_state(state | {"linear1.W": np.zeros((2, 2))})
