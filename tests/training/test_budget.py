"""Budget: numbers of updates, epochs and evaluations, by hand."""

import re
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from klcli.errors import ConfigError
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.records import _LONGEST, _SHORTEST
from klcli.training.budget import budget_of, require_trainable


def test_the_defaults_make_two_cycles_of_4500_updates_in_20_epochs() -> None:
    times = budget_of(TrainConfig(), 45_000)
    assert times.updates_per_epoch == 450
    assert times.step_size == 2250
    assert times.total_updates == 9000
    assert times.epoch_at(times.total_updates) == 20
    assert times.cycles == 2
    assert times.ends_a_cycle
    assert times.evaluations == tuple(range(450, 9001, 450))


@pytest.mark.parametrize("step_epochs", [1e17, 1e300, 1.7e308])
def test_half_a_cycle_that_the_database_cannot_hold_is_refused_by_name(step_epochs: float) -> None:
    with pytest.raises(ConfigError, match=f"--step-epochs {re.escape(f'{step_epochs:g}')}: more than .* give fewer"):
        budget_of(TrainConfig(step_epochs=step_epochs, epochs=1), 45_000)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"step_size": 10**11 + 1, "epochs": 1}, "--step-size 100000000001: "),
        ({"epochs": 222_222_223, "evaluations_per_cycle": 0}, "--epochs 222222223: "),
        ({"cycles": 2, "step_size": 10**11, "evaluations_per_cycle": 0}, "--cycles 2 --step-size 100000000000: "),
    ],
)
def test_what_would_take_years_is_refused_before_it_is_stored(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        budget_of(TrainConfig(**settings), 45_000)
    assert str(refusal.value) == f"{named}more than 100000000000 updates, give fewer"


def test_every_length_that_is_trained_can_be_read_again() -> None:
    """The longest half cycle, of which one epoch of a single update is the smallest part."""
    times = budget_of(TrainConfig(step_size=10**11, epochs=1, split=SplitConfig(subset=100)), 100)
    assert _SHORTEST < times.cycles < times.step_size < _LONGEST  # what `require_length` takes for damage otherwise


@pytest.mark.parametrize(
    ("policy", "split", "is_refused"),
    [
        ("batch", SplitConfig(validation=1), True),
        ("batch", SplitConfig(validation=2), False),
        ("batch", SplitConfig(subset=8), True),  # one test image
        ("adaptive", SplitConfig(subset=8), True),
        ("adaptive", SplitConfig(validation=1), False),  # 10 000 test images
        ("precise", SplitConfig(subset=8), False),
    ],
)
def test_statistics_of_a_single_image_are_refused(policy: str, split: SplitConfig, is_refused: bool) -> None:
    """Its variance is 0: BN maps it to beta, or, of an image that it was not taken from, to 1e4 and more."""
    config = TrainConfig(batch_norm=True, bn_statistics=policy, batch_size=8, split=split)
    with pytest.raises(ConfigError, match=f"{policy}: takes those of a single") if is_refused else nullcontext():
        require_trainable(config)
    require_trainable(replace(config, batch_norm=False, bn_statistics="ema"))
    assert budget_of(config).total_updates  # an earlier klcli has trained such runs


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"cycles": 100_001}, "--cycles 100001 --step-epochs 5: "),
        ({"cycles": 10**9, "step_size": 7}, "--cycles 1000000000 --step-size 7: "),
        ({"epochs": 1_000_001}, "--epochs 1000001: "),
        (
            {"cycles": 2, "evaluations_per_cycle": 500_001},
            "--cycles 2 --step-epochs 5 --evaluations-per-cycle 500001: ",
        ),
    ],
)
def test_more_evaluations_than_a_run_can_hold_are_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        budget_of(TrainConfig(**settings), 45_000)
    assert str(refusal.value) == f"{named}more than 1000000 evaluations, give fewer"


def test_cycles_end_after_every_two_n_s_updates() -> None:
    times = budget_of(TrainConfig(step_size=3, cycles=2), 45_000)
    assert [step for step in range(13) if times.is_end_of_cycle(step)] == [6, 12]
    assert not budget_of(TrainConfig(step_size=3, schedule="constant"), 45_000).is_end_of_cycle(6)


def test_images_that_fill_no_batch_make_no_update() -> None:
    times = budget_of(TrainConfig(batch_size=100, step_epochs=2, cycles=1), 999)
    assert (times.updates_per_epoch, times.step_size, times.total_updates) == (9, 18, 36)


def test_a_batch_as_large_as_the_data_fits_and_a_larger_one_is_refused_by_name() -> None:
    assert budget_of(TrainConfig(batch_size=80, epochs=3), 80).total_updates == 3
    with pytest.raises(ConfigError, match="81") as refusal:
        budget_of(TrainConfig(batch_size=81), 80)
    assert "80" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_step_size_overrides_step_epochs_and_epochs_override_cycles() -> None:
    times = budget_of(TrainConfig(step_size=7, step_epochs=5, cycles=3), 45_000)
    assert (times.step_size, times.total_updates) == (7, 42)
    times = budget_of(TrainConfig(epochs=4, cycles=2), 45_000)
    assert (times.step_size, times.total_updates) == (2250, 1800)


