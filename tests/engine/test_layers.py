"""Every layer: forward against hand numbers and float64 formulas, backward against central differences."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from klcli.engine.layers import BatchNorm, Layer, Linear, ReLU, SiLU
from klcli.engine.network import Network

NumericalGradient = Callable[[Callable[[], float], np.ndarray], np.ndarray]

REPLICAS = [pytest.param((), id="one network"), pytest.param((3,), id="three replicas")]
N, D_IN, D_OUT = 6, 4, 3


def multiplied_out(backward, G: np.ndarray):
    """The results of a backward pass, with the gradients of the weights as arrays."""
    dX, gradients = backward(G)
    return dX, {name: np.asarray(gradient) for name, gradient in gradients.items()}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def linear(replicas: tuple[int, ...], *, is_first: bool = False) -> Linear:
    W = rng(1).standard_normal((*replicas, D_IN, D_OUT))
    b = rng(2).standard_normal((*replicas, 1, D_OUT) if replicas else D_OUT)
    return Linear(W, b, is_first=is_first)


def batch_norm(replicas: tuple[int, ...], *, tracked: bool = False) -> BatchNorm:
    shape = (*replicas, 1, D_IN) if replicas else (D_IN,)
    layer = BatchNorm(rng(1).uniform(0.5, 2, shape), rng(2).standard_normal(shape), momentum=0.9, eps=1e-3)
    if tracked:
        layer.running_mean = rng(3).standard_normal(shape)
        layer.running_variance = rng(4).uniform(0.1, 3, shape)
    return layer


def trained(layer: Layer) -> dict[str, np.ndarray]:
    """The parameters of a single layer by name."""
    return {name.removeprefix("one."): array for name, array in Network({"one": layer}).parameters().items()}


def away_from_zero(X: np.ndarray) -> np.ndarray:
    """No element so small that a central difference would step over the kink of the ReLU."""
    return np.sign(X) * (np.abs(X) + 0.01)


def assert_backward_is_the_derivative(layer: Layer, X: np.ndarray, numerical_gradient: NumericalGradient) -> None:
    """Differentiate J = sum(C * Y) for a random C, so that dJ/dY = C."""
    Y, backward = layer.forward(X)
    C = rng(9).standard_normal(Y.shape)
    dX, gradients = multiplied_out(backward, C.copy())

    def objective() -> float:
        return float(np.sum(C * layer.forward(X)[0]))

    assert set(gradients) == set(trained(layer))
    for name, parameter in trained(layer).items():
        assert gradients[name].shape == parameter.shape
        np.testing.assert_allclose(
            gradients[name], numerical_gradient(objective, parameter), rtol=1e-7, atol=1e-8, err_msg=name
        )
    numerical = numerical_gradient(objective, X)
    if dX is not None and dX.ndim > X.ndim:  # one X shared by all replicas: each returns its own dX
        dX = dX.sum(axis=0)
    np.testing.assert_allclose(dX, numerical, rtol=1e-7, atol=1e-8, err_msg="X")


# --- Linear


def test_linear_forward_by_hand() -> None:
    layer = Linear(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([10.0, 20.0]))
    Y, _ = layer.forward(np.array([[1.0, 0.0, -1.0], [2.0, 1.0, 0.0]]))
    assert Y.tolist() == [[1 - 5 + 10, 2 - 6 + 20], [2 + 3 + 10, 4 + 4 + 20]]


def test_linear_backward_by_hand() -> None:
    layer = Linear(np.array([[2.0], [3.0]]), np.array([0.0]))
    _, backward = layer.forward(np.array([[1.0, 4.0], [5.0, 6.0]]))
    dX, gradients = multiplied_out(backward, np.array([[1.0], [10.0]]))
    assert dX is not None
    assert dX.tolist() == [[2, 3], [20, 30]]
    assert gradients["W"].tolist() == [[1 + 50], [4 + 60]]
    assert gradients["b"].tolist() == [11]


@pytest.mark.parametrize("replicas", REPLICAS)
def test_linear_forward_is_the_float64_formula(replicas: tuple[int, ...]) -> None:
    layer = linear(replicas)
    X = rng().standard_normal((*replicas, N, D_IN))
    expected = np.einsum("...ni,...ij->...nj", X, layer.W) + layer.b
    np.testing.assert_allclose(layer.forward(X)[0], expected, rtol=1e-13, atol=1e-14)


def test_linear_gives_every_replica_its_own_answer_to_one_shared_batch() -> None:
    layer = linear((3,))
    X = rng().standard_normal((N, D_IN))
    Y, _ = layer.forward(X)
    assert Y.shape == (3, N, D_OUT)
    np.testing.assert_allclose(Y, np.einsum("ni,mij->mnj", X, layer.W) + layer.b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("replicas", REPLICAS)
def test_linear_backward_is_the_derivative(replicas: tuple[int, ...], numerical_gradient: NumericalGradient) -> None:
    X = rng().standard_normal((*replicas, N, D_IN))
    assert_backward_is_the_derivative(linear(replicas), X, numerical_gradient)


def test_linear_backward_is_the_derivative_where_replicas_share_the_batch(
    numerical_gradient: NumericalGradient,
) -> None:
    assert_backward_is_the_derivative(linear((3,)), rng().standard_normal((N, D_IN)), numerical_gradient)


@pytest.mark.parametrize("replicas", REPLICAS)
def test_the_first_layer_gives_the_same_parameter_gradients_and_no_dx(replicas: tuple[int, ...]) -> None:
    X, G = rng().standard_normal((N, D_IN)), rng(5).standard_normal((*replicas, N, D_OUT))
    dX_first, first = linear(replicas, is_first=True).forward(X)[1](G.copy())
    dX_later, later = linear(replicas).forward(X)[1](G.copy())
    assert dX_first is None
    assert dX_later is not None
    for name in ("W", "b"):
        np.testing.assert_array_equal(first[name], later[name])


# --- BatchNorm


def test_batch_norm_by_hand_with_the_biased_variance_and_eps_inside_the_root() -> None:
    # Mean 2, biased variance ((-1)^2 + 1^2) / 2 = 1, so X_hat = (X - 2) / sqrt(1 + 3) = -0.5, 0.5.
    layer = BatchNorm(np.array([2.0]), np.array([10.0]), momentum=0.9, eps=3.0)
    Y, _ = layer.forward(np.array([[1.0], [3.0]]))
    assert Y.tolist() == [[9.0], [11.0]]


@pytest.mark.parametrize("replicas", REPLICAS)
def test_batch_norm_forward_is_the_float64_formula(replicas: tuple[int, ...]) -> None:
    layer = batch_norm(replicas)
    X = 3 * rng().standard_normal((*replicas, N, D_IN)) + 1
    mu = np.einsum("...nd->...d", X)[..., None, :] / N
    v = np.einsum("...nd,...nd->...d", X - mu, X - mu)[..., None, :] / N
    expected = layer.gamma * (X - mu) / np.sqrt(v + layer.eps) + layer.beta
    np.testing.assert_allclose(layer.forward(X)[0], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("tracked", [False, True], ids=["never tracked", "tracked"])
@pytest.mark.parametrize("replicas", REPLICAS)
def test_batch_norm_backward_is_the_derivative(
    replicas: tuple[int, ...], tracked: bool, numerical_gradient: NumericalGradient
) -> None:
    X = 3 * rng().standard_normal((*replicas, N, D_IN)) + 1
    layer = batch_norm(replicas, tracked=tracked)
    assert_backward_is_the_derivative(layer, X, numerical_gradient)


def test_running_averages_begin_with_the_first_tracked_batch_and_move_by_one_minus_alpha() -> None:
    layer = BatchNorm(np.ones(1), np.zeros(1), momentum=0.75, eps=1e-8)
    layer.forward(np.array([[1.0], [3.0]]), track=True)  # mean 2, variance 1
    assert (layer.running_mean, layer.running_variance) == (np.array([2.0]), np.array([1.0]))
    layer.forward(np.array([[5.0], [9.0]]), track=True)  # mean 7, variance 4
    assert layer.running_mean == np.array([0.75 * 2 + 0.25 * 7])
    assert layer.running_variance == np.array([0.75 * 1 + 0.25 * 4])


@pytest.mark.parametrize("replicas", REPLICAS)
def test_running_averages_follow_their_definition_for_every_replica(replicas: tuple[int, ...]) -> None:
    layer = batch_norm(replicas)
    batches = [rng(seed).standard_normal((*replicas, N, D_IN)) * (seed + 1) for seed in range(4)]
    means = [X.mean(axis=-2).reshape(layer.gamma.shape) for X in batches]
    variances = [X.var(axis=-2).reshape(layer.gamma.shape) for X in batches]
    for X in batches:
        layer.forward(X, track=True)
    # Unrolled by hand: alpha^3 of the first, (1 - alpha) alpha^(3 - i) of batch i.
    weights = [0.9**3, 0.1 * 0.9**2, 0.1 * 0.9, 0.1]
    expected_mean = sum(weight * mean for weight, mean in zip(weights, means, strict=True))
    expected_variance = sum(weight * variance for weight, variance in zip(weights, variances, strict=True))
    assert layer.running_mean is not None
    assert layer.running_variance is not None
    assert layer.running_mean.shape == layer.running_variance.shape == layer.gamma.shape
    np.testing.assert_allclose(layer.running_mean, expected_mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(layer.running_variance, expected_variance, rtol=1e-12)


def test_only_a_tracked_training_forward_moves_the_running_averages() -> None:
    layer = batch_norm((), tracked=True)
    assert layer.running_mean is not None
    assert layer.running_variance is not None
    before = layer.running_mean.copy(), layer.running_variance.copy()
    X = rng(7).standard_normal((N, D_IN))
    layer.forward(X)[1](X)
    layer.evaluate(X)
    np.testing.assert_array_equal(layer.running_mean, before[0])
    np.testing.assert_array_equal(layer.running_variance, before[1])

    untouched = batch_norm(())
    untouched.forward(X)
    untouched.evaluate(X)
    assert untouched.running_mean is None
    assert untouched.running_variance is None


def test_batch_norm_in_evaluation_uses_the_running_averages() -> None:
    layer = BatchNorm(np.array([2.0]), np.array([1.0]), momentum=0.9, eps=1.0)
    layer.running_mean, layer.running_variance = np.array([5.0]), np.array([3.0])
    Y = layer.evaluate(np.array([[5.0], [7.0], [-1.0]]))
    assert Y.tolist() == [[1.0], [2 * 2 / 2 + 1], [2 * -6 / 2 + 1]]


@pytest.mark.parametrize("replicas", REPLICAS)
def test_a_sample_depends_on_its_neighbours_in_training_and_not_in_evaluation(replicas: tuple[int, ...]) -> None:
    layer = batch_norm(replicas, tracked=True)
    X = rng().standard_normal((*replicas, N, D_IN))
    other = X.copy()
    other[..., 1:, :] += 5
    in_evaluation = [layer.evaluate(batch)[..., 0, :] for batch in (X, other, X[..., :1, :])]
    np.testing.assert_array_equal(in_evaluation[0], in_evaluation[1])
    np.testing.assert_array_equal(in_evaluation[0], in_evaluation[2])
    in_training = [layer.forward(batch)[0][..., 0, :] for batch in (X, other)]
    assert np.abs(in_training[0] - in_training[1]).min() > 1e-3


def test_batch_norm_keeps_a_variance_that_a_large_mean_would_drown() -> None:
    # E[x^2] - E[x]^2 loses all digits here; the centred sum of squares does not.
    X = 1e7 + np.array([[-1.0], [1.0]])
    Y, _ = BatchNorm(np.ones(1), np.zeros(1), momentum=0.9, eps=1e-8).forward(X)
    np.testing.assert_allclose(Y, [[-1], [1]], rtol=1e-7)


# --- ReLU


def test_relu_by_hand_with_a_derivative_of_zero_at_the_kink() -> None:
    Y, backward = ReLU().forward(np.array([[-2.0, 0.0, 3.0]]))
    dX, gradients = backward(np.array([[10.0, 10.0, 10.0]]))
    assert Y.tolist() == [[0, 0, 3]]
    assert dX is not None
    assert dX.tolist() == [[0, 0, 10]]
    assert gradients == {}


@pytest.mark.parametrize("replicas", REPLICAS)
def test_relu_backward_is_the_derivative(replicas: tuple[int, ...], numerical_gradient: NumericalGradient) -> None:
    X = away_from_zero(rng().standard_normal((*replicas, N, D_IN)))
    assert_backward_is_the_derivative(ReLU(), X, numerical_gradient)


# --- SiLU


@pytest.mark.parametrize("slope", [1.0, 1.7])
def test_silu_is_the_float64_formula_wherever_an_exponential_would_overflow(slope: float) -> None:
    X = np.array([[-1e4, -800.0, -2.0, 0.0, 1.0, 800.0, 1e4]])
    expected = [x / (1 + math.exp(min(-slope * x, 700))) for x in X[0]]
    np.testing.assert_allclose(SiLU(slope).forward(X)[0][0], expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("slope", [1.0, 1.7])
@pytest.mark.parametrize("replicas", REPLICAS)
def test_silu_backward_is_the_derivative(
    replicas: tuple[int, ...], slope: float, numerical_gradient: NumericalGradient
) -> None:
    assert_backward_is_the_derivative(SiLU(slope), rng().standard_normal((*replicas, N, D_IN)), numerical_gradient)


def test_silu_with_the_slope_of_gelu_is_nearly_gelu() -> None:
    X = np.linspace(-6, 6, 1001)
    gelu = [x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in X]
    assert np.abs(SiLU(1.702).forward(X)[0] - gelu).max() < 0.0204


@pytest.mark.parametrize("activation", [ReLU(), SiLU(), SiLU(1.7)])
def test_the_second_moment_is_that_of_normal_inputs(activation: ReLU | SiLU) -> None:
    Y, _ = activation.forward(rng().standard_normal(1_000_000))
    assert activation.second_moment == pytest.approx(np.mean(Y**2), rel=0.005)  # 3 standard errors


# --- all of them

EVERY_LAYER = [
    pytest.param(lambda: linear(()), id="linear"),
    pytest.param(lambda: batch_norm(()), id="batch_norm"),
    pytest.param(ReLU, id="relu"),
    pytest.param(SiLU, id="silu"),
]


@pytest.mark.parametrize("make", EVERY_LAYER)
def test_a_layer_can_run_again_before_its_backward_pass(make: Callable[[], Layer]) -> None:
    layer = make()
    X, other = rng().standard_normal((2, N, D_IN))
    Y, backward = layer.forward(X)
    G = rng(5).standard_normal(Y.shape)
    expected_dX, expected = make().forward(X)[1](G.copy())
    layer.forward(other)
    dX, gradients = backward(G.copy())
    np.testing.assert_array_equal(dX, expected_dX)
    for name, gradient in expected.items():
        np.testing.assert_array_equal(gradients[name], gradient)


@pytest.mark.parametrize("make", EVERY_LAYER)
def test_training_and_evaluation_leave_their_input_alone(make: Callable[[], Layer]) -> None:
    X = rng().standard_normal((N, D_IN))
    before = X.copy()
    make().forward(X)
    make().evaluate(X)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("make", EVERY_LAYER)
def test_float32_stays_float32_in_all_passes(make: Callable[[], Layer]) -> None:
    layer = make()
    for name, array in trained(layer).items():
        setattr(layer, name, array.astype(np.float32))
    X = rng().standard_normal((N, D_IN)).astype(np.float32)
    Y, backward = layer.forward(X)
    dX, gradients = multiplied_out(backward, np.ones_like(Y))
    assert dX is not None
    assert {array.dtype for array in (Y, layer.evaluate(X), dX, *gradients.values())} == {np.dtype(np.float32)}
