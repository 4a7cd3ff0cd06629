"""Runs: records are read back exactly, once, in a state, and never mixed with other data."""

import errno
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_sql import execute

from klcli.errors import StoreError
from klcli.evaluation.metrics import Metrics
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store import checkpoints
from klcli.store.records import BEST_FIRST, Epoch, Run, RunFilter
from klcli.store.store import Store
from klcli.training.networks import initialize
from klcli.training.result import EpochMetrics, TrainResult

# Fractions whose binary form is endless: they come back equal only if no digit is lost.
TRAIN = Metrics(loss=0.1 + 0.2, cost=1 / 3, accuracy=2 / 3)
VALIDATION = Metrics(loss=2.302585092994046, cost=1e-300, accuracy=0.54321)
TEST = Metrics(loss=1.7976931348623157e308, cost=5e-324, accuracy=1.0)
EPOCH = EpochMetrics(
    epoch=1.0, step=450, learning_rate=1e-5 + 1e-17, train=TRAIN, validation=VALIDATION, seconds=0.1 * 3
)


def result(config: TrainConfig, epochs: list[EpochMetrics], test: Metrics | None = None) -> TrainResult:
    rng = np.random.default_rng(0)
    network = initialize(config)
    network.gradients(rng.standard_normal((5, 3072)).astype(np.float32), np.arange(5) % 3, 0.0, track=True)
    return TrainResult(config, network, epochs=epochs, test=test)


def one_line(error: pytest.ExceptionInfo[StoreError]) -> str:
    message = str(error.value)
    assert message
    assert "\n" not in message
    return message


def stored(path: Path, run_id: int, *columns: str) -> tuple[Any, ...]:
    """The columns of a run as SQLite holds them."""
    names = ", ".join(f'"{column}"' for column in columns)
    [row] = execute(path, f"SELECT {names} FROM runs WHERE id = ?", run_id)
    return row


# --- what was recorded comes back


def test_a_run_is_recorded_before_it_starts(recorder: Any) -> None:
    run_id = recorder.begin(
        hidden=(50, 30, 20), batch_norm=True, lam=0.003, initializer="normal", sigma=1e-4, seed=2**63 - 1,
        eta_min=1e-5, eta_max=0.1, command="klcli train --hidden 50 30 20", name="cifar10",
    )  # fmt: skip
    run = recorder.store.runs.get(run_id)
    expected = {
        "id": run_id, "state": "running", "host": socket.gethostname(), "pid": os.getpid(),
        "command": "klcli train --hidden 50 30 20",
        "dataset": "cifar10", "dataset_sha256": "a" * 64, "step_size": 2250, "cycles": 2.0, "epochs": 20.0,
        "threads": 1, "versions": {"numpy": "2"}, "epochs_done": 0.0, "finished_at": None,
        "best_validation_accuracy": None, "test_accuracy": None, "error": None,
    }  # fmt: skip
    assert {name: getattr(run, name) for name in expected} == expected
    assert (run.config.hidden, run.config.lam, run.config.sigma) == ((50, 30, 20), 0.003, 1e-4)
    columns = {
        "hidden": "50 30 20", "batch_norm": 1, "bn_position": "before", "initializer": "normal", "sigma": 1e-4,
        "lambda": 0.003, "optimizer": "sgd", "schedule": "cyclical", "eta_min": 1e-5, "eta_max": 0.1,
        "batch_size": 100, "seed": 2**63 - 1, "dtype": "float32",
    }  # fmt: skip
    assert stored(recorder.path, run_id, *columns) == tuple(columns.values())


def test_columns_that_mean_nothing_for_a_run_are_null(recorder: Any) -> None:
    assert stored(recorder.path, recorder.begin(), "sigma", "bn_position") == (None, None)


