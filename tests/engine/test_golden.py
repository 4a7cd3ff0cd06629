"""The engine against PyTorch in float64, by the reference values that tests/golden/make.py has stored."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klcli.compiled import Engine
from klcli.engine.losses import Loss
from klcli.engine.network import Network, build, stack
from klcli.engine.optimizers import SGD, Adam
from klcli.engine.schedules import cosine

FOLDER = Path(__file__).parents[1] / "golden"
NETWORKS = sorted(path.stem for path in FOLDER.glob("*layer*.npz"))
OPTIMIZERS = ("sgd", "nesterov", "adam")
Arrays = dict[str, np.ndarray]
OpenTeam = Callable[..., AbstractContextManager[Engine]]


def read(name: str) -> Arrays:
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def with_prefix(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays `prefix.layer.field`, as `layer.field`."""
    return {
        name.removeprefix(f"{prefix}."): array
        for name, array in arrays.items()
        if name.startswith(f"{prefix}.") and name.count(".") == 2
    }


def network(golden: Arrays, state: Arrays, **settings: Any) -> Network:
    case = json.loads(str(golden["settings"]))
    made = build(
        golden["X"].shape[-1], case["hidden"], golden["scores"].shape[-1],
        initializer=lambda d_in, d_out: np.zeros((d_in, d_out)),
        batch_norm=case["bn_position"] is not None, bn_position=case["bn_position"] or "before",
        dtype=np.float64, **settings,
    )  # fmt: skip
    made.load_state(state)
    return made


def loss_of(case: dict[str, Any], team: Engine) -> Loss:
    loss = team.cross_entropy
    return partial(loss, smoothing=case["smoothing"]) if case["smoothing"] else loss


def optimizer_of(kind: str, decay: float) -> SGD | Adam:
    if kind == "adam":
        return Adam(weight_decay=decay)
    return SGD(momentum=0.9 if kind == "nesterov" else 0.0, weight_decay=decay)


def test_the_networks_are_there() -> None:
    assert len(NETWORKS) == 8
    assert {len(json.loads(str(read(name)["settings"]))["hidden"]) + 1 for name in NETWORKS} == {1, 3, 9}


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_loss_cost_and_every_gradient_are_those_of_torch(name: str, open_team: OpenTeam) -> None:
    golden = read(name)
    case, X, y = json.loads(str(golden["settings"])), golden["X"][0], golden["y"][0]
    with open_team(np.float64) as team:
        net = team.accelerated(network(golden, with_prefix(golden, "initial")))
        np.testing.assert_allclose(net.forward(X)[0], golden["scores"], rtol=1e-9, atol=1e-12)
        loss, gradients = net.gradients(X, y, case["lam"], loss=loss_of(case, team))
        assert float(loss) == pytest.approx(float(golden["loss"]), rel=1e-12)
        assert float(loss + net.penalty(case["lam"])) == pytest.approx(float(golden["cost"]), rel=1e-12)
        expected = with_prefix(golden, "gradient")
        assert set(gradients) == set(expected)
        for parameter, gradient in gradients.items():
            np.testing.assert_allclose(gradient, expected[parameter], rtol=1e-9, atol=1e-12, err_msg=parameter)


@pytest.mark.parametrize("in_stack", [False, True], ids=["alone", "in a stack"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_fifty_updates_end_where_those_of_torch_end(name: str, kind: str, in_stack: bool, open_team: OpenTeam) -> None:
    golden = read(name)
    case = json.loads(str(golden["settings"]))
    net, lam, eta = network(golden, with_prefix(golden, "initial")), case["lam"], case["etas"][kind]
    replicas, lams, etas = [net], np.array([lam]), np.array([eta])
    if in_stack:  # with a neighbour that has other parameters, another lambda and another rate
        other = network(golden, {key: 0.9 * array + 0.1 for key, array in net.state().items()})
        replicas, lams, etas = [other, net], np.array([2 * lam, lam]), np.array([eta / 2, eta])
    losses, y = [], np.empty_like(golden["y"][0])
    buffers = [np.empty_like(golden["X"][0]) for _ in range(2)]
    with open_team(np.float64) as team:
        optimizer = optimizer_of(kind, case["weight_decay"])
        trained = team.accelerated(stack(replicas))

        def update(X: np.ndarray) -> np.ndarray:
            loss, gradients = trained.gradients(X, y, None, loss=loss_of(case, team), track=True)
            team.update(optimizer, trained.parameters(), gradients, etas, lams)
            return loss

        repeated = team.repeated(update)  # as in training: recorded, and then repeated from the records
        for number in range(len(golden[f"{kind}.losses"])):
            X = buffers[number % 2]
            X[:], y[:] = (golden[key][number % len(golden["X"])] for key in ("X", "y"))
            losses.append(float(repeated(X)[-1]))
        net = Network(trained.replica(len(replicas) - 1).layers)
    np.testing.assert_allclose(losses, golden[f"{kind}.losses"], rtol=1e-9)
    state, expected = net.state(), with_prefix(golden, kind)
    # The gradient of a bias in front of BN is rounding noise, which Adam divides by its own size.
    atol = 1e-7 if kind == "adam" and case["bn_position"] == "before" else 1e-9
    assert set(state) == set(expected)
    for key, array in state.items():
        np.testing.assert_allclose(array, expected[key], rtol=1e-9, atol=atol, err_msg=key)
    for key in (key for key in state if key.endswith(".W")):
        assert np.abs(state[key] - golden[f"initial.{key}"]).max() > 1e-3
    np.testing.assert_allclose(net.scores(golden["X"][0]), golden[f"{kind}.scores"], rtol=1e-9, atol=atol)


@pytest.mark.parametrize("name", NETWORKS)
def test_in_evaluation_a_network_with_dropout_is_that_of_torch_without(name: str) -> None:
    golden = read(name)
    net = network(golden, with_prefix(golden, "sgd"), dropout=0.4)
    np.testing.assert_allclose(net.scores(golden["X"][0]), golden["sgd.scores"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_and_its_gradient_are_those_of_torch(smoothing: float, open_team: OpenTeam) -> None:
    golden = read("formulas")
    with open_team(np.float64) as team:
        loss, backward = team.cross_entropy(golden["S"], golden["y"], smoothing=smoothing)
        assert float(loss) == pytest.approx(float(golden[f"loss.{smoothing}"]), rel=1e-13)
        np.testing.assert_allclose(backward(), golden[f"gradient.{smoothing}"], rtol=1e-10, atol=1e-15)


def test_the_cosine_is_that_of_torch() -> None:
    etas = [cosine(step, eta_min=0.01, eta_max=0.5, step_size=7) for step in range(40)]
    np.testing.assert_allclose(etas, read("formulas")["cosine"], rtol=1e-9)


@pytest.mark.slow
def test_torch_still_computes_what_is_stored() -> None:
    pytest.importorskip("torch", reason="the stored values are compared; without PyTorch they cannot be made anew")
    from tests.golden import make

    made = make.all_arrays()
    assert set(made) == {path.stem for path in FOLDER.glob("*.npz")}
    for name, arrays in made.items():
        stored = read(name)
        assert set(arrays) == set(stored)
        for key, array in arrays.items():
            if array.dtype.kind in "UiI":
                np.testing.assert_array_equal(array, stored[key])
            else:
                noisy = key.startswith("adam.") and name.endswith("bn_before")
                np.testing.assert_allclose(array, stored[key], rtol=1e-9, atol=1e-7 if noisy else 1e-9, err_msg=key)
