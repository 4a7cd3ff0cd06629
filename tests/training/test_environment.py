"""The configuration of NumPy during a training, and its reset afterwards."""

import warnings

import numpy as np

from klcli.training.environment import arithmetic


def test_a_diverging_replica_causes_no_warning() -> None:
    before = np.geterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with arithmetic():
            assert np.isnan(np.float32([3e38]) * np.float32([10]) - np.float32(np.inf)).all()
            assert (np.float32([1]) / np.float32([0]) == np.inf).all()
    assert np.geterr() == before