def test_the_numbers_of_an_evaluation_come_back_to_the_last_bit(recorder: Any) -> None:
    run_id = recorder.begin()
    recorder.store.runs.record_epochs(run_id, EPOCH)
    [row] = recorder.store.runs.epochs(run_id)
    assert row == Epoch(
        run_id=run_id, epoch=1.0, step=450, learning_rate=EPOCH.learning_rate,
        train_loss=TRAIN.loss, train_cost=TRAIN.cost, train_accuracy=TRAIN.accuracy,
        validation_loss=VALIDATION.loss, validation_cost=VALIDATION.cost,
        validation_accuracy=VALIDATION.accuracy, seconds=EPOCH.seconds,
    )  # fmt: skip
    assert recorder.store.runs.metrics(run_id) == [EPOCH]


def test_evaluations_come_back_in_order_and_only_those_of_the_run(recorder: Any) -> None:
    first, second = recorder.begin(), recorder.begin()
    for epoch in (2.0, 10.0, 1.5):
        recorder.store.runs.record_epochs(first, replace(EPOCH, epoch=epoch))
    recorder.store.runs.record_epochs(second, replace(EPOCH, epoch=3.0))
    assert [row.epoch for row in recorder.store.runs.epochs(first)] == [1.5, 2.0, 10.0]
    assert [row.epoch for row in recorder.store.runs.epochs(second)] == [3.0]


def test_recording_the_same_evaluation_again_changes_nothing(recorder: Any) -> None:
    run_id = recorder.begin()
    later = replace(EPOCH, epoch=2.0, step=900, validation=replace(VALIDATION, accuracy=0.3))
    for metrics in (EPOCH, later):
        recorder.store.runs.record_epochs(run_id, metrics)
    before = recorder.store.runs.get(run_id), recorder.store.runs.epochs(run_id)
    assert before[0].epochs_done == 2.0
    assert before[0].best_validation_accuracy == VALIDATION.accuracy
    for metrics in (later, EPOCH, EPOCH):
        recorder.store.runs.record_epochs(run_id, metrics)
    assert (recorder.store.runs.get(run_id), recorder.store.runs.epochs(run_id)) == before


def test_an_evaluation_and_the_progress_of_its_run_are_one_transaction(recorder: Any) -> None:
    run_id = recorder.begin()
    execute(
        recorder.path,
        "CREATE TRIGGER refuse BEFORE UPDATE ON runs BEGIN SELECT RAISE(ABORT, 'refused by the test'); END",
    )
    with pytest.raises(StoreError, match="refused by the test"):
        recorder.store.runs.record_epochs(run_id, EPOCH)
    assert recorder.store.runs.epochs(run_id) == []
    execute(recorder.path, "DROP TRIGGER refuse")
    recorder.store.runs.record_epochs(run_id, EPOCH)
    assert len(recorder.store.runs.epochs(run_id)) == 1


@pytest.mark.parametrize("state", ["complete", "interrupted", "failed", "diverged"])
def test_a_run_ends_in_a_state_with_its_last_numbers(recorder: Any, state: str) -> None:
    run_id = recorder.begin()
    last = replace(EPOCH, epoch=2.0, train=VALIDATION, validation=TRAIN)
    recorder.store.runs.record_epochs(run_id, EPOCH, last)
    recorder.store.runs.finish(run_id, state, result(TrainConfig(), [EPOCH, last], TEST), 12.5, "what happened")
    run = recorder.store.runs.get(run_id)
    assert (run.state, run.seconds, run.error) == (state, 12.5, "what happened")
    assert run.finished_at >= run.started_at
    for split, metrics in (("train", VALIDATION), ("validation", TRAIN), ("test", TEST)):
        assert Metrics(*(run.measure(split, name) for name in ("loss", "cost", "accuracy"))) == metrics


def numbers(run: Run) -> list[float | None]:
    return [run.measure(split, name) for split in ("train", "validation") for name in ("loss", "cost", "accuracy")]


