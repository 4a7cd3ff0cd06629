"""The limits of an interval and of a tolerance, by hand."""

import math

import pytest
from scipy import stats

from klcli.published.intervals import Noise, Typical, decide, decide_claim, decide_draw, sampling_error, tolerance_of
from klcli.settings.split_config import SplitConfig

T_15 = float(stats.t.ppf(0.975, 15))  # eight seeds have 7 degrees of freedom, a typical setting 8


def eight_seeds(half: float) -> Noise:
    """Eight seeds whose interval has this half width."""
    own = half / T_15 / math.sqrt(1 + 1 / 8)
    return Noise(8, own, Typical(own, 100))


def test_losses_and_costs_have_a_tolerance_of_their_own() -> None:
    assert [tolerance_of(f"test_{name}") for name in ("accuracy", "loss", "cost")] == [0.02, 0.06, 0.06]
    for half, accuracy, loss in (
        (0.019, "reproduced", "reproduced"),
        (0.05, "undecided", "reproduced"),
        (0.061, "undecided", "undecided"),
    ):
        noise = eight_seeds(half)
        assert noise.half() == pytest.approx(half)
        assert decide(0.01, noise, tolerance_of("test_accuracy"))[0] == accuracy
        assert decide(0.01, noise, tolerance_of("validation_loss"))[0] == loss
    assert decide(0.062, eight_seeds(0.061), 0.06)[0] == "differs"


def test_one_seed_more_can_decide() -> None:
    noise = eight_seeds(0.0201)
    nine = math.sqrt((1 + 1 / 9) / (1 + 1 / 8)) * float(stats.t.ppf(0.975, 16)) / T_15 * 0.0201
    assert nine < 0.02 and noise.seeds_for(0.02) == 9
    assert decide(0.0, noise, 0.02) == ("undecided", "9 seeds would decide")


def test_a_second_seed_adds_to_what_is_typical() -> None:
    """Of a line with one seed, in a report where another has two of which s0 = .003 is the spread."""
    noise = Noise(1, None, Typical(0.003, 1))
    t_1, t_2 = 12.7062, 4.30265  # 97.5 % points of Student's t, from a table
    assert noise.half() == pytest.approx(t_1 * 0.003 * math.sqrt(2), rel=1e-5)  # .054
    assert noise.half(2) == pytest.approx(t_2 * 0.003 * math.sqrt(1.5), rel=1e-5)  # .0158
    assert decide(0.0, noise, 0.02) == ("undecided", "2 seeds would decide")
    assert decide(0.0, Noise(1, None, None), 0.02) == ("undecided", "one seed has no spread, train at least 2")


def test_a_claim_by_one_seed_is_undecided() -> None:
    assert decide_claim(0.5, Noise(1, None, None)) == ("undecided", "one seed has no spread, train at least 2")
    assert decide_claim(0.5, eight_seeds(0.4))[0] == "reproduced"
    assert decide_claim(-0.5, eight_seeds(0.4))[0] == "differs"


def test_the_ends_of_the_interval_of_draws_belong_to_it() -> None:
    """Of 39 draws, the interval reaches from the smallest to the largest."""
    draws = [1 + one / 38 * 9 for one in range(39)]  # 1 to 10
    found = {x: decide_draw(x, draws, 10.0, None)[0] for x in (0.99, 1.0, 10.0, 10.01)}
    assert found == {0.99: "differs", 1.0: "reproduced", 10.0: "reproduced", 10.01: "differs"}
    assert decide_draw(5.0, draws, 9.99, None)[0] == "undecided"
    assert decide_draw(5.0, [0.0, *draws[1:]], 10.0, None)[0] == "undecided"  # no factor leads from 0 to 10


def test_the_sampling_error_of_an_accuracy_that_no_network_has() -> None:
    """A mean that rounding has put above 1 has no variance, nor has one of 0."""
    assert sampling_error("validation_accuracy", 1 + 1e-12, SplitConfig()) == 0
    assert sampling_error("validation_accuracy", 0.0, SplitConfig()) == 0
