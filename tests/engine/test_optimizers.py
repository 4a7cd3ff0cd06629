"""Updates by hand, for one network and for replicas with rates of their own, and the exponential average."""

import numpy as np
import pytest
from thinning import mostly_slow

from klcli.engine.layers import Linear
from klcli.engine.network import Network
from klcli.engine.optimizers import SGD, Adam, WeightAverage


def test_sgd_by_hand_moves_every_array_in_place() -> None:
    W, b = np.array([[1.0, 2.0]]), np.array([3.0])
    SGD().update({"W": W, "b": b}, {"W": np.array([[10.0, -20.0]]), "b": np.array([0.5])}, 0.1)
    assert W.tolist() == [[0.0, 4.0]]
    assert b.tolist() == [2.95]


def test_sgd_gives_every_replica_its_own_rate() -> None:
    W, b = np.zeros((2, 1, 2)), np.zeros((2, 1, 1))
    gradients = {"W": np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), "b": np.ones((2, 1, 1))}
    SGD().update({"W": W, "b": b}, gradients, np.array([0.5, 2.0]))
    assert W.tolist() == [[[-0.5, -1.0]], [[-6.0, -8.0]]]
    assert b.tolist() == [[[-0.5]], [[-2.0]]]


def test_a_rate_of_zero_stands_still() -> None:
    W = np.array([[1.0, 2.0]])
    SGD().update({"W": W}, {"W": np.array([[5.0, 5.0]])}, 0.0)
    assert W.tolist() == [[1.0, 2.0]]


def test_sgd_keeps_float32() -> None:
    W = np.ones((2, 1, 1), np.float32)
    SGD().update({"W": W}, {"W": np.ones((2, 1, 1), np.float32)}, np.array([0.25, 0.5]))
    assert W.dtype == np.float32
    assert W.ravel().tolist() == [0.75, 0.5]


# --- with a memory


def test_nesterovs_momentum_by_hand() -> None:
    theta, sgd = np.array([10.0]), SGD(momentum=0.5)
    seen = []
    for g in (4.0, 2.0):
        sgd.update({"theta": theta}, {"theta": np.array([g])}, 0.1)
        seen.append(float(theta[0]))
    # velocity 4, then 0.5 * 4 + 2 = 4; steps 0.1 * (4 + 2) and 0.1 * (2 + 2)
    assert seen == pytest.approx([9.4, 9.0], rel=1e-14)


def test_the_first_step_of_adam_is_as_long_as_eta_whatever_the_gradient() -> None:
    theta = np.zeros(3)
    Adam().update({"theta": theta}, {"theta": np.array([1e-3, -5.0, 0.0])}, 0.01)
    assert theta.tolist() == pytest.approx([-0.01, 0.01, 0.0], rel=1e-4)


def adam_by_hand(W, gradients, eta, decay):
    """The equations of the paper, in float64."""
    m, v = np.zeros_like(W), np.zeros_like(W)
    for t, g in enumerate(gradients(), start=1):
        g = g(W)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        W = W - eta * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + decay * W)
    return W


def nesterov_by_hand(W, gradients, eta, decay):
    velocity = np.zeros_like(W)
    for g in gradients():
        g = g(W)
        velocity = 0.9 * velocity + g
        W = W - eta * (g + 0.9 * velocity + decay * W)
    return W


def sgd_by_hand(W, gradients, eta, decay):
    for g in gradients():
        W = W - eta * (g(W) + decay * W)
    return W