def test_a_run_has_the_numbers_of_its_last_evaluation_while_it_is_trained_and_once_it_was_killed(recorder: Any) -> None:
    run_id = recorder.begin()
    runs, nothing = recorder.store.runs, [None] * 6
    runs.record_epochs(run_id, replace(EPOCH, epoch=0.0, step=0))
    assert numbers(runs.get(run_id)) == nothing  # a network that is not trained has no results
    first, last = [*astuple(TRAIN), *astuple(VALIDATION)], [*astuple(VALIDATION), *astuple(TRAIN)]
    runs.record_epochs(run_id, EPOCH)
    assert numbers(runs.get(run_id)) == first
    runs.record_epochs(run_id, replace(EPOCH, epoch=2.0, step=900, train=VALIDATION, validation=TRAIN))
    execute(recorder.path, "UPDATE runs SET owner = 'a process that has ended'")
    with closing(Store(recorder.path)) as opened:
        killed = opened.runs.get(run_id)
        assert (killed.state, numbers(killed)) == ("interrupted", last)
        for step, epoch, left in ((450, 1.0, first), (0, 0.0, nothing)):
            opened.runs.record_versions(run_id, {}, step)  # the run continues from its network after `step` updates
            killed = opened.runs.get(run_id)
            assert (killed.epochs_done, numbers(killed)) == (epoch, left)


def test_a_run_of_no_update_has_the_numbers_of_its_only_evaluation(recorder: Any) -> None:
    run_id = recorder.begin(epochs=0)
    recorder.store.runs.record_epochs(run_id, replace(EPOCH, epoch=0.0, step=0))
    assert numbers(recorder.store.runs.get(run_id)) == [*astuple(TRAIN), *astuple(VALIDATION)]


def test_a_run_without_any_evaluation_ends_with_nulls(recorder: Any) -> None:
    run_id = recorder.begin()
    recorder.store.runs.finish(run_id, "failed", None, 0.0)
    run = recorder.store.runs.get(run_id)
    assert run.state == "failed"
    assert run.train_loss is run.test_accuracy is run.error is None


def test_what_is_committed_is_there_for_another_connection(recorder: Any) -> None:
    run_id = recorder.begin()
    recorder.store.runs.record_epochs(run_id, EPOCH)
    other = Store(recorder.path)
    assert other.runs.get(run_id) == recorder.store.runs.get(run_id)
    assert other.runs.epochs(run_id) == recorder.store.runs.epochs(run_id)
    other.close()


def test_deleting_a_run_deletes_its_evaluations(recorder: Any) -> None:
    run_id = recorder.begin()
    recorder.store.runs.record_epochs(run_id, EPOCH)
    recorder.store.runs.finish(run_id, "failed", None, 1.0)
    recorder.store.upkeep.delete([run_id])
    assert recorder.store.runs.epochs(run_id) == []


# --- what is refused


def test_a_numpy_number_is_refused_instead_of_stored_as_bytes(recorder: Any) -> None:
    run_id = recorder.begin()
    single = replace(TRAIN, loss=np.float32(0.5))  # type: ignore[arg-type]
    with pytest.raises(StoreError) as error:
        recorder.store.runs.record_epochs(run_id, replace(EPOCH, train=single))
    one_line(error)
    assert recorder.store.runs.epochs(run_id) == []


def test_a_numpy_number_is_refused_at_the_end_of_a_run_too(recorder: Any) -> None:
    run_id = recorder.begin()
    single = replace(TEST, accuracy=np.float32(0.5))  # type: ignore[arg-type]
    with pytest.raises(StoreError) as error:
        recorder.store.runs.finish(run_id, "complete", result(TrainConfig(), [EPOCH], single), 1.0)
    one_line(error)
    assert recorder.store.runs.get(run_id).state == "running"


def test_every_table_is_strict(recorder: Any) -> None:
    sql = "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
    tables = execute(recorder.path, sql)
    own = {name: strict for name, strict in tables if not name.startswith(("sqlite_", "_sqlite_"))}
    assert {"runs", "epochs", "studies"} <= set(own)
    assert set(own.values()) == {1}


