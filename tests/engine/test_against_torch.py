"""The engine against PyTorch in float64: loss, every gradient, and a hundred updates of every optimizer."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from klcli.engine.initializers import he
from klcli.engine.network import Network, build
from klcli.engine.optimizers import SGD, Adam

torch: Any = pytest.importorskip("torch", reason="PyTorch is the oracle of this module")

D_IN, HIDDEN, CLASSES, N, LAM, ETA = 12, (9, 7), 5, 20, 0.01, 0.05


@pytest.fixture(params=["before", "after"])
def network(request: pytest.FixtureRequest) -> Network:
    rng = np.random.default_rng(0)
    net = build(
        D_IN, HIDDEN, CLASSES,
        initializer=partial(he, rng=rng), batch_norm=True, bn_position=request.param, dtype=np.float64,
    )  # fmt: skip
    for parameter in net.parameters().values():
        parameter += 0.1 * rng.standard_normal(parameter.shape)
    return net


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def in_torch(network: Network) -> tuple[Any, dict[str, Any]]:
    """The same network as a torch module, and its parameters under our names."""
    modules: list[Any] = []
    parameters: dict[str, Any] = {}
    for name, layer in network.layers.items():
        if name.startswith("linear"):
            d_in, d_out = layer.parameters()["W"].shape
            module = torch.nn.Linear(d_in, d_out, dtype=torch.float64)
            parameters |= {f"{name}.W": module.weight, f"{name}.b": module.bias}
        elif name.startswith("batch_norm"):
            module = torch.nn.BatchNorm1d(len(layer.parameters()["gamma"]), eps=1e-8, dtype=torch.float64)
            parameters |= {f"{name}.gamma": module.weight, f"{name}.beta": module.bias}
        else:
            module = torch.nn.ReLU()
        modules.append(module)
    with torch.no_grad():
        for name, array in network.parameters().items():
            parameters[name].copy_(torch.tensor(array.T if name.endswith(".W") else array))
    return torch.nn.Sequential(*modules), parameters


def torch_loss_and_cost(module: Any, parameters: dict[str, Any], X: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    loss = torch.nn.functional.cross_entropy(module(torch.tensor(X)), torch.tensor(y))
    weights = [value for name, value in parameters.items() if name.endswith(".W")]
    return loss, loss + LAM * sum((weight**2).sum() for weight in weights)


def ours(name: str, tensor: Any) -> np.ndarray:
    array = tensor.detach().numpy()
    return array.T if name.endswith(".W") else array


def test_loss_cost_and_every_gradient_are_those_of_torch(network: Network) -> None:
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((N, D_IN)), rng.integers(0, CLASSES, N)
    module, parameters = in_torch(network)
    expected_loss, expected_cost = torch_loss_and_cost(module, parameters, X, y)
    expected_cost.backward()
    loss, gradients = network.gradients(X, y, LAM)
    assert float(loss) == pytest.approx(expected_loss.item(), rel=1e-12)
    assert float(loss + network.penalty(LAM)) == pytest.approx(expected_cost.item(), rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, ours(name, parameters[name].grad), rtol=1e-9, atol=1e-12, err_msg=name)


DECAY = 0.3


def weights_and_others(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The parameter groups in which only W decays."""
    weights = [value for name, value in parameters.items() if name.endswith(".W")]
    others = [value for name, value in parameters.items() if not name.endswith(".W")]
    return [{"params": weights, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]


OPTIMIZERS = {
    "sgd": (SGD, lambda parameters: torch.optim.SGD(parameters.values(), lr=ETA), ETA),
    "nesterov": (
        lambda: SGD(momentum=0.9),
        lambda parameters: torch.optim.SGD(parameters.values(), lr=ETA, momentum=0.9, nesterov=True),
        ETA,
    ),
    "adam": (Adam, lambda parameters: torch.optim.Adam(parameters.values(), lr=1e-3), 1e-3),
    "adam with decay": (
        lambda: Adam(weight_decay=DECAY),
        lambda parameters: torch.optim.AdamW(weights_and_others(parameters), lr=1e-3),
        1e-3,
    ),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_hundred_updates_end_where_those_of_torch_end(network: Network, kind: str) -> None:
    rng = np.random.default_rng(2)
    module, parameters = in_torch(network)
    make, make_torch, eta = OPTIMIZERS[kind]
    optimizer, torch_optimizer = make(), make_torch(parameters)
    start = {name: array.copy() for name, array in network.parameters().items()}
    for _ in range(100):
        X, y = rng.standard_normal((N, D_IN)), rng.integers(0, CLASSES, N)
        torch_optimizer.zero_grad()
        expected_loss, expected_cost = torch_loss_and_cost(module, parameters, X, y)
        expected_cost.backward()
        torch_optimizer.step()
        loss, gradients = network.factored_gradients(X, y, LAM, track=True)
        optimizer.update(network.parameters().values(), [gradients[name] for name in network.parameters()], eta)
        assert float(loss) == pytest.approx(expected_loss.item(), abs=1e-9)
    before_bn = [f"{layer}.b" for layer, after in pairwise(network.layers) if after.startswith("batch_norm")]
    for name, array in network.parameters().items():
        if name in before_bn:  # its gradient is 0, which Adam divides by itself: what is left is rounding
            continue
        np.testing.assert_allclose(array, ours(name, parameters[name]), rtol=0, atol=1e-9, err_msg=name)
        assert np.abs(array - start[name]).max() > 1e-3
    assert all(np.isfinite(array).all() for array in network.state().values())


def test_evaluation_is_that_of_torch_with_the_same_running_averages(network: Network) -> None:
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((N, D_IN)), rng.integers(0, CLASSES, N)
    for _ in range(3):
        network.gradients(X + rng.standard_normal((N, D_IN)), y, LAM, track=True)
    module, _ = in_torch(network)
    state = network.state()
    for layer, name in zip(module, network.layers, strict=True):
        if name.startswith("batch_norm"):
            layer.running_mean.copy_(torch.tensor(state[f"{name}.running_mean"]))
            layer.running_var.copy_(torch.tensor(state[f"{name}.running_variance"]))
    module.eval()
    expected = module(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(network.scores(X), expected, rtol=1e-10, atol=1e-12)
