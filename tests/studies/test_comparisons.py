"""Comparisons: Welch by SciPy's own test, Holm by a worked example."""

import numpy as np
import pytest
from scipy import stats

from klcli.studies.comparisons import compare, holm
from klcli.studies.statistics import Sample


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