def test_a_number_that_is_not_finite_is_refused_as_an_evaluation(recorder: Any) -> None:
    run_id = recorder.begin()
    with pytest.raises(StoreError) as error:
        recorder.store.runs.record_epochs(run_id, replace(EPOCH, train=replace(TRAIN, cost=float("nan"))))
    one_line(error)
    assert recorder.store.runs.epochs(run_id) == []


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda store: store.runs.get(99), id="run"),
        pytest.param(lambda store: store.runs.record_epochs(99, EPOCH), id="record_epochs"),
        pytest.param(lambda store: store.runs.finish(99, "complete", None, 1.0), id="finish"),
        pytest.param(
            lambda store: store.runs.record_epochs(99, EPOCH, result=result(TrainConfig(), [EPOCH])), id="record_epochs"
        ),
        pytest.param(lambda store: store.runs.claim(99), id="claim"),
    ],
)
def test_a_run_that_does_not_exist_is_a_store_error_in_one_line(recorder: Any, use: Callable[[Store], Any]) -> None:
    with pytest.raises(StoreError) as error:
        use(recorder.store)
    one_line(error)


def test_a_state_that_does_not_exist_is_refused(recorder: Any) -> None:
    run_id = recorder.begin()
    with pytest.raises(StoreError):
        recorder.store.runs.finish(run_id, "finished", None, 1.0)
    assert recorder.store.runs.get(run_id).state == "running"


# --- ranking


def test_best_runs_are_complete_ranked_and_of_one_data_set(recorder: Any) -> None:
    def finished(accuracy: float | None, sha256: str = "a" * 64, state: str = "complete") -> int:
        run_id: int = recorder.begin(sha256=sha256)
        epochs = [] if accuracy is None else [replace(EPOCH, validation=replace(VALIDATION, accuracy=accuracy))]
        recorder.store.runs.record_epochs(run_id, *epochs)
        recorder.store.runs.finish(run_id, state, result(TrainConfig(), epochs), 1.0)
        return run_id

    middle, best, tied = finished(0.4), finished(0.5), finished(0.4)
    finished(0.99, sha256="b" * 64)
    finished(0.98, state="diverged")
    finished(0.97, state="interrupted")
    recorder.begin()
    unevaluated = finished(None)
    store = Store(recorder.path)

    def best_runs(sha256: str, limit: int) -> list[Run]:
        return store.runs.query(RunFilter(dataset_sha256=sha256, state="complete"), BEST_FIRST, limit)

    ranked = [run.id for run in best_runs("a" * 64, 10)]
    assert ranked == [best, middle, tied, unevaluated]
    assert [run.id for run in best_runs("a" * 64, 2)] == [best, middle]
    assert [run.validation_accuracy for run in best_runs("b" * 64, 10)] == [0.99]
    assert best_runs("c" * 64, 10) == []
    store.close()


def test_data_sets_are_told_apart_by_their_content_and_the_latest_comes_first(recorder: Any) -> None:
    for sha256 in ("a" * 64, "b" * 64, "a" * 64, "b" * 64, "b" * 64):
        recorder.store.runs.finish(recorder.begin(sha256=sha256, name="cifar10"), "complete", None, 1.0)
    recorder.begin(sha256="c" * 64)
    store = Store(recorder.path)
    found = store.runs.image_sets(RunFilter(state="complete"))
    assert [(row.dataset, row.dataset_sha256, row.runs) for row in found] == [
        ("cifar10", "b" * 64, 3), ("cifar10", "a" * 64, 2),
    ]  # fmt: skip
    store.close()


def test_one_merged_run_on_other_images_does_not_hide_those_of_most_runs(recorder: Any) -> None:
    """The last hand-in has the highest numbers. Whoever trains then has the newest images again."""
    for sha256, size in (("a", 5000), ("a", 1000), ("a", 1000), ("b", 5000), ("b", 5000)):
        recorder.begin(sha256=sha256 * 64, split=SplitConfig(validation=size))

    def found() -> list[tuple[str, int]]:
        return [(one.dataset_sha256[0], one.runs) for one in recorder.store.runs.image_sets(RunFilter())]

    assert found() == [("b", 2), ("a", 2), ("a", 1)]
    execute(recorder.path, "UPDATE runs SET origin = 'ada/klcli.db'")
    assert found() == [("a", 2), ("a", 1), ("b", 2)]
    recorder.begin(sha256="c" * 64)
    assert found() == [("c", 1), ("b", 2), ("a", 2), ("a", 1)]