@pytest.mark.parametrize(("step_epochs", "step_size"), [(0.5, 225), (1.5, 675), (1e-6, 1)])
def test_a_fraction_of_an_epoch_makes_at_least_one_update(step_epochs: float, step_size: int) -> None:
    assert budget_of(TrainConfig(step_epochs=step_epochs), 45_000).step_size == step_size


@pytest.mark.parametrize(
    ("epochs", "ends", "cycles"), [(10, True, 1), (20, True, 2), (15, False, 1.5), (11, False, 1.1)]
)
def test_an_epoch_count_may_end_in_the_middle_of_a_cycle(epochs: int, ends: bool, cycles: float) -> None:
    times = budget_of(TrainConfig(epochs=epochs), 45_000)
    assert times.ends_a_cycle is ends
    assert times.cycles == pytest.approx(cycles)


@pytest.mark.parametrize(
    ("settings", "evaluations"),
    [
        pytest.param({"step_size": 10, "cycles": 2}, (8, 16, 24, 32, 40), id="every epoch"),
        pytest.param({"step_size": 9, "cycles": 2}, (8, 16, 24, 32, 36), id="every epoch and the end"),
        pytest.param({"step_size": 4, "cycles": 2, "evaluations_per_cycle": 4}, (2, 4, 6, 8, 10, 12, 14, 16), id="4"),
        pytest.param({"step_size": 10, "cycles": 2, "evaluations_per_cycle": 3}, (7, 13, 20, 27, 33, 40), id="3"),
        pytest.param({"step_size": 10, "cycles": 2, "evaluations_per_cycle": 1}, (20, 40), id="1 a cycle"),
        pytest.param({"step_size": 10, "cycles": 2, "evaluations_per_cycle": 0}, (40,), id="only at the end"),
        pytest.param({"step_size": 10, "epochs": 3, "evaluations_per_cycle": 1}, (20, 24), id="ends within a cycle"),
        pytest.param({"step_size": 2, "cycles": 1, "evaluations_per_cycle": 99}, (1, 2, 3, 4), id="more than updates"),
        pytest.param({"epochs": 0}, (0,), id="the untrained network"),
        pytest.param({"epochs": 0, "evaluations_per_cycle": 5}, (0,), id="the untrained network, 5 a cycle"),
    ],
)  # fmt: skip
def test_evaluations_come_when_they_were_asked_for_and_always_after_the_last_update(
    settings: dict[str, int], evaluations: tuple[int, ...]
) -> None:
    assert budget_of(TrainConfig(batch_size=10, **settings), 85).evaluations == evaluations


@pytest.mark.parametrize(
    ("settings", "has_first"),
    [({}, True), ({"evaluations_per_cycle": 0}, False), ({"schedule": "range"}, False), ({"epochs": 0}, False)],
)
def test_curves_begin_before_the_first_update(settings: dict[str, Any], has_first: bool) -> None:
    times = budget_of(TrainConfig(batch_size=10, **settings), 85)
    assert times.evaluations_with_untrained == ((0,) if has_first else ()) + times.evaluations


def test_no_epoch_means_no_update_and_counts_as_a_whole_number_of_cycles() -> None:
    times = budget_of(TrainConfig(epochs=0), 45_000)
    assert times.total_updates == 0
    assert times.ends_a_cycle


def test_every_replica_has_its_own_learning_rate() -> None:
    times = budget_of(TrainConfig(step_size=4), 45_000)
    replica = TrainConfig(step_size=4, eta_min=1.0, eta_max=3.0)
    assert [times.learning_rate(step, replica) for step in (0, 1, 2, 4, 6, 8)] == [1, 1.5, 2, 3, 2, 1]
    constant = TrainConfig(schedule="constant", eta_max=0.3)
    assert [times.learning_rate(step, constant) for step in (0, 4, 9, 10**9)] == [0.3] * 4
    decaying = TrainConfig(step_size=4, eta_min=1.0, eta_max=3.0, eta_decay=0.5)
    assert [times.learning_rate(step, decaying) for step in (4, 8, 12, 16)] == [3, 1, 1.5, 1]
    cosine = TrainConfig(step_size=4, eta_min=1.0, eta_max=3.0, schedule="cosine")
    assert [times.learning_rate(step, cosine) for step in (0, 4, 8)] == pytest.approx([3, 2, 3])


def test_one_cycle_spans_the_whole_training_and_leaves_no_cycle_unfinished() -> None:
    config = TrainConfig(schedule="one-cycle", eta_min=0.0, eta_max=1.0, epochs=15)
    times = budget_of(config, 45_000)
    assert times.ends_a_cycle
    assert times.total_updates == 6750
    assert times.learning_rate(2025, config) == pytest.approx(1.0)  # after 30 % of the updates
    assert times.learning_rate(6749, config) < 1e-6
    thrice = TrainConfig(schedule="one-cycle", epochs=15, evaluations_per_cycle=3)
    assert budget_of(thrice, 45_000).evaluations == (2250, 4500, 6750)
    untrained = TrainConfig(schedule="one-cycle", epochs=0, evaluations_per_cycle=3)
    assert budget_of(untrained, 45_000).evaluations == (0,)