@pytest.mark.parametrize(
    ("kind", "by_hand"), [("adam", adam_by_hand), ("nesterov", nesterov_by_hand), ("sgd", sgd_by_hand)]
)
@pytest.mark.parametrize("decay", [0.0, 0.4])
@pytest.mark.parametrize("shared", mostly_slow([True, False], 2))
@pytest.mark.parametrize("shape", [(3, 6, 5, 4), (2, 20, 2100, 300)], ids=["small", "in two halves and blocks"])
def test_replicas_move_as_each_would_alone(kind, by_hand, decay, shared, shape, open_team):
    m, n, d, h = shape
    rng = np.random.default_rng(0)
    start = rng.standard_normal((m, d, h))
    X = [rng.standard_normal((n, d) if shared else (m, n, d)) for _ in range(4)]
    G = [rng.standard_normal((m, n, h)) for _ in range(4)]
    eta, lam = np.array([0.1, 0.02, 0.3])[:m], np.array([0.0, 0.1, 0.5])[:m]
    W = start.copy()
    with open_team(np.float64, helper=True) as team:
        optimizer = Adam(weight_decay=decay) if kind == "adam" else SGD(0.9 if kind == "nesterov" else 0.0, decay)
        network = team.accelerated(Network({"linear1": Linear(W, np.zeros((m, 1, h)))}))
        for x, g in zip(X, G, strict=True):
            _, [backward] = network.forward(x)
            team.update(optimizer, {"linear1.W": W}, {"linear1.W": backward(g)[1]["W"]}, eta, lam)
    for i in range(m):

        def gradients(i=i):
            for x, g in zip(X, G, strict=True):
                yield lambda W, x=x, g=g: (x if shared else x[i]).T @ g[i] + 2 * lam[i] * W

        np.testing.assert_allclose(W[i], by_hand(start[i], gradients, eta[i], decay), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("optimizer", [Adam(weight_decay=0.1), SGD(momentum=0.9, weight_decay=0.1)])
def test_vectors_do_not_decay_and_float32_stays(optimizer) -> None:
    b = np.ones((2, 1, 3), np.float32)
    optimizer.update({"b": b}, {"b": np.zeros((2, 1, 3), np.float32)}, np.array([0.5, 1.0]))
    assert b.dtype == np.float32
    assert (b == 1).all()
    assert {array.dtype for arrays in optimizer.memory.values() for array in arrays.values()} == {np.dtype(np.float32)}


# --- the average of the weights


@pytest.mark.parametrize("width", [4, 900], ids=["small", "in two halves and blocks"])
def test_the_average_is_the_mean_with_weights_that_fall_by_decay(width, open_team):
    rng, decay = np.random.default_rng(0), 0.8
    seen = [
        {"linear1.W": rng.standard_normal((3, 100, width)), "linear1.b": rng.standard_normal((3, 1, width))}
        for _ in range(6)
    ]
    with open_team(np.float64, helper=True) as team:
        average = WeightAverage(decay)
        for state in seen:
            team.average(average, state)
    weights = decay ** np.arange(5, -1, -1)
    for name in seen[0]:
        expected = sum(w * state[name] for w, state in zip(weights, seen, strict=True)) / weights.sum()
        np.testing.assert_allclose(average.state[name], expected, rtol=1e-11, atol=1e-13)


def test_the_first_update_of_an_average_copies_the_arrays() -> None:
    W = np.ones((2, 2), np.float32)
    average = WeightAverage(0.999)
    average.update({"W": W})
    W += 1
    assert average.state["W"].tolist() == [[1, 1], [1, 1]]
    average.update({"W": W})
    assert average.state["W"].dtype == np.float32
    np.testing.assert_allclose(average.state["W"], (0.999 * 1 + 2) / 1.999, rtol=1e-6)


@pytest.mark.parametrize("kind", ["adam", "nesterov", "sgd"])
def test_a_dense_gradient_of_a_matrix_gets_the_l2_term_and_the_decay_too(kind, open_team):
    rng = np.random.default_rng(0)
    W, G = rng.standard_normal((2, 5, 4)), rng.standard_normal((2, 5, 4))
    plain, (eta, lam) = W.copy(), (np.array([0.1, 0.02]), np.array([0.3, 0.1]))
    with open_team(np.float64) as team:
        optimizer = Adam(weight_decay=0.4) if kind == "adam" else SGD(0.9 if kind == "nesterov" else 0.0, 0.4)
        team.update(optimizer, {"linear1.W": W}, {"linear1.W": G}, eta, lam)
    by_hand = {"adam": adam_by_hand, "nesterov": nesterov_by_hand, "sgd": sgd_by_hand}[kind]
    for i in range(2):
        one = by_hand(plain[i], lambda i=i: [lambda W: G[i] + 2 * lam[i] * W], eta[i], 0.4)
        np.testing.assert_allclose(W[i], one, rtol=1e-10)
