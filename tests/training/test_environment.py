"""The configuration of NumPy during a training, and its reset afterwards."""

import warnings

import numpy as np

from klcli.training.environment import arithmetic


def test_a_diverging_replica_causes_no_warning() -> None:
    before = np.getbufsize(), np.geterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with arithmetic():
            assert np.isnan(np.float32([3e38]) * np.float32([10]) - np.float32(np.inf)).all()
            assert (np.float32([1]) / np.float32([0]) == np.inf).all()
            assert np.getbufsize() < before[0]
    assert (np.getbufsize(), np.geterr()) == before


def test_the_buffer_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    rows, pixels = rng.standard_normal((40, 5000), np.float32)[:, 1000:4000], rng.integers(0, 256, (40, 3000), np.uint8)

    def worked_on() -> list[np.ndarray]:
        W, X = rows.copy(), np.empty((40, 6000), np.float32)[:, :3000]
        W *= np.float32(0.99)
        W -= rows
        X[...] = pixels
        X -= rows[0]
        X *= rows[1]
        return [W, X, X.sum(axis=0), X.mean(axis=1), np.square(X, dtype=np.float64).sum()]

    expected = worked_on()
    with arithmetic():
        for one, other in zip(worked_on(), expected, strict=True):
            np.testing.assert_array_equal(one, other)
