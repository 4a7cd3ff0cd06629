"""Studies: a plan is stored as a whole, its stacks all or nothing, and every study ends in a state."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_sql import dicts

from klcli.data.dataset import Dataset
from klcli.engine.initializers import he
from klcli.engine.network import build
from klcli.errors import StoreError
from klcli.evaluation.metrics import Metrics
from klcli.settings.train_config import TrainConfig
from klcli.store import checkpoints
from klcli.store.runs import run_row
from klcli.store.store import Store
from klcli.store.studies import canonical
from klcli.studies.execution import StackOutcome
from klcli.training.budget import budget_of
from klcli.training.environment import Environment
from klcli.training.result import EpochMetrics, TrainResult

PLAN = [TrainConfig(hidden=(4,), lam=lam, seed=seed, order_seed=0) for lam in (0.1, 0.2) for seed in (0, 1)]
HERE = Environment(1, {"numpy": "2"})
Sql = Callable[..., list[dict[str, Any]]]


def dataset(sha256: str = "a" * 64) -> Dataset:
    nothing = np.empty((0, 3072), np.uint8), np.empty(0, np.uint8)
    return Dataset("small", *nothing, ("a",), sha256, "tests", "built in", None, None)


def planned(
    plan: list[TrainConfig] = PLAN,
    n_train: int = 45_000,
    *,
    sha256: str = "a" * 64,
    environment: Environment = HERE,
    command: str = "klcli train",
) -> list[dict[str, Any]]:
    """The rows of the runs of a plan."""
    return [run_row(config, budget_of(config, n_train), dataset(sha256), environment, command) for config in plan]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "klcli.db")
    yield store
    store.close()


@pytest.fixture
def sql(tmp_path: Path) -> Sql:
    """Read or change the database without klcli."""
    return partial(dicts, tmp_path / "klcli.db")


def begin(store: Store, stage: str = "coarse", parent: int | None = None, **settings: Any) -> int:
    settings = {"low": 1e-5, "high": 0.1} | settings
    sha256 = settings.pop("sha256", "a" * 64)
    runs = planned(sha256=sha256, command="klcli search-lambda")
    return store.studies.begin("lambda", stage, settings, runs, "klcli search-lambda", parent)


def trained(config: TrainConfig, accuracy: float, diverged_at: int | None = None) -> TrainResult:
    network = build(6, [4], 3, initializer=partial(he, rng=np.random.default_rng(config.seed)))
    metrics = Metrics(loss=1 / 3, cost=0.1 + 0.2, accuracy=accuracy)
    epochs = [EpochMetrics(float(i), 450 * i, 0.01, metrics, metrics, 0.5) for i in (1, 2)]
    if diverged_at is not None:
        return TrainResult(config, network, epochs[:1], diverged_at, seconds=2.5)
    return TrainResult(config, network, epochs, test=replace(metrics, accuracy=accuracy / 2), seconds=2.5)


def outcome(positions: tuple[int, ...], diverged: tuple[int, ...] = ()) -> StackOutcome:
    results = [trained(PLAN[p], (p + 1) / 7, diverged_at=470 if p in diverged else None) for p in positions]
    return StackOutcome(positions, results, seconds=10.0, versions=HERE.versions)


# --- the plan


def test_a_study_is_recorded_with_all_of_its_runs_before_the_first_one_starts(store: Store, sql: Sql) -> None:
    study = begin(store)
    [row] = sql("SELECT * FROM studies")
    assert (row["id"], row["kind"], row["stage"], row["state"], row["parent"]) == (
        study, "lambda", "coarse", "running", None,
    )  # fmt: skip
    assert json.loads(row["settings"]) == {"low": 1e-5, "high": 0.1}
    runs = sql("SELECT * FROM runs ORDER BY id")
    assert [(run["study_id"], run["member"], run["state"]) for run in runs] == [(study, i, "running") for i in range(4)]
    assert [(run["lambda"], run["seed"]) for run in runs] == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
    assert {(run["pid"], run["host"]) for run in runs} == {(os.getpid(), socket.gethostname())}
    assert [TrainConfig.from_json(run["config"]) for run in runs] == PLAN
    assert [run.id for run in store.studies.members(study)] == [1, 2, 3, 4]


def test_a_plan_that_cannot_be_stored_leaves_nothing(store: Store, sql: Sql) -> None:
    with pytest.raises(StoreError):
        store.studies.begin("tea", "coarse", {}, planned(), "klcli", None)
    with pytest.raises(StoreError):
        begin(store, parent=99)
    with pytest.raises(ValueError, match="--batch-size 200"):  # the last of the plan does not fit the images
        store.studies.begin("lambda", "coarse", {}, planned([*PLAN, replace(PLAN[0], batch_size=200)], 150), "klcli")
    assert sql("SELECT * FROM studies") == sql("SELECT * FROM runs") == []


def test_a_study_is_found_again_by_its_plan_whatever_the_order_of_its_settings(store: Store) -> None:
    first = begin(store)
    second = begin(store, trials=8)
    third = begin(store, stage="fine", parent=first)
    found = partial(store.studies.find, "lambda")
    assert found("coarse", {"high": 0.1, "low": 1e-5}, None).id == first
    assert found("coarse", {"trials": 8, "high": 0.1, "low": 1e-5}, None).id == second
    assert found("fine", {"low": 1e-5, "high": 0.1}, first).id == third
    assert found("fine", {"low": 1e-5, "high": 0.1}, second) is None
    assert found("fine", {"low": 1e-5, "high": 0.1}, None) is None
    assert found("coarse", {"low": 1e-5, "high": 0.2}, None) is None
    assert begin(store) == 4
    assert found("coarse", {"low": 1e-5, "high": 0.1}, None).id == 4  # the latest of two equal ones


def test_a_study_of_an_older_klcli_is_found_again(store: Store, sql: Sql) -> None:
    settings = {"plan": [asdict(config) for config in PLAN], "low": 1e-5}
    study = begin(store, **settings)
    for key in ("bn_statistics", "preset", "weight_decay"):  # it knew none of these
        sql(f"UPDATE studies SET settings = json_remove(settings, '$.plan[0].{key}', '$.plan[1].{key}')")
    wanted = settings | {"high": 0.1}
    found = store.studies.find("lambda", "coarse", wanted, None)
    assert found is not None and found.id == study
    other = [asdict(replace(config, bn_statistics="precise")) for config in PLAN]
    assert store.studies.find("lambda", "coarse", wanted | {"plan": other}, None) is None
    sql("UPDATE studies SET settings = json_set(settings, '$.plan[0].colour', 'red')")  # of a newer one
    assert store.studies.find("lambda", "coarse", wanted, None) is None


def test_settings_are_written_in_one_way() -> None:
    assert canonical({"b": (1, 2), "a": 1e-5}) == canonical({"a": 0.00001, "b": [1, 2]}) == '{"a": 1e-05, "b": [1, 2]}'
    values = [0.1 + 0.2, 1 / 3, 5e-324]
    assert json.loads(canonical({"values": values}))["values"] == values


def test_complete_studies_of_the_same_images_are_returned_the_newest_first(store: Store) -> None:
    studies = [begin(store), begin(store, sha256="b" * 64), begin(store), begin(store, stage="fine"), begin(store)]
    for study in (studies[0], studies[1], studies[3], studies[4]):
        store.studies.end(study, "complete")
    assert [one.id for one in store.studies.complete("lambda", "coarse", "a" * 64)] == [studies[4], studies[0]]
    assert store.studies.complete("lambda", "coarse", "c" * 64) == []
    assert store.studies.complete("sigma", "coarse", "a" * 64) == []


def test_a_study_that_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(StoreError, match=r"no study 7, .*`sigma-sweep`, `reproduce` and `train --repeats 3` begin one"):
        store.studies.get(7)
    number = begin(store)
    with pytest.raises(StoreError, match=f"no study 7, the latest is {number}"):
        store.studies.get(7)


# --- groups


def test_a_group_is_recorded_with_all_that_it_leaves(store: Store, sql: Sql, tmp_path: Path) -> None:
    begin(store)
    store.studies.record_stack([1, 3], outcome((0, 2)))
    runs = sql("SELECT * FROM runs ORDER BY id")
    assert [run["state"] for run in runs] == ["complete", "running", "complete", "running"]
    for run, accuracy in ((runs[0], 1 / 7), (runs[2], 3 / 7)):
        assert (run["validation_accuracy"], run["best_validation_accuracy"]) == (accuracy, accuracy)
        assert (run["test_accuracy"], run["train_loss"], run["validation_cost"]) == (accuracy / 2, 1 / 3, 0.1 + 0.2)
        assert (run["epochs_done"], run["seconds"], run["error"]) == (2, 2.5, None)
        checkpoint = checkpoints.load(tmp_path / run["checkpoint"])
        assert checkpoint.sha256 == run["checkpoint_sha256"]
        assert TrainConfig.from_json(checkpoint.config).seed == run["seed"]
    epochs = sql("SELECT run_id, step FROM epochs ORDER BY run_id, step")
    assert [(row["run_id"], row["step"]) for row in epochs] == [(1, 450), (1, 900), (3, 450), (3, 900)]


def test_a_member_that_diverged_keeps_its_epochs_and_no_checkpoint(store: Store, sql: Sql) -> None:
    begin(store)
    store.studies.record_stack([1, 2], outcome((0, 1), diverged=(1,)))
    first, second, *_ = sql("SELECT * FROM runs ORDER BY id")
    assert (first["state"], second["state"]) == ("complete", "diverged")
    assert second["error"] == "the cost or the network was not finite after update 470"
    assert second["checkpoint"] is None
    assert second["epochs_done"] == 1


def test_a_group_is_one_transaction(store: Store, sql: Sql) -> None:
    """The last of its rows is refused: the group was never trained."""
    begin(store)
    before = sql("SELECT * FROM runs")
    sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON epochs WHEN NEW.run_id = 2 AND NEW.epoch = 2"
        " BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
    )
    with pytest.raises(StoreError, match="refused by the test"):
        store.studies.record_stack([1, 2], outcome((0, 1)))
    assert sql("SELECT * FROM runs") == before
    assert sql("SELECT * FROM epochs") == []
    sql("DROP TRIGGER refuse")
    store.studies.record_stack([1, 2], outcome((0, 1)))
    assert len(sql("SELECT * FROM epochs")) == 4


def test_a_group_is_recorded_with_the_versions_that_trained_it(store: Store, sql: Sql, tmp_path: Path) -> None:
    """Also in its checkpoints."""
    begin(store)
    there = {"numpy": "3", "blas": "one"}
    store.studies.record_stack([1, 2, 3], replace(outcome((0, 1, 2)), versions=there))
    runs = sql("SELECT checkpoint, versions FROM runs ORDER BY id")
    assert [json.loads(run["versions"]) for run in runs] == [there, there, there, HERE.versions]
    for run in runs[:3]:
        assert checkpoints.load(tmp_path / run["checkpoint"]).origin["versions"] == run["versions"]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({"numpy": "1"}, {"numpy": "1", "later": [{"epoch": 1.0, "numpy": "3"}]}),
        ({}, {"numpy": "3"}),  # a worker began it and was interrupted
        ({"numpy": "3", "python": "3.9"}, {"numpy": "3", "python": "3.9"}),  # which decides no bit
        (
            {"numpy": "1", "later": [{"epoch": 0.5, "numpy": "2"}, {"epoch": 1, "numpy": "9"}]},  # not that of a worker
            {"numpy": "1", "later": [{"epoch": 0.5, "numpy": "2"}, {"epoch": 1.0, "numpy": "3"}]},
        ),
        (
            {"numpy": "1", "later": [{"epoch": 0.5, "numpy": "3"}]},  # another worker continued after the first died
            {"numpy": "1", "later": [{"epoch": 0.5, "numpy": "3"}]},
        ),
    ],
)
def test_the_versions_that_trained_the_beginning_of_a_run_stay(
    store: Store, sql: Sql, tmp_path: Path, before: dict[str, Any], expected: dict[str, Any]
) -> None:
    begin(store)
    sql("UPDATE runs SET versions = ? WHERE id = 1", json.dumps(before))
    store.studies.record_stack([1], replace(outcome((0,)), versions={"numpy": "3"}, since=1.0))
    [run] = sql("SELECT checkpoint, versions FROM runs WHERE id = 1")
    assert json.loads(run["versions"]) == expected
    assert checkpoints.load(tmp_path / run["checkpoint"]).origin["versions"] == run["versions"]


def test_recording_a_group_twice_changes_nothing(store: Store, sql: Sql) -> None:
    """A commit that raises may have been done all the same, and is repeated."""
    begin(store)
    group = outcome((0, 1))
    store.studies.record_stack([1, 2], group)
    before = sql("SELECT id, state, validation_accuracy, checkpoint_sha256 FROM runs"), sql("SELECT * FROM epochs")
    store.studies.record_stack([1, 2], group)
    assert (sql("SELECT id, state, validation_accuracy, checkpoint_sha256 FROM runs"), sql("SELECT * FROM epochs")) == (
        before
    )


# --- the end


@pytest.mark.parametrize("state", ["interrupted", "failed"])
def test_the_end_of_a_study_ends_what_has_not_ended(store: Store, sql: Sql, state: str) -> None:
    begin(store)
    begin(store, stage="fine")
    store.studies.record_stack([1, 2], outcome((0, 1), diverged=(1,)))
    store.studies.end(1, state, "why")
    runs = sql("SELECT * FROM runs ORDER BY id")
    assert [run["state"] for run in runs] == ["complete", "diverged", state, state] + ["running"] * 4
    assert [run["error"] for run in runs[2:4]] == ["why", "why"]
    assert all(run["finished_at"] for run in runs[:4])
    assert [study["state"] for study in sql("SELECT state FROM studies")] == [state, "running"]


def test_an_interrupted_run_of_a_study_keeps_the_numbers_of_its_last_evaluation(store: Store, sql: Sql) -> None:
    begin(store)
    first, last = trained(PLAN[0], 1 / 7).epochs
    store.runs.record_epochs(1, replace(first, validation=replace(first.validation, accuracy=0.5)), last)
    store.studies.end(1, "interrupted", "why")
    shown = "SELECT train_loss, train_cost, train_accuracy, validation_loss, validation_cost, validation_accuracy, "
    shown += "best_validation_accuracy, epochs_done FROM runs"
    assert [*sql(shown)[0].values()] == [1 / 3, 0.1 + 0.2, 1 / 7] * 2 + [0.5, 2]
    store.studies.restart(1, dict(enumerate(planned())))  # it begins again
    assert [*sql(shown)[0].values()] == [None] * 7 + [0]


def test_a_restart_takes_what_is_missing_and_nothing_else(store: Store, sql: Sql) -> None:
    begin(store)
    store.studies.record_stack([1, 2], outcome((0, 1)))
    store.studies.end(1, "interrupted", "why")
    sql("UPDATE runs SET pid = 1, started_at = 'then'")
    sql("INSERT INTO epochs SELECT 3, 1.0, 450, 0.1, 1, 1, 1, 1, 1, 1, 1")
    kept = sql("SELECT * FROM runs WHERE id < 3"), sql("SELECT * FROM epochs WHERE run_id < 3")
    again = planned(environment=Environment(2, {"numpy": "3"}))
    store.studies.restart(1, {2: again[2], 3: again[3]})
    assert (sql("SELECT * FROM runs WHERE id < 3"), sql("SELECT * FROM epochs WHERE run_id < 3")) == kept
    for run in sql("SELECT * FROM runs WHERE id >= 3"):
        assert (run["state"], run["error"], run["finished_at"], run["epochs_done"]) == ("running", None, None, 0)
        assert (run["pid"], run["threads"], json.loads(run["versions"])) == (os.getpid(), 2, {"numpy": "3"})
        assert run["started_at"] != "then"
    assert sql("SELECT * FROM epochs WHERE run_id >= 3") == []
    assert [study["state"] for study in sql("SELECT state FROM studies")] == ["running"]


def test_a_restart_leaves_runs_to_whom_they_belong(store: Store, sql: Sql) -> None:
    begin(store)
    store.studies.end(1, "interrupted")
    owner = store.locks.take()
    sql("UPDATE runs SET state = 'running', pid = 4711, owner = ? WHERE id = 4", owner)
    before = sql("SELECT * FROM runs")
    with pytest.raises(StoreError, match=r"run 4 of study 1.*4711"):
        store.studies.restart(1, {2: planned()[2], 3: planned()[3]})
    assert sql("SELECT * FROM runs") == before


@pytest.mark.parametrize("ended", ["complete", "diverged"])
def test_a_restart_leaves_what_another_process_has_completed_since(store: Store, sql: Sql, ended: str) -> None:
    begin(store)
    store.studies.end(1, "interrupted")
    sql("UPDATE runs SET state = ?, note = 'theirs' WHERE id = 4", ended)
    before = sql("SELECT * FROM runs WHERE id = 4")
    store.studies.restart(1, {2: planned()[2], 3: planned()[3]})
    store.studies.record_stack([3, 4], outcome((2, 3)))
    assert sql("SELECT * FROM runs WHERE id = 4") == before
    assert sql("SELECT state FROM runs WHERE id = 3") == [{"state": "complete"}]


@pytest.mark.parametrize("ending", ["complete", "interrupted"])
def test_a_living_study_records_what_another_process_took_for_dead(store: Store, sql: Sql, ending: str) -> None:
    """Its lock was removed or lost. The results of hours were thrown away, and the study called itself complete."""
    begin(store)
    for lock in store.locks.folder.iterdir():
        lock.unlink()
    with closing(Store(Path(store.path))):  # marks them
        pass
    assert {run["state"] for run in sql("SELECT state FROM runs")} == {"interrupted"}
    for runs, positions in (([1, 2], (0, 1)), ([3, 4], (2, 3))):
        store.studies.record_stack(runs, outcome(positions, diverged=(3,)))
    store.studies.end(1, ending)
    found = sql("SELECT state, error, validation_accuracy, checkpoint_sha256 IS NOT NULL AS has FROM runs")
    assert [tuple(run.values()) for run in found[:3]] == [("complete", None, (p + 1) / 7, 1) for p in range(3)]
    assert found[3]["state"] == "diverged"
    assert sql("SELECT state FROM studies") == [{"state": ending}]


def test_a_study_records_no_run_that_another_process_has_taken_over(store: Store, sql: Sql) -> None:
    begin(store)
    sql("UPDATE runs SET state = 'interrupted', owner = ? WHERE id = 2", store.locks.take())
    before = sql("SELECT * FROM runs")
    with pytest.raises(StoreError, match="run 2 has been taken over"):
        store.studies.record_stack([2], outcome((1,)))
    assert sql("SELECT * FROM runs") == before


def test_without_locks_the_runs_of_a_killed_study_continue_from_their_checkpoints(
    store: Store, sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can mark them as interrupted."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    begin(store)
    for run_id in (1, 2):
        result = trained(PLAN[run_id - 1], 1 / 7)
        store.runs.record_epochs(run_id, *result.epochs, result=result)
    columns = "checkpoint, checkpoint_sha256, epochs_done, validation_accuracy, state"
    before = sql(f"SELECT {columns} FROM runs")
    with closing(Store(tmp_path / "klcli.db")) as other:
        other.studies.restart(1, dict(enumerate(planned())), alone=[0, 2])
        kept, begun = sql(f"SELECT {columns} FROM runs WHERE id = 1"), sql(f"SELECT {columns} FROM runs WHERE id > 1")
        assert kept == before[:1] and kept[0]["epochs_done"] == 2
        assert [row["checkpoint"] for row in begun] == [None] * 3 and {row["epochs_done"] for row in begun} == {0}
        with pytest.raises(StoreError, match="taken over"):
            store.runs.record_epochs(1, *trained(PLAN[0], 1 / 7).epochs)


def test_a_deleted_run_is_trained_again_in_its_study(store: Store, sql: Sql) -> None:
    begin(store)
    for runs, positions in (([1, 2], (0, 1)), ([3, 4], (2, 3))):
        store.studies.record_stack(runs, outcome(positions))
    store.studies.end(1, "complete")
    kept = sql("SELECT * FROM runs WHERE id IN (1, 3, 4)")
    store.upkeep.delete([2])
    settings = {"low": 1e-5, "high": 0.1}
    found = store.studies.find("lambda", "coarse", settings, None)
    assert found is not None
    store.studies.restart(1, {1: planned()[1]})
    numbers = {run.member: run.id for run in store.studies.members(1)}
    assert numbers == {0: 1, 1: 5, 2: 3, 3: 4}  # a number is never used again
    store.studies.record_stack([numbers[0], numbers[1]], outcome((0, 1)))
    store.studies.end(1, "complete")
    assert sql("SELECT * FROM runs WHERE id IN (1, 3, 4)") == kept
    assert sql("SELECT state, seed, lambda, member FROM runs WHERE id = 5") == [
        {"state": "complete", "seed": 1, "lambda": 0.1, "member": 1}
    ]
    study = store.studies.get(1)
    assert (study.state, study.settings) == ("complete", settings)


@pytest.mark.slow
def test_what_a_dead_parent_leaves_is_interrupted_for_the_next_who_opens(tmp_path: Path, sql: Sql) -> None:
    """A real process begins a study, records a group and is killed."""
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, signal, sys\n"
        f"sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:2]]!r}\n"
        "from pathlib import Path\n"
        "from test_study_store import Store, begin, outcome\n"
        f"store = Store(Path({str(tmp_path / 'klcli.db')!r}))\n"
        "begin(store)\n"
        "store.studies.record_stack([1, 2], outcome((0, 1)))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, str(script)], check=False).returncode == -9
    assert [run["state"] for run in sql("SELECT state FROM runs")] == ["complete", "complete", "running", "running"]
    Store(tmp_path / "klcli.db").close()
    runs = sql("SELECT * FROM runs ORDER BY id")
    assert [run["state"] for run in runs] == ["complete", "complete", "interrupted", "interrupted"]
    assert runs[2]["error"]
    assert [study["state"] for study in sql("SELECT state FROM studies")] == ["interrupted"]
    store = Store(tmp_path / "klcli.db")
    store.studies.restart(1, {2: planned()[2], 3: planned()[3]})
    store.studies.record_stack([3, 4], outcome((2, 3)))
    store.studies.end(1, "complete")
    store.close()
    assert {row["state"] for row in sql("SELECT state FROM runs UNION SELECT state FROM studies")} == {"complete"}


def test_a_living_study_is_left_alone_by_others(store: Store, tmp_path: Path, sql: Sql) -> None:
    begin(store)
    Store(tmp_path / "klcli.db").close()
    assert {run["state"] for run in sql("SELECT state FROM runs")} == {"running"}
    assert sql("SELECT state FROM studies") == [{"state": "running"}]