def test_a_missing_run_is_looked_for_where_runs_are(recorder: Any) -> None:
    with pytest.raises(StoreError, match=r"there is no run 7, begin with `klcli train --db .*`"):
        recorder.store.runs.get(7)
    recorder.begin()
    with pytest.raises(StoreError, match=r"there is no run 7, `klcli report --list --db .*` shows all that are there"):
        recorder.store.runs.get(7)


def test_runs_with_quirks_do_not_make_a_split_the_common_one(recorder: Any) -> None:
    """They are not ranked: the ranking of their split could be empty, or that of a single network."""
    study = recorder.store.studies.begin("reproduce", "quirks", {"method": "a warm start"}, [], "klcli reproduce")
    ids = [recorder.begin(split=SplitConfig(validation=size)) for size in (1000, 1000, 1000, 5000)]
    execute(recorder.path, "UPDATE runs SET study_id = ? WHERE id <= ?", study, ids[2])
    found = Store(recorder.path).runs.image_sets(RunFilter())
    assert [(one.split.validation, one.runs) for one in found] == [(5000, 1), (1000, 3)]


# --- checkpoints of runs


def test_a_checkpoint_lies_beside_the_database_and_the_run_points_at_it(recorder: Any) -> None:
    config = TrainConfig(hidden=(4,), batch_norm=True)
    run_id = recorder.begin(hidden=(4,), batch_norm=True)
    trained = result(config, [EPOCH])
    recorder.store.runs.record_epochs(run_id, EPOCH, result=trained)
    run = recorder.store.runs.get(run_id)
    assert not Path(run.checkpoint).is_absolute()
    stored = checkpoints.load(recorder.path.parent / run.checkpoint)
    assert TrainConfig.from_json(stored.config) == config
    assert (stored.step, stored.sha256) == (EPOCH.step, run.checkpoint_sha256)
    for name, array in trained.network.state().items():
        np.testing.assert_array_equal(stored.state[name], array)


def trained_twice(recorder: Any) -> int:
    """Record two evaluations of one run, with different weights; returns the run."""
    run_id = recorder.begin(hidden=(4,))
    trained = result(TrainConfig(hidden=(4,)), [EPOCH])
    recorder.store.runs.record_epochs(run_id, EPOCH, result=trained)
    trained.network.parameters()["linear1.W"][...] += 1
    later = replace(EPOCH, epoch=EPOCH.epoch + 1, step=2 * EPOCH.step)
    trained.epochs.append(later)
    recorder.store.runs.record_epochs(run_id, later, result=trained)
    return run_id


def test_a_run_goes_on_from_its_latest_checkpoint(recorder: Any) -> None:
    run = recorder.store.runs.get(trained_twice(recorder))
    snapshot, remark = recorder.store.runs.snapshot(run)
    assert (snapshot.step, remark) == (2 * EPOCH.step, "")


def test_the_network_of_a_run_that_goes_on_while_it_is_read(recorder: Any) -> None:
    """The row was read before the next checkpoint, or the next file is there before its row."""
    runs, run_id = recorder.store.runs, trained_twice(recorder)
    before = replace(runs.get(run_id), checkpoint_sha256=runs.get(run_id).previous_sha256)
    assert runs.checkpoint(before).step == 2 * EPOCH.step
    later = replace(EPOCH, epoch=3, step=3 * EPOCH.step)
    runs.write_checkpoint(run_id, result(TrainConfig(hidden=(4,)), [EPOCH, later]))
    assert runs.checkpoint(runs.get(run_id)).step == 2 * EPOCH.step


