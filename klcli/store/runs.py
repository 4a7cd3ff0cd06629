"""Runs: each is recorded before it starts, with its epochs and checkpoints, and ends in a state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sqlite_utils import Database as Tables

from klcli.errors import ConfigError, StoreError
from klcli.settings.columns import columns as settings_columns
from klcli.settings.train_config import TrainConfig
from klcli.store import checkpoints
from klcli.store.connection import Database, now
from klcli.store.process import ProcessIdentity
from klcli.store.records import Epoch, ImageSet, Run

if TYPE_CHECKING:  # a report must not import the training code
    from klcli.data.dataset import Dataset
    from klcli.evaluation.metrics import Metrics, Score
    from klcli.training.budget import Budget
    from klcli.training.environment import Environment
    from klcli.training.result import EpochMetrics, Snapshot, TrainResult


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Conditions on runs; None is no condition."""

    dataset_sha256: str | None = None
    split: str | None = None  # JSON, as in the column
    state: str | None = None
    batch_norm: bool | None = None
    since: str | None = None  # UTC, ISO 8601, as in the column
    tag: str | None = None
    where: str | None = None  # an SQL condition of the user on the columns of runs

    def conditions(self) -> tuple[str, list[Any]]:
        """Return the SQL after WHERE and its parameters."""
        terms = {
            "dataset_sha256 = ?": self.dataset_sha256,
            "split = ?": self.split,
            "state = ?": self.state,
            "batch_norm = ?": self.batch_norm,
            "started_at >= ?": self.since,
            "instr(' ' || tags || ' ', ' ' || ? || ' ') > 0": self.tag,
        }
        given = {term: value for term, value in terms.items() if value is not None}
        own = [f"({self.where}\n)"] if self.where is not None else []  # the new line ends a comment in the condition
        return " AND ".join([*given, *own]) or "1", list(given.values())


@dataclass(frozen=True)
class Order:
    """A column of runs to sort by; runs without a value come last."""

    column: str
    descending: bool

    def sql(self) -> str:
        # In descending order, SQLite already puts NULL last and can use an index.
        return f'"{self.column}" ' + ("DESC" if self.descending else "ASC NULLS LAST")


BEST_FIRST = Order("validation_accuracy", descending=True)


