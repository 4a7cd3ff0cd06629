"""Softmax, cross-entropy and the L2 term against numbers by hand and central differences."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import softmax as scipy_softmax

from klcli.engine.losses import cross_entropy, l2_penalty, log_softmax, negative_log_likelihood, with_l2

NumericalGradient = Callable[[Callable[[], float], np.ndarray], np.ndarray]

LOG = np.log([[[1.0, 2.0, 5.0], [4.0, 4.0, 2.0]]])[0]  # scores whose probabilities can be read off
HUGE = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]])


@pytest.fixture
def scores() -> np.ndarray:
    return 3 * np.random.default_rng(0).standard_normal((2, 5, 4))


@pytest.fixture
def labels() -> np.ndarray:
    return np.array([3, 0, 2, 2, 1])


def test_softmax_by_hand() -> None:
    np.testing.assert_allclose(np.exp(log_softmax(LOG)), [[1 / 8, 2 / 8, 5 / 8], [0.4, 0.4, 0.2]], rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_rows_sum_to_one_and_huge_scores_do_not_overflow(scores: np.ndarray, dtype: type) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for S in (scores.astype(dtype), HUGE.astype(dtype)):
            P = np.exp(log_softmax(S))
            assert P.dtype == dtype
            np.testing.assert_allclose(P.sum(axis=-1), 1, rtol=4 * np.finfo(dtype).eps)
            assert (P >= 0).all()
    np.testing.assert_allclose(np.exp(log_softmax(HUGE)), [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]], rtol=1e-14)


def test_softmax_leaves_the_scores_alone(scores: np.ndarray) -> None:
    before = scores.copy()
    log_softmax(scores)
    np.testing.assert_array_equal(scores, before)


def test_cross_entropy_by_hand() -> None:
    loss, _ = cross_entropy(LOG, np.array([2, 0]))
    assert float(loss) == pytest.approx((-math.log(5 / 8) - math.log(0.4)) / 2, rel=1e-14)


def test_cross_entropy_of_equal_scores_is_log_of_the_number_of_classes() -> None:
    assert float(cross_entropy(np.full((7, 10), 123.0), np.arange(7))[0]) == pytest.approx(math.log(10), rel=1e-14)


def test_cross_entropy_gives_every_replica_its_own_float64_mean(scores: np.ndarray, labels: np.ndarray) -> None:
    loss, _ = cross_entropy(scores, labels)
    assert loss.shape == (2,)
    for replica, S in enumerate(scores):
        rows = [math.log(sum(math.exp(s) for s in row)) - row[y] for row, y in zip(S, labels, strict=True)]
        assert loss[replica] == pytest.approx(math.fsum(rows) / 5, rel=1e-13)


def test_negative_log_likelihood_is_the_cross_entropy_of_each_sample(scores: np.ndarray, labels: np.ndarray) -> None:
    values = negative_log_likelihood(scores, labels)
    assert values.shape == (2, 5)
    for replica, row in np.ndindex(2, 5):
        S = scores[replica, row]
        expected = math.log(sum(math.exp(s) for s in S)) - S[labels[row]]
        assert values[replica, row] == pytest.approx(expected, rel=1e-13)


def test_huge_scores_give_a_large_number_and_never_infinity() -> None:
    y = np.array([1, 0, 2])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, backward = cross_entropy(HUGE, y)
        G = backward()
    np.testing.assert_allclose(negative_log_likelihood(HUGE, y), [2e4, math.log(3), 2e4 + math.log(2)], rtol=1e-14)
    assert float(loss) == pytest.approx((2e4 + math.log(3) + 2e4 + math.log(2)) / 3, rel=1e-14)
    np.testing.assert_allclose(G, np.array([[1, -1, 0], [-2 / 3, 1 / 3, 1 / 3], [0.5, 0.5, -1]]) / 3, atol=1e-15)


def test_cross_entropy_backward_by_hand() -> None:
    G = cross_entropy(LOG, np.array([2, 0]))[1]()
    np.testing.assert_allclose(G, np.array([[1 / 8, 2 / 8, 5 / 8 - 1], [0.4 - 1, 0.4, 0.2]]) / 2, rtol=1e-13)


def test_cross_entropy_backward_is_the_derivative(
    scores: np.ndarray, labels: np.ndarray, numerical_gradient: NumericalGradient
) -> None:
    G = cross_entropy(scores, labels)[1]()
    numerical = numerical_gradient(lambda: float(cross_entropy(scores, labels)[0].sum()), scores)
    np.testing.assert_allclose(G, numerical, rtol=1e-6, atol=1e-9)


def test_cross_entropy_keeps_the_precision_of_its_scores(scores: np.ndarray, labels: np.ndarray) -> None:
    assert cross_entropy(scores.astype(np.float32), labels)[1]().dtype == np.float32


def test_l2_penalty_by_hand_has_no_factor_one_half() -> None:
    weights = [np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[-5.0]])]
    assert float(l2_penalty(weights, 0.1)) == pytest.approx(0.1 * (1 + 4 + 9 + 16 + 25), rel=1e-15)


def test_l2_penalty_weighs_every_replica_with_its_own_lambda() -> None:
    weights = [np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), np.array([[[2.0], [0.0]], [[0.0], [1.0]]])]
    assert l2_penalty(weights, np.array([0.5, 2.0])).tolist() == [0.5 * (1 + 4 + 4), 2.0 * (9 + 16 + 1)]


def test_l2_penalty_of_float32_weights_is_summed_in_float64() -> None:
    W = np.full((3000, 50), 0.1, np.float32)
    penalty = l2_penalty([W], 1.0)
    assert penalty.dtype == np.float64
    assert float(penalty) == pytest.approx(150_000 * float(np.float32(0.1)) ** 2, rel=1e-12)


def test_l2_gradient_is_the_derivative_of_the_penalty(numerical_gradient: NumericalGradient) -> None:
    rng = np.random.default_rng(0)
    W, replicas, lam = rng.standard_normal((3, 2)), rng.standard_normal((2, 3, 2)), np.array([0.3, 0.0])
    np.testing.assert_allclose(
        with_l2("linear1.W", W, np.zeros_like(W), 0.3),
        numerical_gradient(lambda: float(l2_penalty([W], 0.3)), W),
        rtol=1e-8,
        atol=1e-10,
    )
    np.testing.assert_allclose(
        with_l2("linear1.W", replicas, np.zeros_like(replicas), lam),
        numerical_gradient(lambda: float(l2_penalty([replicas], lam).sum()), replicas),
        rtol=1e-8,
        atol=1e-10,
    )


def test_l2_gradient_by_hand_in_the_precision_of_the_weights() -> None:
    W = np.array([[1.0, -3.0]], np.float32)
    gradient = with_l2("linear1.W", W, np.zeros_like(W), 0.25)
    assert gradient.dtype == np.float32
    assert gradient.tolist() == [[0.5, -1.5]]


# --- soft labels


def by_hand(S: np.ndarray, y: np.ndarray, other: np.ndarray, smoothing: float, share: float) -> float:
    """The sum over all classes, with labels written out."""
    K = S.shape[-1]
    one_hot = np.eye(K)
    q = (1 - smoothing) * (share * one_hot[y] + (1 - share) * one_hot[other]) + smoothing / K
    return float(-(q * np.log(scipy_softmax(S, axis=-1))).sum(axis=-1).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_of_soft_labels_is_the_sum_over_classes(smoothing: float, share: float) -> None:
    rng = np.random.default_rng(0)
    S, y = rng.standard_normal((3, 6, 4)), rng.integers(0, 4, 6)
    loss, _ = cross_entropy(S, y, smoothing=smoothing, other=y[::-1], share=share)
    expected = [by_hand(replica, y, y[::-1], smoothing, share) for replica in S]
    assert loss.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "settings", [{"smoothing": 0.2}, {"share": 0.3}, {"smoothing": 0.2, "share": 0.7}, {}], ids=str
)
def test_the_gradient_of_soft_labels_is_numerical(
    settings: dict[str, float], numerical_gradient: NumericalGradient
) -> None:
    rng = np.random.default_rng(1)
    S, y = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    other = y[::-1] if "share" in settings else None
    _, backward = cross_entropy(S, y, other=other, **settings)
    numerical = numerical_gradient(lambda: float(cross_entropy(S, y, other=other, **settings)[0]), S)
    np.testing.assert_allclose(backward(), numerical, rtol=1e-6, atol=1e-9)


def test_soft_labels_of_huge_scores_stay_finite() -> None:
    loss, backward = cross_entropy(HUGE, np.array([1, 0, 2]), smoothing=0.1)
    assert np.isfinite(loss)
    assert np.isfinite(backward()).all()