def test_where_the_latest_checkpoint_is_damaged_the_one_before_is_used_and_said(recorder: Any) -> None:
    run = recorder.store.runs.get(trained_twice(recorder))
    latest = recorder.path.parent / run.checkpoint
    content = bytearray(latest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    latest.write_bytes(content)
    snapshot, remark = recorder.store.runs.snapshot(run)
    assert snapshot.step == EPOCH.step
    assert "damaged" in remark
    assert str(latest) in remark


def test_a_copy_that_goes_on_from_an_earlier_checkpoint_leaves_the_later_one(recorder: Any) -> None:
    """The database was copied after the first of two evaluations."""
    run = recorder.store.runs.get(trained_twice(recorder))
    copy = Path(shutil.copyfile(recorder.path, recorder.path.with_name("copy.db")))
    execute(copy, "UPDATE runs SET checkpoint_sha256 = previous_sha256")
    with closing(Store(copy)) as store:
        snapshot, _ = store.runs.snapshot(store.runs.get(run.id))
    assert snapshot.step == EPOCH.step
    assert recorder.store.runs.checkpoint(run).step == 2 * EPOCH.step


def test_where_both_checkpoints_are_gone_the_run_begins_again_and_says_so(recorder: Any) -> None:
    run = recorder.store.runs.get(trained_twice(recorder))
    for file in (recorder.path.parent / run.checkpoint).parent.iterdir():
        file.unlink()
    snapshot, remark = recorder.store.runs.snapshot(run)
    assert snapshot is None
    assert "begins again" in remark


@pytest.mark.parametrize("is_damaged", [False, True], ids=["the latest", "the previous of a damaged one"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        *((OSError(number, os.strerror(number)), StoreError) for number in (errno.EACCES, errno.EIO, errno.ENFILE)),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), OSError),
        (MemoryError(), MemoryError),
    ],
    ids=lambda value: str(value or "memory") if isinstance(value, Exception) else "",
)
def test_a_checkpoint_that_cannot_be_read_now_is_no_reason_to_begin_again(
    recorder: Any, monkeypatch: pytest.MonkeyPatch, is_damaged: bool, error: Exception, raised: type[Exception]
) -> None:
    run = recorder.store.runs.get(trained_twice(recorder))
    latest = recorder.path.parent / run.checkpoint
    if is_damaged:
        latest.write_bytes(latest.read_bytes()[:-9])
    before = {file: file.read_bytes() for file in latest.parent.iterdir()}
    unreadable, irregular = checkpoints.previous(latest) if is_damaged else latest, checkpoints.irregular

    def refused(path: Path) -> str | None:
        if path == unreadable:
            raise error
        return irregular(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "irregular", refused)
        for read in (recorder.store.runs.snapshot, *[recorder.store.runs.checkpoint] * (not is_damaged)):
            with pytest.raises(raised) as found:
                read(run)
            assert type(error) in (type(found.value), type(found.value.__cause__))
            assert "train again" not in str(found.value)  # as if it were lost
    assert {file: file.read_bytes() for file in latest.parent.iterdir()} == before
    snapshot, _ = recorder.store.runs.snapshot(run)
    assert snapshot.step == (1 if is_damaged else 2) * EPOCH.step


def test_a_checkpoint_that_was_renamed_but_never_committed_is_not_used(recorder: Any) -> None:
    run = recorder.store.runs.get(trained_twice(recorder))
    path = recorder.path.parent / run.checkpoint
    checkpoints.save(path, {"linear1.W": np.zeros(3)}, "{}", 3 * EPOCH.step)
    snapshot, _ = recorder.store.runs.snapshot(run)
    assert snapshot.step == 2 * EPOCH.step


def test_a_second_kill_before_the_commit_does_not_push_the_known_checkpoint_out(recorder: Any) -> None:
    run = recorder.store.runs.get(trained_twice(recorder))
    path = recorder.path.parent / run.checkpoint
    for _ in range(3):
        snapshot, _ = recorder.store.runs.snapshot(run)
        assert snapshot is not None
        assert snapshot.step == 2 * EPOCH.step
        checkpoints.save(path, {"linear1.W": np.zeros(3)}, "{}", 3 * EPOCH.step)


def test_what_a_killed_writer_has_left_goes_with_the_next_write(recorder: Any) -> None:
    """The lock of the run makes sure that no other process is writing its checkpoint."""
    path = recorder.store.folder("checkpoints") / "run-000001.npz"
    path.parent.mkdir()
    left = path.with_name(f".{path.name}.0123456789abcdef")
    kept = [
        path.with_name(".run-000002.npz.0123456789abcdef"),
        path.with_name(f".{path.name}.1"),
        path.with_name("note"),
    ]
    for file in [left, *kept]:
        file.touch()
    checkpoints.save(path, {}, "{}", 1)
    assert not left.exists()
    assert all(file.exists() for file in kept)


