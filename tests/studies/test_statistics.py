"""Statistics of repeats against SciPy's own tests and against numbers from a printed table."""

import math

import numpy as np
import pytest
from scipy import stats

from klcli.studies.statistics import Sample, binomial_variance, compare, holm, welch

SAMPLES = [(0.51, 0.53), (0.51, 0.52, 0.55), tuple(np.random.default_rng(0).normal(0.52, 0.004, 20))]


@pytest.mark.parametrize("values", SAMPLES)
def test_mean_spread_and_interval_are_those_of_scipy(values: tuple[float, ...]) -> None:
    sample = Sample(values)
    assert sample.n == len(values)
    assert sample.mean == pytest.approx(np.mean(values), rel=1e-14)
    assert sample.std == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert sample.standard_error == pytest.approx(stats.sem(values), rel=1e-12)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert sample.half_interval is not None
    assert (sample.mean - sample.half_interval, sample.mean + sample.half_interval) == pytest.approx((low, high))


def test_the_interval_by_a_printed_table() -> None:
    """Values 1, 2, 3: std 1, standard error 1 / sqrt(3), and t = 4.303 for two degrees of freedom."""
    sample = Sample((1.0, 2.0, 3.0))
    assert (sample.mean, sample.std) == (2.0, 1.0)
    assert sample.half_interval == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)


def test_a_single_value_has_no_spread() -> None:
    sample = Sample((0.5,))
    assert (sample.mean, sample.n, sample.std, sample.half_interval) == (0.5, 1, None, None)
    with pytest.raises(ValueError, match="one value"):
        _ = sample.standard_error
    assert welch(sample, Sample((0.4, 0.5))) is None
    assert welch(Sample((0.4, 0.5)), sample) is None


@pytest.mark.parametrize("a", SAMPLES)
@pytest.mark.parametrize("b", [(0.49, 0.50, 0.505), (0.1, 0.9, 0.5, 0.2)])
def test_welch_is_that_of_scipy(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    expected = stats.ttest_ind(a, b, equal_var=False).pvalue
    assert welch(Sample(a), Sample(b)) == pytest.approx(expected, rel=1e-9)
    assert welch(Sample(b), Sample(a)) == pytest.approx(expected, rel=1e-9)


def test_repeats_without_any_spread() -> None:
    """Sigma 1e-4 without BN: every seed gives chance exactly."""
    chance, better = Sample((0.1, 0.1, 0.1)), Sample((0.5, 0.5))
    assert (chance.std, chance.half_interval) == (0, None)  # others need not be equal
    assert welch(chance, Sample((0.1, 0.1))) == 1
    assert welch(chance, better) is None  # two seeds may agree by chance: that is no evidence without limit
    # 0.4 and 0.5: mean 0.45, standard error 0.05, so t = 7 with one degree of freedom.
    assert welch(chance, Sample((0.4, 0.5))) == pytest.approx(2 * stats.t.sf(7, 1))


def test_differences_that_are_equal_but_for_rounding_have_no_interval() -> None:
    """One image of 222 more in both runs: the differences of the accuracies differ in their last bits."""
    gained = tuple((right + 1) / 222 - right / 222 for right in (101, 122, 130))
    assert len(set(gained)) > 1
    assert Sample(gained).half_interval is None
    assert Sample((1 / 222, 1 / 222, 2 / 222)).half_interval == pytest.approx(4.303 / 222 / 3, rel=1e-3)


def test_the_variance_of_an_accuracy_by_hand() -> None:
    """That of a Bernoulli variable over n; where no image or every one is right, that of one among n + 2."""
    assert binomial_variance(0.5, 2500) == 0.25 / 2500
    assert binomial_variance(0.1, 10) == pytest.approx(np.var([1.0] + [0.0] * 9) / 10)
    for p in (0.0, 1.0):
        assert binomial_variance(p, 10) == pytest.approx(np.var([1.0] + [0.0] * 11) / 10)


def test_holm_by_hand() -> None:
    # m = 4, sorted .005 .01 .03 .04: times 4, 3, 2, 1 gives .02 .03 .06 .04, made monotone .02 .03 .06 .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_every_pair_is_compared_as_scipy_does() -> None:
    rng = np.random.default_rng(0)
    values = [tuple(map(float, rng.normal(mean, 0.01, n))) for mean, n in ((0.50, 3), (0.51, 4), (0.55, 5))]
    found = compare([Sample(one) for one in values])
    assert [(one.a, one.b) for one in found] == [(0, 1), (0, 2), (1, 2)]
    for one in found:
        expected = stats.ttest_ind(values[one.a], values[one.b], equal_var=False).pvalue
        assert one.p == pytest.approx(expected, rel=1e-9)
        assert one.adjusted >= one.p
        assert one.differs == (one.adjusted < 0.05)


def test_a_single_value_is_left_out() -> None:
    assert compare([Sample((0.5,)), Sample((0.4, 0.5)), Sample((0.6,))]) == []
