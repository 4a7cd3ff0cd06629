"""The exponential average against its sum written out."""

import numpy as np
import pytest

from klcli.engine import weight_average
from klcli.engine.weight_average import WeightAverage
from klcli.engine.weight_gradient import laid_out


@pytest.mark.parametrize("block", [1, 7, 10**6])
@pytest.mark.parametrize("lay", [laid_out, np.copy], ids=["by units", "by rows"])
def test_it_is_the_mean_with_weights_that_fall_by_decay(block, lay, monkeypatch):
    monkeypatch.setattr(weight_average, "BLOCK", block)
    rng, decay = np.random.default_rng(0), 0.8
    seen = [
        {"linear1.W": lay(rng.standard_normal((3, 5, 4))), "linear1.b": rng.standard_normal((3, 1, 4))}
        for _ in range(6)
    ]
    average = WeightAverage(decay)
    for state in seen:
        average.update(state)
    weights = decay ** np.arange(5, -1, -1)
    for name in seen[0]:
        expected = sum(w * state[name] for w, state in zip(weights, seen, strict=True)) / weights.sum()
        np.testing.assert_allclose(average.state[name], expected, rtol=1e-12)


def test_the_first_update_is_taken_as_it_is_and_copied() -> None:
    W = np.ones((2, 2), np.float32)
    average = WeightAverage(0.999)
    average.update({"W": W})
    W += 1
    assert average.state["W"].tolist() == [[1, 1], [1, 1]]
    average.update({"W": W})
    assert average.state["W"].dtype == np.float32
    np.testing.assert_allclose(average.state["W"], (0.999 * 1 + 2) / 1.999, rtol=1e-6)
