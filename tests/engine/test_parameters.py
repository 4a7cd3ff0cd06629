"""Parameters: a step of the joined vectors equals a step of each, and conversions between names and order are exact."""

import numpy as np
import pytest

from klcli.engine.network import Network, build, stack
from klcli.engine.parameters import Parameters


@pytest.fixture
def stacked() -> Network:
    rng = np.random.default_rng(1)

    def draw(d_in: int, d_out: int) -> np.ndarray:
        return rng.standard_normal((d_in, d_out))

    return stack([build(7, (5, 3), 2, initializer=draw, batch_norm=True, dtype="float64") for _ in range(4)])


def test_a_change_of_the_joined_vectors_is_a_change_of_the_network(stacked: Network) -> None:
    before = {name: array.copy() for name, array in stacked.parameters().items()}
    parameters = Parameters(stacked)
    *weights, vectors = parameters.arrays
    assert [W.shape for W in weights] == [(4, 7, 5), (4, 5, 3), (4, 3, 2)]
    assert vectors.shape == (4, 1, 3 * 5 + 3 * 3 + 2)
    for name, array in stacked.parameters().items():
        np.testing.assert_array_equal(array, before[name])
    for W in weights:
        W += 1
    vectors += 1
    for name, array in stacked.parameters().items():
        np.testing.assert_array_equal(array, before[name] + 1)


def test_gradients_meet_their_parameters(stacked: Network) -> None:
    parameters, rng = Parameters(stacked), np.random.default_rng(2)
    gradients = {name: rng.standard_normal(array.shape) for name, array in stacked.parameters().items()}
    expected = {name: array - 0.5 * gradients[name] for name, array in stacked.parameters().items()}
    for array, gradient in zip(parameters.arrays, parameters.in_order(gradients), strict=True):
        array -= 0.5 * gradient
    for name, array in stacked.parameters().items():
        np.testing.assert_array_equal(array, expected[name])


def test_the_memory_of_an_optimizer_goes_by_name_and_comes_back(stacked: Network) -> None:
    parameters, rng = Parameters(stacked), np.random.default_rng(3)
    memory = [rng.standard_normal(array.shape) for array in parameters.arrays]
    by_name = parameters.by_name(memory)
    assert by_name.keys() == stacked.parameters().keys()
    for name, array in stacked.parameters().items():
        assert by_name[name].shape == array.shape
    again = parameters.like({name: values.astype("float32") for name, values in by_name.items()})
    for array, values, parameter in zip(memory, again, parameters.arrays, strict=True):
        np.testing.assert_array_equal(array.astype("float32"), values)
        assert (values.dtype, values.strides) == (np.float64, parameter.strides)
