"""Evaluations and gradient checks: records are read back unchanged, and found by their runs and settings."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from klcli.data.dataset import Dataset
from klcli.engine.gradient_check import TensorCheck
from klcli.errors import StoreError
from klcli.evaluation.metrics import Score
from klcli.evaluation.reevaluation import Reevaluation
from klcli.settings.procedures import CheckSettings, EvaluationSettings
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Evaluation
from klcli.studies.gradient_checks import NetworkCheck
from tests.raw_sql import execute

FOUND = Reevaluation("adaptive", 1000, Score(1 / 3, 0.4), Score(0.1 + 0.2, 0.5), 2.5)
DATASET = Dataset("d", np.empty((0, 3072), np.uint8), np.empty(0, np.uint8), (), "s", "", "", None, None)


def test_an_evaluation_is_read_back_and_replaces_the_one_of_the_same_settings(recorder: Any) -> None:
    runs = [recorder.begin(seed=seed) for seed in range(3)]
    of_runs = recorder.store.evaluations.of_runs

    def record(numbers: list[int], *what: Any) -> Evaluation:
        return recorder.store.evaluations.record([recorder.store.runs.get(number) for number in numbers], *what)

    settings = EvaluationSettings(bn_statistics="adaptive", flips=True)
    one = record(runs[:1], settings, FOUND, "klcli evaluate 1")
    both = record([runs[1], runs[0], runs[0]], settings, FOUND, "klcli evaluate 1 2 --ensemble")
    assert (both.runs, both.bn_statistics, both.bn_samples, both.transductive) == (runs[:2], "adaptive", 1000, True)
    assert (both.flips, both.snapshots, both.shifts, both.seed, both.seconds) == (True, False, 0, None, 2.5)
    assert [both.measure("validation", name) for name in ("loss", "accuracy")] == [1 / 3, 0.4]
    assert (both.test_loss, both.test_accuracy) == (0.1 + 0.2, 0.5)
    assert of_runs(runs[:1]) == [one, both]
    assert of_runs(runs[1:]) == [both]
    assert of_runs(runs[2:]) == []
    again = record(runs[:1], settings, replace(FOUND, seconds=3.5), "klcli evaluate 1")
    assert [found.seconds for found in of_runs(runs[:1])] == [2.5, 3.5]
    assert again.seconds == 3.5
    record(runs[:1], replace(settings, flips=False), FOUND, "klcli evaluate 1")
    assert len(of_runs(runs[:1])) == 3


def test_an_evaluation_of_several_runs_goes_with_each_of_them(recorder: Any) -> None:
    runs = [recorder.begin(seed=seed) for seed in range(2)]
    both = recorder.store.runs.where("1")
    recorder.store.evaluations.record(both, EvaluationSettings(), FOUND, "klcli evaluate 1 2 --ensemble")
    recorder.store.runs.finish(runs[1], "complete", None, 1.0)
    recorder.store.upkeep.delete([runs[1]])
    assert recorder.store.evaluations.of_runs(runs) == []


def test_an_evaluation_of_an_earlier_network_goes_when_that_is_trained_further(recorder: Any) -> None:
    """Of a run that was interrupted, evaluated and continued, its accuracy is not that of the result."""
    runs = [recorder.begin(seed=seed) for seed in range(2)]
    of_runs = recorder.store.evaluations.of_runs
    execute(recorder.path, "UPDATE runs SET checkpoint_sha256 = 'a'")
    for evaluated in ([runs[0]], runs, [runs[1]]):
        stored = [recorder.store.runs.get(number) for number in evaluated]
        recorder.store.evaluations.record(stored, EvaluationSettings(), FOUND, "klcli evaluate")
    execute(recorder.path, "UPDATE runs SET state = 'complete', checkpoint_sha256 = 'a'")
    assert len(of_runs(runs)) == 3
    execute(recorder.path, f"UPDATE runs SET checkpoint_sha256 = 'b' WHERE id = {runs[0]}")
    assert [one.runs for one in of_runs(runs)] == [runs[1:]]
    execute(recorder.path, "UPDATE runs SET checkpoint_sha256 = NULL")  # it begins again
    assert of_runs(runs) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE runs SET checkpoint_sha256 = 'b' WHERE id = 2", "UPDATE runs SET checkpoint_sha256 = NULL WHERE id = 2",
        "DELETE FROM runs WHERE id = 2",
    ],
    ids=["trained further", "begun again", "deleted"],
)  # fmt: skip
def test_an_evaluation_of_a_network_that_is_gone_by_now_is_not_recorded(recorder: Any, change: str) -> None:
    for seed in range(3):
        recorder.begin(seed=seed)
    execute(recorder.path, "UPDATE runs SET checkpoint_sha256 = 'a' WHERE id <> 3")  # the third has none yet
    runs, record = recorder.store.runs.where("1 ORDER BY id"), recorder.store.evaluations.record
    earlier = record(runs[::2], EvaluationSettings(), FOUND, "klcli evaluate 1 3 --ensemble")
    execute(recorder.path, change)
    for part in (runs, runs[1:2]):
        with pytest.raises(StoreError, match=r"^run 2 was trained further or deleted meanwhile: evaluate it after"):
            record(part, EvaluationSettings(), FOUND, "klcli evaluate")
    assert recorder.store.evaluations.of_runs([1, 2, 3]) == [earlier]
    again = record(runs[::2], EvaluationSettings(), FOUND, "klcli evaluate 1 3 --ensemble")
    assert recorder.store.evaluations.of_runs([1, 2, 3]) == [again]


@pytest.fixture
def checks() -> list[NetworkCheck]:
    """Two networks, of which the second is a stack and has one wrong tensor."""
    right = TensorCheck(
        "linear1.W", 20, 1, 1e-12, 1e-11, 1e-10, 1e-9, 0.1 + 0.2, 1 / 3, 11, 0.05, 1e-8, 0.3, 0.4, 1e-13, 1e-14, -1e-15
    )
    wrong = replace(right, tensor="linear2.W", max_absolute=0.5, relative_to_sum=0.5)
    first, second = (TrainConfig(hidden=(5,), lam=lam, batch_norm=True) for lam in (0.0, 0.005))
    settings = CheckSettings(images=4, dims=6)
    return [NetworkCheck((first,), (right,), settings, 1.5), NetworkCheck((first, second), (right, wrong), settings, 2)]


def test_gradient_checks_come_back_with_their_errors(recorder: Any, checks: list[NetworkCheck]) -> None:
    store = recorder.store.gradient_checks
    assert store.suite() == []
    first = store.record(checks, DATASET, "klcli gradcheck")
    second = store.record(checks[:1], DATASET, "klcli gradcheck")
    assert [check.passed for check in store.suite(first)] == [True, False]
    suites = [[check.suite for check in store.suite(number)] for number in (first, second, None)]
    assert suites == [[first, first], [second], [second]]
    one, stack = store.suite(first)
    assert (one.configs, stack.configs) == (checks[0].configs, checks[1].configs)
    assert (stack.images, stack.dims, stack.method, stack.h) == (4, 6, "centred", 1e-5)
    assert [(error.tensor, error.passed) for error in stack.errors] == [("linear1.W", True), ("linear2.W", False)]
    assert (one.errors[0].gradient_mean, one.errors[0].gradient_std, one.errors[0].kinks) == (0.1 + 0.2, 1 / 3, 1)
    measured = asdict(checks[0].tensors[0])
    del measured["complex_step"]  # is not stored
    assert {name: getattr(one.errors[0], name) for name in measured} == measured
    assert (one.decimals, one.threshold) == (6, 1e-5)


def test_the_latest_check_is_that_of_the_latest_time(recorder: Any, checks: list[NetworkCheck]) -> None:
    """After a merge, older ones have higher numbers."""
    store, settings = recorder.store.gradient_checks, checks[0].settings
    numbers = [store.record(checks[:1], DATASET, "klcli gradcheck") for _ in range(3)]
    for number, time in zip(numbers, ("2026-05-01", "2026-05-03", "2026-05-02"), strict=True):
        execute(recorder.path, "UPDATE gradient_checks SET created_at = ? WHERE id = ?", time, number)
    assert [one.suite for one in store.suite()] == [numbers[1]]
    assert store.latest(checks[0].configs, settings, "s").id == numbers[1]


def test_the_latest_check_of_a_network_is_found_by_its_settings(recorder: Any, checks: list[NetworkCheck]) -> None:
    store = recorder.store.gradient_checks
    store.record(checks, DATASET, "klcli gradcheck")
    latest = store.record(checks, DATASET, "klcli gradcheck")
    members, settings = checks[1].configs, checks[1].settings
    assert store.latest(members, settings, "s").suite == latest
    assert store.latest(members[:1], settings, "s").id == latest
    assert store.latest(members[1:], settings, "s") is None
    assert store.latest(members, replace(settings, images=5), "s") is None
    assert store.latest(members, replace(settings, decimals=5), "s") is None
    assert store.latest(members, settings, "other images") is None
