"""The search of lambda: what is drawn, how a range narrows and which value wins, on cases worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from klcli.errors import ConfigError
from klcli.settings.procedures import SearchSettings
from klcli.settings.train_config import TrainConfig
from klcli.studies.lambda_search import Range, Tried, choose, draw, final, narrow, plan

COARSE = Range(1e-5, 1e-1)


def tried(*pairs: tuple[float, float | None]) -> list[Tried]:
    """Values with one accuracy each; None where it diverged."""
    return [Tried(lam, "coarse", () if accuracy is None else (accuracy,)) for lam, accuracy in pairs]


# --- drawing


@given(
    low=st.floats(1e-8, 1e-3),
    factor=st.floats(1.5, 1e6),
    trials=st.integers(1, 40),
    seed=st.integers(0, 2**63 - 1),
    stage=st.integers(0, 5),
    scale=st.sampled_from(["log", "linear"]),
)
def test_draws_are_pure_ascending_and_within_the_range(
    low: float, factor: float, trials: int, seed: int, stage: int, scale: str
) -> None:
    where = Range(low, low * factor, scale)
    values = draw(where, trials, seed, stage)
    assert values == draw(where, trials, seed, stage)
    assert len(values) == trials
    assert values == sorted(values)
    assert all(low * (1 - 1e-12) <= value <= low * factor * (1 + 1e-12) for value in values)
    assert all(type(value) is float for value in values)  # the database takes no np.float64


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_the_scale_is_the_one_in_which_draws_are_uniform(scale: str) -> None:
    values = np.array(draw(Range(1e-5, 1e-1, scale), 2000, seed=0, stage=0))
    unit = (np.log10(values) + 5) / 4 if scale == "log" else (values - 1e-5) / (1e-1 - 1e-5)
    assert stats.kstest(unit, "uniform").pvalue > 1e-3
    other = (values - 1e-5) / (1e-1 - 1e-5) if scale == "log" else (np.log10(values) + 5) / 4
    assert stats.kstest(other, "uniform").pvalue < 1e-6


def test_stages_and_seeds_draw_independently() -> None:
    drawn = [
        np.log10(draw(COARSE, 500, seed, stage)) for seed, stage in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (7, 0))
    ]
    for i, a in enumerate(drawn):
        for b in drawn[i + 1 :]:
            assert not set(a) & set(b)
            assert stats.ks_2samp(a, b).pvalue > 1e-3


def test_a_draw_leaves_the_global_generator_alone() -> None:
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    draw(COARSE, 8, 0, 0)
    assert np.random.random() == expected  # noqa: NPY002


@pytest.mark.parametrize(
    ("low", "high", "scale", "named"),
    [
        (1e-1, 1e-5, "log", "0.1 1e-05"),
        (0.1, 0.1, "log", "0.1"),
        (-1.0, 1.0, "linear", "-1"),
        (math.nan, 1.0, "log", "nan"),
        (1e-5, math.inf, "log", "inf"),
        (0.0, 1.0, "log", "0"),
    ],
)
def test_a_range_in_which_nothing_can_be_drawn_is_refused(low: float, high: float, scale: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Range(low, high, scale)


def test_a_linear_range_may_begin_at_zero() -> None:
    assert all(0 <= value < 1 for value in draw(Range(0.0, 1.0, "linear"), 8, 0, 0))


@pytest.mark.parametrize("trials", [0, -1])
def test_no_trial_is_refused(trials: int) -> None:
    with pytest.raises(ConfigError, match=f"trials {trials}"):
        SearchSettings(trials=trials)


def test_a_scale_of_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="cubic"):
        SearchSettings(scale="cubic")


# --- narrowing


def test_narrowing_by_hand_on_the_logarithmic_scale() -> None:
    """The three best are 1e-4, 1e-3 and 1e-2; half way to 1e-5 and 1e-1 is the geometric mean."""
    values = tried((1e-5, 0.1), (1e-4, 0.3), (1e-3, 0.5), (1e-2, 0.4), (1e-1, 0.2))
    narrowed = narrow(values, Range(1e-6, 1.0))
    assert (narrowed.low, narrowed.high) == pytest.approx((10**-4.5, 10**-1.5), rel=1e-12)
    assert narrowed.scale == "log"


def test_narrowing_by_hand_on_the_linear_scale() -> None:
    values = tried((0.1, 0.1), (0.2, 0.3), (0.3, 0.5), (0.4, 0.4), (0.6, 0.2))
    narrowed = narrow(values, Range(0.0, 1.0, "linear"))
    assert (narrowed.low, narrowed.high) == pytest.approx((0.15, 0.5), rel=1e-12)
    assert narrowed.scale == "linear"


def test_the_three_best_need_not_be_neighbours() -> None:
    values = tried((1e-5, 0.5), (1e-4, 0.1), (1e-3, 0.4), (1e-2, 0.3), (1e-1, 0.2))
    narrowed = narrow(values, Range(1e-7, 1.0))
    # Below 1e-5 there is no neighbour: half way to the end of the range.
    assert (narrowed.low, narrowed.high) == pytest.approx((1e-6, 10**-1.5), rel=1e-12)


def test_narrowing_after_a_fine_stage_looks_at_both_stages() -> None:
    coarse = tried((1e-4, 0.2), (1e-3, 0.4), (1e-2, 0.1))
    fine = tried((5e-4, 0.3), (2e-3, 0.5), (4e-3, 0.3))
    narrowed = narrow([*coarse, *fine], Range(3e-4, 5e-3))
    # 2e-3 and 1e-3, then 5e-4 and 4e-3 equally: the first of them.
    assert narrowed.low == pytest.approx(math.sqrt(1e-4 * 5e-4))
    assert narrowed.high == pytest.approx(math.sqrt(2e-3 * 4e-3))


def test_a_diverged_value_is_never_among_the_best_but_may_be_a_neighbour() -> None:
    values = tried((1e-5, None), (1e-3, 0.5), (1e-2, 0.4), (1e-1, None), (1.0, None))
    narrowed = narrow(values, Range(1e-6, 10.0))
    assert (narrowed.low, narrowed.high) == pytest.approx((1e-4, 10**-1.5), rel=1e-12)


def test_fewer_than_three_values_are_bracketed_all_the_same() -> None:
    narrowed = narrow(tried((1e-3, 0.5)), COARSE)
    assert (narrowed.low, narrowed.high) == pytest.approx((1e-4, 1e-2), rel=1e-12)


@given(st.lists(st.tuples(st.floats(-5, -1), st.integers(0, 100)), min_size=1, max_size=12, unique_by=lambda t: t[0]))
@example([(-1.0, 0), (-2.0, 0), (-3.0, 0), (-4.0, 0)])
def test_a_narrow_range_holds_the_best_and_stays_within_the_old_one(pairs: list[tuple[float, int]]) -> None:
    values = tried(*((10**exponent, percent / 100) for exponent, percent in pairs))
    narrowed = narrow(values, COARSE)
    assert 1e-5 * (1 - 1e-9) <= narrowed.low < narrowed.high <= 1e-1 * (1 + 1e-9)
    best = max(values, key=lambda one: one.accuracy)  # the first, where more are as good than three
    assert narrowed.low * (1 - 1e-9) <= best.lam <= narrowed.high * (1 + 1e-9)


# --- choosing


def test_the_plateau_is_one_binomial_standard_error_deep() -> None:
    """p = 0.5 of 2500 images: sqrt(0.25 / 2500) = 0.01."""
    values = tried((1e-5, 0.30), (1e-4, 0.4901), (1e-3, 0.50), (1e-2, 0.4899), (1e-1, 0.2))
    choice = choose(values, 2500)
    assert choice.standard_error == pytest.approx(0.01)
    assert choice.chosen.lam == choice.best.lam == 1e-3
    assert [one.lam for one in choice.plateau] == [1e-4, 1e-3]


@pytest.mark.parametrize(
    ("accuracies", "chosen"),
    [
        # exponents -5 to -1; the plateau is all of 0.5, its middle the mean of the logarithms
        ((0.5, 0.5, 0.5, 0.1, 0.1), 1e-4),
        ((0.1, 0.1, 0.5, 0.5, 0.5), 1e-2),
        ((0.5, 0.5, 0.5, 0.5, 0.5), 1e-3),
        ((0.5, 0.1, 0.1, 0.1, 0.5), 1e-5),  # as far from the middle: the smaller one
        ((0.5, 0.4999, 0.5, 0.1, 0.1), 1e-5),  # within the plateau, but not tied: 1e-5 and 1e-3 are as far from 1e-4
        ((0.5, 0.5, 0.4999, 0.4999, 0.1), 1e-4),  # the middle is that of the plateau, -3.5
    ],
)
def test_ties_go_towards_the_middle_of_the_plateau(accuracies: tuple[float, ...], chosen: float) -> None:
    lambdas = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    assert choose(tried(*zip(lambdas, accuracies, strict=True)), 2500).chosen.lam == chosen


def test_the_order_in_which_values_were_tried_does_not_matter() -> None:
    values = tried((1e-4, 0.5), (1e-3, 0.5), (1e-2, 0.5), (1e-1, 0.495))
    assert choose(values[::-1], 2500).chosen == choose(values, 2500).chosen


def test_repeats_are_judged_by_their_mean_and_spread() -> None:
    """0.50 and 0.54: mean 0.52, standard deviation 0.0283, standard error 0.02, more than the binomial one."""
    steady = Tried(1e-3, "coarse", (0.505, 0.505))
    best = Tried(1e-2, "coarse", (0.50, 0.54))
    outside = Tried(1e-4, "coarse", (0.49, 0.50))
    choice = choose([outside, steady, best], 1_000_000)
    assert choice.chosen == best
    assert choice.standard_error == pytest.approx(0.02)
    assert choice.plateau == (steady, best)


def test_repeats_that_agree_by_chance_keep_the_error_of_their_images() -> None:
    """Two repeats on 2500 images see 5000 of them: sqrt(0.25 / 5000)."""
    choice = choose([Tried(1e-3, "coarse", (0.5, 0.5))], 2500)
    assert choice.standard_error == pytest.approx(math.sqrt(0.25 / 5000))


def test_a_diverged_value_is_not_chosen() -> None:
    choice = choose(tried((1e-3, None), (1e-2, 0.1), (1.0, None)), 5000)
    assert choice.chosen.lam == 1e-2
    assert len(choice.plateau) == 1
    assert Tried(1.0, "coarse", ()).accuracy == -math.inf


def test_a_value_of_which_a_training_diverged_comes_after_those_that_all_converged() -> None:
    """The mean of those that happened to converge is no estimate of the mean of all."""
    lucky = Tried(1e-1, "coarse", (0.9,), diverged=2)
    sound = [Tried(lam, "coarse", (low, low + 0.1, low + 0.2)) for lam, low in ((1e-4, 0.3), (1e-3, 0.4))]
    choice = choose([lucky, *sound], 5000)
    assert choice.chosen == choice.best == sound[1]
    assert lucky not in choice.plateau
    luckier = Tried(1e-2, "coarse", (0.2, 0.2), diverged=1)  # of which fewer diverged
    assert choose([lucky, luckier], 5000).chosen == luckier
    values = [Tried(10.0**-place, "coarse", (0.5, 0.5)) for place in (4, 5, 6)] + [lucky]
    assert narrow(values, Range(1e-7, 1.0)).high == pytest.approx(10**-2.5)


def test_zero_is_a_lambda_too() -> None:
    assert choose(tried((0.0, 0.5), (1e-3, 0.4)), 5000).chosen.lam == 0.0


# --- plans


def test_a_stage_trains_every_lambda_with_the_same_seeds() -> None:
    base = TrainConfig(seed=5, hidden=(20,), batch_norm=True)
    configs = plan(base, [1e-3, 1e-2], repeats=2)
    assert [(config.lam, config.seed, config.shared_seed) for config in configs] == [
        (1e-3, 5, 5), (1e-3, 6, 6), (1e-2, 5, 5), (1e-2, 6, 6),
    ]  # fmt: skip
    assert {replace(config, lam=base.lam, seed=5, order_seed=None) for config in configs} == {base}


def test_a_lambda_given_twice_is_trained_once() -> None:
    assert plan(TrainConfig(), [0.1, 0.2, 0.1], repeats=1) == plan(TrainConfig(), [0.1, 0.2], repeats=1)


def test_the_winner_is_trained_for_three_cycles_of_ten_epochs() -> None:
    base = TrainConfig(seed=5, hidden=(20,), batch_norm=True, step_epochs=2, step_size=17, epochs=3, lam=1.0)
    [config] = final(base, 0.002, repeats=1)
    assert (config.lam, config.cycles, config.step_epochs, config.step_size, config.epochs) == (0.002, 3, 5, None, None)
    assert (config.hidden, config.batch_norm, config.seed, config.shared_seed) == ((20,), True, 5, 5)
    assert [config.seed for config in final(base, 0.002, repeats=3)] == [5, 6, 7]