def test_a_run_is_taken_over_once(recorder: Any) -> None:
    run_id = recorder.begin()
    recorder.store.runs.finish(run_id, "interrupted", None, 1.0)
    recorder.store.runs.claim(run_id)
    with pytest.raises(StoreError, match=str(run_id)):
        recorder.store.runs.claim(run_id)


def test_a_complete_run_keeps_one_checkpoint(recorder: Any) -> None:
    run_id = trained_twice(recorder)
    recorder.store.runs.finish(run_id, "complete", None, 1.0)
    assert [file.name for file in recorder.store.folder("checkpoints").iterdir()] == [f"run-{run_id:06d}.npz"]


def test_two_databases_in_one_folder_share_no_files(tmp_path: Path) -> None:
    stores = [Store(tmp_path / name) for name in ("klcli.db", "other.db")]
    assert stores[0].folder("checkpoints") == tmp_path / "checkpoints"
    assert stores[1].folder("checkpoints") != stores[0].folder("checkpoints")
    assert stores[1].folder("checkpoints").parent == tmp_path
    for store in stores:
        store.close()


def test_a_database_that_is_not_there_is_not_made_by_looking_for_it(tmp_path: Path) -> None:
    path = tmp_path / "results" / "klcli.db"
    with pytest.raises(StoreError) as error:
        Store.existing(path)
    assert str(path) in one_line(error)
    assert not path.parent.exists()


# --- processes


def test_only_running_runs_are_marked(recorder: Any) -> None:
    run_id = recorder.begin()
    recorder.store.runs.finish(run_id, "complete", None, 1.0)
    execute(recorder.path, "UPDATE runs SET owner = 'a process that has ended' WHERE id = ?", run_id)
    opened = Store(recorder.path)
    assert opened.runs.get(run_id).state == "complete"
    opened.close()


def test_a_run_that_was_marked_keeps_its_evaluations_and_says_why(recorder: Any) -> None:
    run_id = recorder.begin()
    recorder.store.runs.record_epochs(run_id, EPOCH)
    execute(recorder.path, "UPDATE runs SET owner = 'a process that has ended' WHERE id = ?", run_id)
    opened = Store(recorder.path)
    run = opened.runs.get(run_id)
    assert run.state == "interrupted"
    assert run.error
    assert run.epochs_done == 1.0
    assert len(opened.runs.epochs(run_id)) == 1
    opened.close()


def test_a_process_that_lost_its_run_leaves_the_checkpoint_of_the_new_one(recorder: Any) -> None:
    run_id = trained_twice(recorder)
    path = recorder.store.folder("checkpoints") / f"run-{run_id:06d}.npz"
    before = path.read_bytes()
    execute(recorder.path, "UPDATE runs SET owner = 'another' WHERE id = ?", run_id)
    lost = replace(EPOCH, epoch=9.0, step=9 * EPOCH.step)
    with pytest.raises(StoreError, match="taken over"):
        recorder.store.runs.record_epochs(run_id, lost, result=result(TrainConfig(hidden=(4,)), [lost]))
    assert path.read_bytes() == before


def test_a_training_whose_database_was_moved_leaves_the_checkpoints_of_another_one_there_alone(recorder: Any) -> None:
    run = recorder.begin()
    first = recorder.path.parent
    first.rename(first.with_name("moved"))
    first.mkdir()
    (first / "checkpoints").mkdir()
    other = first / f"checkpoints/run-{run:06d}.npz"
    other.write_bytes(b"the network of another database")
    with pytest.raises(StoreError, match="was moved or deleted while it was open"):
        recorder.store.runs.record_epochs(run, result=result(TrainConfig(), []))
    assert [*other.parent.iterdir()] == [other]
    assert other.read_bytes() == b"the network of another database"