class Runs:
    """The runs of a database. Every method that writes is one transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def begin(
        self, config: TrainConfig, budget: Budget, dataset: Dataset, environment: Environment, command: str
    ) -> int:
        """Record a run before it starts and return its number."""
        with self._db.write() as db:
            return cast(int, db.table("runs").insert(run_row(config, budget, dataset, environment, command)).last_pk)

    def record_epoch(self, run_id: int, metrics: EpochMetrics, result: TrainResult | None = None) -> None:
        """Commit the metrics of one evaluation and its checkpoint; a repetition has no effect.

        The file is written before the commit: a crash at any point leaves a checkpoint that the database names.
        """
        pointer = {} if result is None else self.write_checkpoint(run_id, result)
        older = "UPDATE runs SET previous_sha256 = checkpoint_sha256 WHERE id = ? AND checkpoint_sha256 <> ?"
        with self._db.write() as db:
            upsert_epoch(db, run_id, metrics)
            if pointer:
                db.execute(older, [run_id, pointer["checkpoint_sha256"]])
                db.table("runs").update(run_id, pointer)

    def finish(
        self, run_id: int, state: str, result: TrainResult | None, seconds: float, error: str | None = None
    ) -> None:
        """End a run in `state`, with the metrics of its last evaluation and of the test split."""
        with self._db.write() as db:
            db.table("runs").update(run_id, ending_row(state, result, seconds, error))
        if state == "complete":
            with suppress(OSError):  # harmless if it remains
                checkpoints.previous(self._file_of(run_id)).unlink(missing_ok=True)

    def claim(self, run_id: int) -> None:
        """Assign an ended run to this process. Raises StoreError if another process was faster."""
        with self._db.write() as db:
            if not self.where("id = ? AND state IN ('interrupted', 'failed')", [run_id]):
                raise StoreError(f"{self._db.path}: run {run_id} has just been taken over by another process")
            process = asdict(ProcessIdentity.current())
            db.table("runs").update(run_id, process | {"state": "running", "finished_at": None, "error": None})

    def mark_dead(self) -> None:
        """Mark running runs of dead processes as interrupted, and studies without a running run."""
        running = self._db.read("SELECT id, host, pid, process_started_at FROM runs WHERE state = 'running'")
        gone = [id for id, *owner in map(dict.values, running) if ProcessIdentity(*owner).is_gone()]
        if not gone:
            return
        with self._db.write() as db:
            interrupted = "UPDATE runs SET state = 'interrupted', error = 'its process ended unexpectedly'"
            still_running = "state = 'running' AND id IN (SELECT value FROM json_each(?))"
            db.execute(f"{interrupted} WHERE {still_running}", [json.dumps(gone)])
            without = "NOT EXISTS (SELECT 1 FROM runs WHERE study_id = studies.id AND state = 'running')"
            db.execute(f"UPDATE studies SET state = 'interrupted' WHERE state = 'running' AND {without}")

    def _file_of(self, run_id: int) -> Path:
        return self._db.folder("checkpoints") / f"run-{run_id:06d}.npz"

    def write_checkpoint(self, run_id: int, result: TrainResult) -> dict[str, str]:
        """Write the checkpoint and return its columns; the path is relative, so that the folder can be moved."""
        path = self._file_of(run_id)
        sha256 = checkpoints.save(path, result.arrays(), result.config.to_json(), result.step)
        return {"checkpoint": str(path.relative_to(self._db.path.parent)), "checkpoint_sha256": sha256}

    def snapshot(self, run: Run) -> tuple[Snapshot | None, str]:
        """Return the checkpoint from which a claimed run can continue, or None, and a remark if it is not the latest.

        The chosen file becomes the latest; otherwise the next write would replace it by an unknown or damaged one.
        """
        from klcli.training.result import Snapshot

        if run.checkpoint is None:
            return None, ""
        path, failures = self._db.path.parent / run.checkpoint, []
        for sha256 in (run.checkpoint_sha256, run.previous_sha256):
            for file in (path, checkpoints.previous(path)):
                try:
                    found = checkpoints.load(file, run.id, sha256)
                except StoreError as error:
                    failures.append(str(error))
                    continue
                with checkpoints.writing(path):
                    file.replace(path)
                remark = "" if sha256 == run.checkpoint_sha256 else f"{failures[0]}: the previous checkpoint is used"
                return Snapshot(found.step, found.state), remark
        return None, f"{failures[0]}: run {run.id} begins again"

    def checkpoint(self, run: Run) -> checkpoints.Checkpoint:
        """Return the checkpoint of a run. Raises StoreError if it is missing, damaged or of another run."""
        if run.checkpoint is None:
            cure = "choose a complete one, `klcli report --list` shows all"
            raise StoreError(f"run {run.id} is {run.state} and has no checkpoint: {cure}")
        path = self._db.path.parent / run.checkpoint
        try:
            return checkpoints.load(path, run.id, run.checkpoint_sha256)
        except StoreError as error:
            cure = f"restore it from a copy, or train again as `klcli report --run {run.id}` shows"
            raise StoreError(f"{error}: {cure}") from error

    def get(self, run_id: int) -> Run:
        for run in self.where("id = ?", [run_id]):
            return run
        cure = "`klcli report --best 10` shows some that are there"
        raise StoreError(f"{self._db.path}: there is no run {run_id}, {cure}")

    def epochs(self, run_id: int) -> list[Epoch]:
        return self._db.records(Epoch, "epochs WHERE run_id = ? ORDER BY epoch", [run_id])

    def metrics(self, run_id: int) -> list[EpochMetrics]:
        """Return the evaluations of one run during training, in order."""
        from klcli.evaluation.metrics import Metrics
        from klcli.training.result import EpochMetrics

        found = []
        for one in self.epochs(run_id):
            train = Metrics(one.train_loss, one.train_cost, one.train_accuracy)
            validation = Metrics(one.validation_loss, one.validation_cost, one.validation_accuracy)
            found.append(EpochMetrics(one.epoch, one.step, one.learning_rate, train, validation, one.seconds))
        return found

    def latest_complete(self) -> Run | None:
        return next(iter(self.where("state = 'complete' ORDER BY id DESC LIMIT 1")), None)

    def latest_unfinished(self) -> Run | None:
        """Return the newest run outside studies that can be resumed."""
        unfinished = "state IN ('interrupted', 'failed') AND study_id IS NULL"
        return next(iter(self.where(f"{unfinished} ORDER BY id DESC LIMIT 1")), None)

    def query(self, chosen: RunFilter, order: Order, limit: int | None = None) -> list[Run]:
        """Return the runs of a filter in order, ties by number. Raises ConfigError for an unknown column."""
        known = self.columns()
        if order.column not in known:
            raise ConfigError(f"--sort {order.column}: this is not a column of runs, there are {', '.join(known)}")
        condition, parameters = chosen.conditions()
        values = [*parameters, -1 if limit is None else limit]
        with self._db.reading_only(chosen.where):
            return self.where(f"{condition} ORDER BY {order.sql()}, id LIMIT ?", values)

    def image_sets(self, chosen: RunFilter) -> list[ImageSet]:
        """Return the sets of runs that can be ranked together, the most recent images and most common split first."""
        condition, parameters = chosen.conditions()
        counted = "SELECT dataset, dataset_sha256, split, count(*) AS runs, max(id) AS latest FROM runs"
        order = "max(latest) OVER (PARTITION BY dataset_sha256) DESC, runs DESC, latest DESC"
        source = f"({counted} WHERE {condition} GROUP BY dataset_sha256, split) ORDER BY {order}"
        with self._db.reading_only(chosen.where):
            return self._db.records(ImageSet, source, parameters)

    def count_by_state(self) -> dict[str, int]:
        counts = self._db.read("SELECT state, count(*) AS n FROM runs GROUP BY state")
        return {one["state"]: one["n"] for one in counts}

    def columns(self) -> list[str]:
        """Return the names of the columns of runs, including generated columns."""
        return [row["name"] for row in self._db.read("PRAGMA table_xinfo(runs)")]

    def where(self, condition: str, parameters: Sequence[Any] = ()) -> list[Run]:
        """Return the runs for an SQL condition written in this module."""
        return self._db.records(Run, f"runs WHERE {condition}", parameters)


def upsert_epoch(db: Tables, run_id: int, metrics: EpochMetrics) -> None:
    """Write an evaluation and the progress of its run, inside a transaction."""
    row = {name: getattr(metrics, name) for name in ("epoch", "step", "learning_rate", "seconds")}
    row |= {"run_id": run_id, **prefixed("train", metrics.train), **prefixed("validation", metrics.validation)}
    db.table("epochs").upsert(row, pk=("run_id", "epoch"))
    best = "best_validation_accuracy = max(coalesce(best_validation_accuracy, 0), :validation_accuracy)"
    db.execute(f"UPDATE runs SET epochs_done = max(epochs_done, :epoch), {best} WHERE id = :run_id", row)


def prefixed(split: str, metrics: Metrics | Score | None) -> dict[str, float]:
    """Return metrics as columns, such as `test_loss` for the split `test`; empty if they were not measured."""
    return {f"{split}_{name}": value for name, value in asdict(metrics).items()} if metrics else {}


def ending_row(state: str, result: TrainResult | None, seconds: float, error: str | None) -> dict[str, Any]:
    """Return the columns of a run that has ended."""
    row: dict[str, Any] = {"state": state, "finished_at": now(), "seconds": seconds, "error": error}
    for last in result.epochs[-1:] if result else []:
        row |= prefixed("train", last.train) | prefixed("validation", last.validation)
    if result and (ensemble := result.ensemble):
        row |= {"snapshots": ensemble.networks}
        row |= prefixed("ensemble_validation", ensemble.validation) | prefixed("ensemble_test", ensemble.test)
    return row | prefixed("test", result.test if result else None)


def end_of(result: TrainResult) -> tuple[str, str | None]:
    """Return the state in which a training ended, and the error of one that diverged."""
    if result.diverged_at is None:
        return "complete", None
    return "diverged", f"the cost was not finite after update {result.diverged_at}"


# The columns of the first schema. The columns of all later settings are generated from the config.
_STORED_SETTINGS = {
    *("hidden", "batch_norm", "bn_position", "initializer", "sigma", "lambda", "optimizer", "schedule"),
    *("eta_min", "eta_max", "batch_size", "seed", "dtype"),
}


def run_row(
    config: TrainConfig, budget: Budget, dataset: Dataset, environment: Environment, command: str
) -> dict[str, Any]:
    """Return the columns of a run that this process is about to train."""
    images = {"dataset": dataset.name, "dataset_sha256": dataset.sha256, "dataset_source": dataset.source}
    epochs = budget.epoch_at(budget.total_updates)
    settings = {name: value for name, value in settings_columns(config).items() if name in _STORED_SETTINGS}
    settings |= {"step_size": budget.step_size, "cycles": budget.cycles, "epochs": epochs, "config": config.to_json()}
    return fresh_columns(environment) | {"command": command} | images | settings


def fresh_columns(environment: Environment) -> dict[str, Any]:
    """Return the columns of a run that starts now, in this process."""
    about = {"state": "running", "started_at": now(), "threads": environment.threads}
    return asdict(ProcessIdentity.current()) | about | {"versions": json.dumps(environment.versions)}
