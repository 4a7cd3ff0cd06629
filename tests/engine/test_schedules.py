"""Learning rates at the vertices of the triangle, by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest

from klcli.engine.schedules import cosine, cyclical, one_cycle, range_test


@pytest.mark.parametrize(
    ("step", "eta"),
    [
        (0, 0.1),  # the bottom
        (100, 0.3),  # half way up
        (200, 0.5),  # the top, after n_s updates
        (300, 0.3),
        (400, 0.1),  # one cycle is 2 n_s updates
        (450, 0.2),  # a quarter of the way up again
        (600, 0.5),  # 3 n_s
        (800, 0.1),
    ],
)
def test_vertices_of_the_cyclical_schedule(step: int, eta: float) -> None:
    assert cyclical(step, eta_min=0.1, eta_max=0.5, step_size=200) == pytest.approx(eta, rel=1e-14)


def test_the_bottom_and_the_top_are_hit_exactly() -> None:
    rates = [cyclical(step, eta_min=1e-5, eta_max=1e-1, step_size=500) for step in range(2001)]
    assert [rates[step] for step in (0, 1000, 2000)] == [1e-5, 1e-5, 1e-5]
    assert rates[500] == pytest.approx(1e-1, rel=1e-15)
    assert min(rates) == 1e-5
    assert max(rates) == rates[500] == rates[1500]


def test_the_shortest_cycle_alternates_between_the_two_rates() -> None:
    assert [cyclical(step, eta_min=1.0, eta_max=2.0, step_size=1) for step in range(5)] == [1, 2, 1, 2, 1]


def test_decay_lowers_the_peak_of_each_cycle_and_leaves_the_bottom() -> None:
    rates = {step: cyclical(step, eta_min=1.0, eta_max=9.0, step_size=10, decay=0.5) for step in range(81)}
    assert [rates[step] for step in (0, 20, 40, 60, 80)] == [1, 1, 1, 1, 1]
    assert [rates[step] for step in (10, 30, 50)] == [9, 4.5, 2.25]
    assert rates[25] == pytest.approx(1 + 0.5 * 3.5)


def test_a_decayed_peak_never_falls_below_eta_min() -> None:
    assert cyclical(1010, eta_min=1.0, eta_max=9.0, step_size=10, decay=0.5) == 1.0


def test_a_schedule_is_a_pure_function_of_the_step() -> None:
    forwards = [cyclical(step, eta_min=0.0, eta_max=1.0, step_size=7, decay=0.9) for step in range(60)]
    backwards = [cyclical(step, eta_min=0.0, eta_max=1.0, step_size=7, decay=0.9) for step in reversed(range(60))]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize(
    ("step", "eta"),
    [
        (0, 0.9),  # the top
        (50, 0.1 + 0.8 * (1 + math.sqrt(0.5)) / 2),  # an eighth of a turn
        (100, 0.5),  # half way
        (199, 0.1 + 0.8 * (1 + math.cos(math.pi * 199 / 200)) / 2),  # the last update of the cycle
        (200, 0.45),  # begins again, at half of eta_max
        (300, 0.1 + 0.35 / 2),
        (400, 0.225),
        (800, 0.1),  # never below eta_min
    ],
)
def test_the_cosine_falls_in_every_cycle_and_begins_again_lower(step: int, eta: float) -> None:
    assert cosine(step, eta_min=0.1, eta_max=0.9, step_size=100, decay=0.5) == pytest.approx(eta, rel=1e-12)


def test_the_one_cycle_rises_in_a_line_over_three_tenths_and_falls_along_a_cosine() -> None:
    rates = [one_cycle(step, eta_min=0.1, eta_max=1.1, total=1000) for step in range(1001)]
    assert (rates[0], rates[1000]) == (0.1, pytest.approx(0.1, rel=1e-12))
    assert max(rates) == rates[300] == pytest.approx(1.1, rel=1e-12)
    np.testing.assert_allclose(np.diff(rates[:301]), 1 / 300, rtol=1e-9)
    assert rates[650] == pytest.approx(0.6, rel=1e-12)  # half way down
    assert all(a > b for a, b in pairwise(rates[300:]))


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_one_cycles_stay_between_their_limits(total: int) -> None:
    for step in range(total + 1):
        assert 0.1 <= one_cycle(step, eta_min=0.1, eta_max=0.9, total=total) <= 0.9


def test_a_range_test_passes_every_decade_in_the_same_number_of_updates() -> None:
    rates = [range_test(step, eta_min=1e-4, eta_max=1.0, total=9) for step in range(9)]
    assert rates[::2] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert rates[1] == pytest.approx(math.sqrt(1e-4 * 1e-3))
    assert range_test(0, eta_min=1e-4, eta_max=1.0, total=1) == 1e-4
