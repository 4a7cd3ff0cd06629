"""Runs: each is recorded before it starts, with its epochs and checkpoints, and ends in a state."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from difflib import get_close_matches
from itertools import product
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlite_utils import Database as Tables

from klcli.errors import ConfigError, StoreError
from klcli.files import replace
from klcli.settings.columns import columns as settings_columns
from klcli.settings.run_command import in_database
from klcli.settings.train_config import TrainConfig
from klcli.store import checkpoints
from klcli.store.connection import Database, measured
from klcli.store.locks import Locks
from klcli.store.records import AS_CONFIGURED, ONE_SPLIT, Epoch, ImageSet, Order, Run, RunFilter, RunResult, repeated_of
from klcli.text import now

if TYPE_CHECKING:  # a report must not import the training code
    from klcli.data.dataset import Dataset
    from klcli.evaluation.metrics import Metrics, Score
    from klcli.training.budget import Budget
    from klcli.training.environment import Environment
    from klcli.training.result import EpochMetrics, Snapshot, TrainResult

UNFINISHED = ("interrupted", "failed")  # states of runs that can continue, also as a list in SQL
RUNNING = {"state": "running", "finished_at": None, "error": None}  # columns of a run that continues
OF_LAST = [one.name for one in fields(Epoch) if one.name.startswith(("train", "validation"))]  # also columns of a run
UNEXPECTED = "its process ended unexpectedly"


class Runs:
    """The runs of a database. Every method that writes is one transaction."""

    def __init__(self, db: Database, locks: Locks) -> None:
        self._db, self._locks = db, locks
        self.owners: dict[int, str] = {}  # the locks of the runs that this process trains, alone or in a study

    def begin(
        self, config: TrainConfig, budget: Budget, dataset: Dataset, environment: Environment, command: str
    ) -> int:
        with self.owning() as (db, owner):
            return self.insert(db, run_row(config, budget, dataset, environment, command) | {"owner": owner})

    @contextmanager
    def owning(self) -> Iterator[tuple[Tables, str]]:
        """Yield a transaction with the owner of a new lock: this process trains the runs that get this owner in it."""
        owner = self._locks.take()
        try:
            with self._locks.numbering(), self._db.write() as db:
                yield db, owner
            runs = self._db.read("SELECT id FROM runs WHERE owner = ?", [owner])
        except BaseException:
            self._locks.release(owner)
            raise
        self.owners |= {row["id"]: owner for row in runs}

    def record_epochs(self, run_id: int, *epochs: EpochMetrics, result: TrainResult | None = None) -> None:
        """Commit evaluations with the checkpoint of the last one, whose file is written first, should a crash come."""
        pointer = self.write_checkpoint(run_id, result) if result else {}
        older = "UPDATE runs SET previous_sha256 = checkpoint_sha256 WHERE id = ? AND checkpoint_sha256 <> ?"
        with self._db.write() as db:
            db.execute(older, [run_id, pointer.get("checkpoint_sha256")])
            self.update(db, run_id, pointer, epochs)

    def update(self, db: Tables, run_id: int, row: dict[str, Any], epochs: Iterable[EpochMetrics] = ()) -> None:
        """Write columns and evaluations of a run of this process, and its progress, inside a transaction."""
        self.require_owner(run_id)
        for one in epochs:
            epoch = {name: getattr(one, name) for name in ("epoch", "step", "learning_rate", "seconds")}
            epoch |= {"run_id": run_id, **prefixed("train", one.train), **prefixed("validation", one.validation)}
            db.table("epochs").upsert(epoch, pk=("run_id", "epoch"))
        db.table("runs").update(run_id, row)
        self.rewind(db, run_id, inf)

    def finish(
        self, run_id: int, state: str, result: TrainResult | None, seconds: float, error: str | None = None
    ) -> None:
        # Also released if this fails: the next opening of the database then marks the run.
        with self._locks.releasing(self.owners.get(run_id)), self._db.write() as db:
            self.update(db, run_id, ending_row(state, result, seconds, error))
        if state == "complete":
            self.remove_previous(run_id)

    def remove_previous(self, run_id: int) -> None:
        """Remove the checkpoint before the last one of a complete run."""
        with suppress(OSError):  # harmless if it remains
            checkpoints.previous(self._own_file(run_id)).unlink(missing_ok=True)

    def claim(self, run_id: int) -> None:
        with self.owning() as (db, owner):
            run = self.get(run_id)
            if run.state not in (*UNFINISHED, "running") or self.is_alive(run):
                raise StoreError(f"{self._db.path}: run {run_id} has just been taken over by another process")
            db.table("runs").update(run_id, this_process() | RUNNING | {"owner": owner})

    def is_alive(self, run: Run) -> bool | None:
        """Whether a process trains the run now; None if unknown, without locks in the file system."""
        return run.state == "running" and self._locks.is_held(run.owner)

    def training_words(self, run: Run) -> str:
        unknown = "may be training it, this file system has no locks to tell"
        return f"process {run.pid} on {run.host} {unknown if self.is_alive(run) is None else 'is training it'}"

    def record_versions(self, run_id: int, versions: dict[str, Any], step: int) -> None:
        with self._db.write() as db:
            self.rewind(db, run_id, step)
            db.table("runs").update(run_id, {"versions": json.dumps(versions)})

    def rewind(self, db: Tables, run_id: int, step: float = 0) -> None:
        """Keep evaluations until `step` updates (0: the seed gives that network again), and sum them up in the row."""
        db.execute("DELETE FROM epochs WHERE run_id = ? AND step > ?", [run_id, step])
        of_run, last = "FROM epochs WHERE run_id = runs.id", ", ".join(OF_LAST)
        every = f"SELECT coalesce(max(epoch), 0), max(validation_accuracy) {of_run}"
        # A network without updates has no results, unless none was planned.
        latest = f"SELECT {last} {of_run} AND (step > 0 OR runs.epochs = 0) ORDER BY epoch DESC LIMIT 1"
        both = f"(epochs_done, best_validation_accuracy) = ({every}), ({last}) = ({latest})"
        db.execute(f"UPDATE runs SET {both} WHERE id = ?", [run_id])

    def mark_dead(self) -> None:
        """Mark running runs whose lock is free as interrupted, and studies without a running run."""
        running = self._db.read("SELECT DISTINCT owner FROM runs WHERE state = 'running'")
        dead = [row["owner"] or "" for row in running if self._locks.is_held(row["owner"]) is False]
        left = "state = 'running' AND NOT EXISTS (SELECT 1 FROM runs WHERE study_id = studies.id AND state = 'running')"
        if dead or self._db.read(f"SELECT id FROM studies WHERE {left} LIMIT 1"):
            with self._db.write() as db:
                interrupted = f"UPDATE runs SET state = 'interrupted', error = '{UNEXPECTED}'"
                still_running = "state = 'running' AND coalesce(owner, '') IN (SELECT value FROM json_each(?))"
                db.execute(f"{interrupted} WHERE {still_running}", [json.dumps(dead)])
                db.execute(f"UPDATE studies SET state = 'interrupted' WHERE {left}")
        self._locks.remove_dead()

    def require_owner(self, run_id: int) -> None:
        """Raise StoreError if another process has taken over a run of this one, which must then leave it alone."""
        owner = self.owners.get(run_id)
        if owner and self._db.read("SELECT 1 FROM runs WHERE id = ? AND owner IS NOT ?", [run_id, owner]):
            raise StoreError(f"{self._db.path}: run {run_id} has been taken over by another process, this one ends")

    def insert(self, db: Tables, row: dict[str, Any]) -> int:
        """Insert a run under a new number, which is returned, inside a transaction."""
        run_id = checkpoints.new_number(db, self._db)
        db.table("runs").insert(row | {"id": run_id, "identity": secrets.token_hex(16)})
        return run_id

    def _own_file(self, run_id: int) -> Path:
        return checkpoints.file_of(self._db.folder("checkpoints"), run_id)

    def file_of(self, run: Run) -> Path:
        """The path of a checkpoint. Raises StoreError if the row of a foreign database names any other file."""
        own, named, sha256 = self._own_file(run.id), run.checkpoint or "", run.checkpoint_sha256
        text, _, name = named.rpartition("/")
        if name != own.name or text not in (folders := checkpoints.folders(self._db, text)):
            where = f"run {run.id} names the file {run.checkpoint!r}, its checkpoint is {own}"
            raise StoreError(f"{self._db.path}: {where}: restore a copy of the database")
        checkpoints.require_no_link(folder := folders[text])
        if named == checkpoints.column_of(own) and any(map(os.path.lexists, (own, checkpoints.previous(own)))):
            return own
        # The rows of a renamed database name a folder that can be another's by now: all are searched for the checksum.
        places = dict.fromkeys((own.parent, folder, *folders.values()))
        found = (one / name for one in places if not one.is_symlink() and checkpoints.named(one / name, sha256, run))
        return next(found, own if os.path.lexists(own) else folder / name)

    def write_checkpoint(self, run_id: int, result: TrainResult) -> dict[str, str]:
        """Write the checkpoint and return its columns."""
        self._db.require_place()
        self.require_owner(run_id)  # before it replaces the file of another process
        path, run = self._own_file(run_id), self.get(run_id)
        checkpoints.require_no_link(path.parent)
        origin = {k: getattr(run, k) for k in checkpoints.ORIGIN} | {checkpoints.VERSIONS: json.dumps(run.versions)}
        sha256 = checkpoints.save(path, result.arrays(), result.config.to_json(), result.step, result.inputs, origin)
        return {"checkpoint": checkpoints.column_of(path), "checkpoint_sha256": sha256}

    def snapshot(self, run: Run) -> tuple[Snapshot | None, str]:
        """Return the checkpoint from which a claimed run continues, or None, and a remark if it is not the latest."""
        from klcli.training.result import Snapshot

        if run.checkpoint is None:
            return None, ""
        path, failures = self.file_of(run), []
        for sha256, file in product((run.checkpoint_sha256, run.previous_sha256), (path, checkpoints.previous(path))):
            try:
                found = checkpoints.load(file, run, sha256)
            except checkpoints.Unreadable:
                raise
            except StoreError as error:
                failures.append(str(error))
                continue
            if path == self._own_file(run.id):  # not the file of the original of this copy
                with checkpoints.writing(path):  # else the next write would keep an unknown or damaged one beside it
                    replace(file, path)
            remark = "" if sha256 == run.checkpoint_sha256 else f"{failures[0]}: the previous checkpoint is used"
            epochs = tuple(metrics for metrics in self.metrics(run.id) if metrics.step <= found.step)
            return Snapshot(found.step, found.state, epochs), remark
        return None, f"{failures[0]}: run {run.id} begins again"

    def checkpoint(self, run: Run) -> checkpoints.Checkpoint:
        if run.checkpoint is None:
            raise StoreError(f"run {run.id} is {run.state} and has no checkpoint: choose a complete one")
        path = self.file_of(run)
        try:
            return checkpoints.load(path, run, run.checkpoint_sha256)
        except checkpoints.Unreadable:
            raise
        except StoreError as error:
            if found := checkpoints.named(path, self.get(run.id).checkpoint_sha256, run):  # it has gone on since then
                return found
            restored = "restore it from a copy" if path.parent.exists() else "move its folder beside the database"
            shown = in_database(f"klcli report --run {run.id}", self._db.path)
            raise StoreError(f"{error}: {restored}, or train again as `{shown}` shows") from error

    def get(self, run_id: int) -> Run:
        for run in self.where("id = ?", [run_id]):
            return run
        raise self.missing(run_id)

    def missing(self, which: object) -> StoreError:
        first, every = (in_database(f"klcli {words}", self._db.path) for words in ("train", "report --list"))
        cure = f"`{every}` shows all that are there" if self.count_by_state() else f"begin with `{first}`"
        return StoreError(f"{self._db.path}: there is no run {which}, {cure}")

    def epochs(self, run_id: int) -> list[Epoch]:
        return [*self._db.records(Epoch, "epochs WHERE run_id = ? ORDER BY epoch", [run_id])]

    def metrics(self, run_id: int) -> list[EpochMetrics]:
        from klcli.evaluation.metrics import Metrics
        from klcli.training.result import EpochMetrics

        return [
            EpochMetrics(e.epoch, e.step, e.learning_rate, Metrics(e.train_loss, e.train_cost, e.train_accuracy),
                Metrics(e.validation_loss, e.validation_cost, e.validation_accuracy), e.seconds)
            for e in self.epochs(run_id)
        ]  # fmt: skip

    def query(self, chosen: RunFilter, order: Order, limit: int | None = None) -> list[Run]:
        return [*self.each(chosen, order, limit)]

    def each(self, chosen: RunFilter, order: Order, limit: int | None = None) -> Iterator[Run]:
        """Yield the runs of `query` one by one; until the last one, no other process can write."""
        self.require_column(order.column)
        condition, parameters = chosen.conditions()
        source = f"runs WHERE {condition} ORDER BY {order.sql()}, id LIMIT ?"
        with self._db.reading_only(chosen.where):
            yield from self._db.records(Run, source, [*parameters, -1 if limit is None else limit])

    def require_column(self, name: str) -> None:
        """Raise ConfigError, which names the most similar column, if runs have no such column."""
        if name not in (known := self.columns()):
            nearest = "".join(f", the nearest is {one}" for one in get_close_matches(name, known, n=1))
            raise ConfigError(f"--sort {name}: this is not a column of runs{nearest}; there are {', '.join(known)}")

    def results(self, chosen: RunFilter) -> tuple[list[RunResult], list[str]]:
        condition, parameters = chosen.conditions()
        own = ("id", "state", "dataset", "step_size", "cycles", "epochs", "validation_accuracy", "test_accuracy")
        rows = f"SELECT config, {', '.join(own)} FROM runs WHERE {condition} ORDER BY id"
        found, unreadable = [], []
        with self._db.reading_only(chosen.where):
            for config, *values in self._db.each(rows, parameters):
                try:
                    repeated, seed, order_seed = repeated_of(config, f"run {values[0]}")
                except StoreError as error:
                    unreadable.append(str(error))
                    continue
                stored = dict(zip(own, map(measured, values), strict=True))
                found.append(RunResult(repeated=repeated, seed=seed, order_seed=order_seed, **stored))
        return found, unreadable

    def count(self, chosen: RunFilter) -> int:
        condition, parameters = chosen.conditions()
        with self._db.reading_only(chosen.where):
            return sum(n for [n] in self._db.each(f"SELECT count(*) FROM runs WHERE {condition}", parameters))

    def image_sets(self, chosen: RunFilter) -> list[ImageSet]:
        """Return what can be ranked together: synthetic images last, trials late, recent ones first, the common split.

        While the newest run is a merged one, the images of most come first. Range tests alone come last of all.
        """
        condition, parameters = chosen.conditions()
        counted = "SELECT dataset, dataset_sha256, split, count(*) AS runs, max(id) AS latest, "
        counted += f"count(*) FILTER (WHERE {AS_CONFIGURED}) AS ranked FROM runs WHERE {condition} "
        together = "SELECT dataset, dataset_sha256, split, json_group_array(split) AS splits, sum(runs) AS runs, "
        together += f"max(latest) AS latest, sum(ranked) AS ranked FROM ({counted} GROUP BY dataset_sha256, split) "
        together += f"GROUP BY dataset_sha256, {ONE_SPLIT}"
        # A trial on few or synthetic images must not hide the results. A split of an unknown form has all images.
        is_trial = "iif(json_valid(split), json_extract(split, '$.subset', '$.train_batches[0]') <> '[null,null]', 0)"
        images = f"WINDOW images AS (PARTITION BY {is_trial}, dataset_sha256)"
        is_merged = "(SELECT origin FROM runs ORDER BY id DESC LIMIT 1) IS NOT NULL"
        order = f"sum(ranked) OVER images = 0, dataset = 'synthetic', {is_trial}, CASE WHEN {is_merged} THEN "
        order += "sum(ranked) OVER images END DESC, max(latest) OVER images DESC, ranked DESC, runs DESC, latest DESC"
        with self._db.reading_only(chosen.where):
            return [*self._db.records(ImageSet, f"({together}) {images} ORDER BY {order}", parameters)]

    def count_by_state(self) -> dict[str, int]:
        return dict(map(tuple, self._db.each("SELECT state, count(*) FROM runs GROUP BY state")))

    def columns(self) -> list[str]:
        return [row["name"] for row in self._db.read("PRAGMA table_xinfo(runs)")]

    def where(self, condition: str, parameters: Sequence[Any] = ()) -> list[Run]:
        """Return the runs for an SQL condition, which must not come from a user."""
        return [*self._db.records(Run, f"runs WHERE {condition}", parameters)]


def prefixed(split: str, metrics: Metrics | Score | None) -> dict[str, float]:
    """Return metrics as columns, such as `test_loss` for the split `test`; empty if they were not measured."""
    return {f"{split}_{name}": value for name, value in asdict(metrics).items()} if metrics else {}


def ending_row(state: str, result: TrainResult | None, seconds: float, error: str | None) -> dict[str, Any]:
    """Return the columns of a run that has ended."""
    row: dict[str, Any] = {"state": state, "finished_at": now(), "seconds": seconds, "error": error}
    if result and (ensemble := result.ensemble):
        row |= {"snapshots": ensemble.networks}
        row |= prefixed("ensemble_validation", ensemble.validation) | prefixed("ensemble_test", ensemble.test)
    return row | prefixed("test", result.test if result else None)


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
    started = this_process() | {"state": "running", "started_at": now(), "threads": environment.threads}
    return started | {"versions": json.dumps(environment.versions), "command": command} | images | settings


def this_process() -> dict[str, Any]:
    """Return the host and the process of a run, for a person; whether the run is alive is decided by its lock."""
    return {"host": socket.gethostname(), "pid": os.getpid()}
