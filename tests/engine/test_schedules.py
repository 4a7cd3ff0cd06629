"""Learning rates at every corner of the triangle, by hand."""

import pytest

from klcli.engine.schedules import constant, cyclical


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
def test_corners_of_the_cyclical_schedule(step: int, eta: float) -> None:
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


def test_the_constant_schedule_is_constant() -> None:
    assert {constant(step, eta=0.02) for step in (0, 1, 10, 10**9)} == {0.02}
