"""The range test: its config, and suggestions that can be read off by eye."""

from dataclasses import replace

import pytest

from klcli.errors import ConfigError
from klcli.settings.presets import preset
from klcli.settings.train_config import TrainConfig
from klcli.studies.plans import Suggestion, range_test, suggest
from klcli.training.budget import budget_of

ETAS = [10**exponent for exponent in range(-8, 4)]
RISE = [0.10, 0.10, 0.11, 0.10, 0.10, 0.16, 0.24, 0.35, 0.40, 0.38, 0.15, 0.10]


def test_the_accuracy_begins_to_rise_and_is_highest() -> None:
    # Medians of three: the rise is .28, a tenth of it is passed at the sixth value; of the top, the middle one is .38.
    assert suggest(ETAS, RISE, 5000) == Suggestion(1e-3, 1.0)


def test_one_lucky_evaluation_decides_nothing() -> None:
    lucky = [*RISE]
    lucky[2] = 0.9
    assert suggest(ETAS, lucky, 5000) == suggest(ETAS, RISE, 5000)
    lucky[-1] = 0.9
    assert suggest(ETAS, lucky, 5000) == suggest(ETAS, RISE, 5000)


@pytest.mark.parametrize("accuracies", [[], [0.1], [0.1] * 12, [0.10, 0.11, 0.105, 0.11, 0.115, 0.11]])
def test_where_nothing_is_learnt_nothing_is_suggested(accuracies: list[float]) -> None:
    assert suggest(ETAS[: len(accuracies)], accuracies, 1000) is None


def test_it_begins_where_a_tenth_of_the_rise_is_passed() -> None:
    """The rise from .10 is .28, so that .125 is below a tenth of it and .131 above."""
    steps = [accuracy for accuracy in (0.10, 0.125, 0.131, 0.38) for _ in range(3)]
    assert suggest(ETAS, steps, 5000) == Suggestion(ETAS[6], ETAS[9])


def test_a_rise_of_three_standard_errors_is_chance() -> None:
    """On 5000 images, three of a difference at .225 are 3 sqrt(2 * .225 * .775 / 5000) = .0251."""
    below, above = ([0.2] * 6 + [top] * 6 for top in (0.2249, 0.2253))
    assert suggest(ETAS, below, 5000) is None
    assert suggest(ETAS, above, 5000) == Suggestion(ETAS[6], ETAS[6])


def test_one_lucky_image_of_a_few_is_chance() -> None:
    """At an accuracy of 1 on a single image, the binomial variance alone would be 0."""
    assert suggest(ETAS, [0.0] * 6 + [1.0] * 6, 1) is None
    assert suggest(ETAS, [0.0] * 6 + [1.0] * 6, 50) == Suggestion(ETAS[6], ETAS[6])


def test_a_range_without_extent_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--eta-min 0\.1: a range test rises"):
        range_test(TrainConfig(eta_min=0.1, eta_max=0.1), ("eta_min", "eta_max"))


def test_a_range_test_is_one_epoch_with_forty_evaluations() -> None:
    config = range_test(TrainConfig(hidden=(20,)), ())
    times = budget_of(config, 45_000)
    assert (config.schedule, config.eta_min, config.eta_max) == ("range", 1e-5, 1.0)
    assert (times.total_updates, len(times.evaluations), times.evaluations[-1]) == (450, 40, 450)
    assert times.learning_rate(0, config) == 1e-5
    assert times.learning_rate(449, config) == pytest.approx(1.0)
    assert times.ends_a_cycle  # there is no cycle that could be unfinished


def test_a_range_test_measures_the_weights_and_not_their_average() -> None:
    quick = preset("quick").config
    assert range_test(quick, ()).weight_average == 0
    assert range_test(quick, ("weight_average",)).weight_average == quick.weight_average > 0


def test_what_was_typed_stays() -> None:
    typed = TrainConfig(eta_min=1e-3, eta_max=3.0, epochs=2, evaluations_per_cycle=10)
    names = ("eta_min", "eta_max", "epochs", "evaluations_per_cycle")
    assert range_test(typed, names) == replace(typed, schedule="range")


@pytest.mark.parametrize(
    ("config", "typed", "named"),
    [
        (TrainConfig(schedule="cosine"), "schedule", "--schedule cosine"),
        (TrainConfig(cycles=3), "cycles", "--cycles"),
        (TrainConfig(step_size=50), "step_size", "--step-size"),
        (TrainConfig(eta_min=0.0), "eta_min", "--eta-min 0.0"),
    ],
)
def test_what_contradicts_a_range_test(config: TrainConfig, typed: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        range_test(config, (typed,))
