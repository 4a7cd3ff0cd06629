"""evaluate: loss, cost and accuracy against the formulas in float64, written out over the whole split at once."""

import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from klcli import compiled
from klcli.compiled import Engine
from klcli.data.dataset import Dataset, Split, split
from klcli.engine.initializers import he
from klcli.engine.network import Network, build, stack
from klcli.evaluation.metrics import ROWS, Metrics, evaluate
from klcli.settings.split_config import SplitConfig

LAMBDAS = [0.0, 0.25, 3.0]
HIDDEN = 7


@pytest.fixture(scope="module")
def whole(small_dataset: Dataset) -> Split:
    return split(small_dataset, SplitConfig(validation=100)).train


@pytest.fixture(scope="module")
def stacked() -> Network:
    """Three networks with running averages that differ from those of any batch."""
    rng = np.random.default_rng(5)
    networks = []
    for _ in LAMBDAS:
        net = build(3072, [HIDDEN], 10, initializer=partial(he, rng=rng), batch_norm=True, dtype=np.float64)
        net.gradients(rng.standard_normal((50, 3072)), rng.integers(0, 10, 50), 0.0, track=True)
        for array in net.parameters().values():
            array += 0.1 * rng.standard_normal(array.shape)
        networks.append(net)
    return stack(networks)


def of_length(whole: Split, n: int) -> Split:
    """A split of n images: those of the data set over and over."""
    index = np.arange(n) % len(whole)
    return replace(whole, rows=whole.rows[index], labels=whole.labels[index])


def by_hand(theta: dict[str, np.ndarray], part: Split, lam: float) -> Metrics:
    """All in one piece, in float64, without a line of the engine."""
    X = (part.images[part.rows].astype(np.float64) - part.mean) * part.inverse_std
    H = np.einsum("ni,ij->nj", X, theta["linear1.W"], optimize=True) + theta["linear1.b"]
    H = (H - theta["batch_norm1.running_mean"]) / np.sqrt(theta["batch_norm1.running_variance"] + 1e-8)
    H = np.maximum(theta["batch_norm1.gamma"] * H + theta["batch_norm1.beta"], 0)
    S = np.einsum("ni,ij->nj", H, theta["linear2.W"]) + theta["linear2.b"]
    P = np.exp(S) / np.exp(S).sum(axis=1, keepdims=True)
    n = len(part.rows)
    loss = -sum(np.log(P[row, part.labels[row]]) for row in range(n)) / n
    penalty = lam * ((theta["linear1.W"] ** 2).sum() + (theta["linear2.W"] ** 2).sum())
    correct = sum(int(np.argmax(S[row])) == part.labels[row] for row in range(n))
    return Metrics(float(loss), float(loss + penalty), float(correct / n))


@pytest.mark.parametrize("n", [1, 7, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 300, 5 * ROWS + 9])
def test_metrics_are_the_float64_formulas_at_every_boundary_of_the_chunks(
    whole: Split, stacked: Network, n: int, open_team: Callable[..., AbstractContextManager[Engine]]
) -> None:
    """In compiled code, the operations of a chunk are recorded, and repeated from the fourth one on."""
    part = of_length(whole, n)
    with open_team(np.float64, helper=True) as team:
        found = evaluate(team.accelerated(stacked), part, LAMBDAS, "float64")
    for index, metrics in enumerate(found):
        expected = by_hand(stacked.replica(index).state(), part, LAMBDAS[index])
        assert metrics.loss == pytest.approx(expected.loss, rel=1e-11)
        assert metrics.cost == pytest.approx(expected.cost, rel=1e-11)
        assert metrics.accuracy == expected.accuracy


def test_metrics_are_plain_numbers_that_a_database_takes(whole: Split, stacked: Network) -> None:
    for metrics in evaluate(stacked, of_length(whole, 10), LAMBDAS, "float64"):
        assert {type(metrics.loss), type(metrics.cost), type(metrics.accuracy)} == {float}


def test_float32_agrees_to_its_precision(whole: Split, stacked: Network) -> None:
    networks = []
    for index in range(len(LAMBDAS)):
        replica = stacked.replica(index)
        single = build(
            3072, [HIDDEN], 10, initializer=partial(he, rng=np.random.default_rng(0)), batch_norm=True, dtype=np.float32
        )
        single.load_state(replica.state())
        networks.append(single)
    part = of_length(whole, 1500)
    double = evaluate(stacked, part, LAMBDAS, "float64")
    for single, expected in zip(evaluate(stack(networks), part, LAMBDAS, "float32"), double, strict=True):
        assert single.loss == pytest.approx(expected.loss, rel=1e-4)
        assert single.cost == pytest.approx(expected.cost, rel=1e-4)
        assert single.accuracy == pytest.approx(expected.accuracy, abs=2 / 1500)


def test_an_evaluation_moves_nothing(whole: Split, stacked: Network) -> None:
    before = {name: array.copy() for name, array in stacked.state().items()}
    evaluate(stacked, of_length(whole, 1200), LAMBDAS, "float64")
    for name, array in stacked.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_long_split_takes_no_more_memory_than_a_short_one(whole: Split) -> None:
    """The recorded operations of a block keep all of its activations, and the next block uses them too."""
    wide = build(3072, [1500], 10, initializer=partial(he, rng=np.random.default_rng(0)), batch_norm=True)
    peaks = []
    with compiled.open_team(np.float32) as team:
        for blocks in 2, 4:
            tracemalloc.start()
            evaluate(team.accelerated(stack([wide])), of_length(whole, blocks * ROWS), [0.0])
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
