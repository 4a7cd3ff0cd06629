"""The update of SGD by hand, for one network and for members with rates of their own."""

import numpy as np
import pytest

from klcli.engine.optimizers import SGD


def test_sgd_by_hand_moves_every_array_in_place() -> None:
    W, b = np.array([[1.0, 2.0]]), np.array([3.0])
    arrays = W, b
    SGD().update(arrays, [np.array([[10.0, -20.0]]), np.array([0.5])], 0.1)
    assert W.tolist() == [[0.0, 4.0]]
    assert b.tolist() == [2.95]


def test_sgd_gives_every_member_its_own_rate() -> None:
    W, b = np.zeros((2, 1, 2)), np.zeros((2, 1, 1))
    SGD().update([W, b], [np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), np.ones((2, 1, 1))], np.array([0.5, 2.0]))
    assert W.tolist() == [[[-0.5, -1.0]], [[-6.0, -8.0]]]
    assert b.tolist() == [[[-0.5]], [[-2.0]]]


def test_a_rate_of_zero_stands_still() -> None:
    W = np.array([[1.0, 2.0]])
    SGD().update([W], [np.array([[5.0, 5.0]])], 0.0)
    assert W.tolist() == [[1.0, 2.0]]


def test_sgd_keeps_float32() -> None:
    W = np.ones((2, 1, 1), np.float32)
    SGD().update([W], [np.ones((2, 1, 1), np.float32)], np.array([0.25, 0.5]))
    assert W.dtype == np.float32
    assert W.ravel().tolist() == [0.75, 0.5]


def test_a_gradient_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        SGD().update([np.zeros(1)], [np.zeros(1), np.zeros(1)], 0.1)
