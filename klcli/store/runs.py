"""RunStore: every run with its epochs, in one SQLite database."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import cast

from klcli.data.dataset import Dataset
from klcli.errors import StoreError
from klcli.evaluation.metrics import Metrics
from klcli.settings.train_config import TrainConfig
from klcli.store import checkpoints
from klcli.store.database import Database, Row, now
from klcli.store.process import ProcessIdentity
from klcli.training.budget import Timetable
from klcli.training.environment import Environment
from klcli.training.result import EpochMetrics, Snapshot, TrainResult


class RunStore(Database):
    """The runs: recorded before they start, ended in a state."""

    def begin(
        self, config: TrainConfig, times: Timetable, dataset: Dataset, environment: Environment, command: str
    ) -> int:
        """Record a run before it starts and return its number."""
        with self._write():
            return self._insert_run(run_row(config, times, dataset, environment, command))

    def record_epoch(self, run_id: int, metrics: EpochMetrics, result: TrainResult | None = None) -> None:
        """Commit the metrics of one evaluation, with the network of that moment; repeating it changes nothing.

        The checkpoint is in its place before metrics and pointer are committed in one transaction: a
        crash at any point leaves one that the database knows.
        """
        columns = {} if result is None else self._write_checkpoint(run_id, result)
        with self._write():
            self._upsert_epoch(run_id, metrics)
            if columns:
                self._db.execute(
                    "UPDATE runs SET previous_sha256 = checkpoint_sha256 WHERE id = ? AND checkpoint_sha256 <> ?",
                    [run_id, columns["checkpoint_sha256"]],
                )
                self._db.table("runs").update(run_id, columns)

    def snapshot(self, run: Row) -> tuple[Snapshot | None, str]:
        """Return what a run can go on from, and a remark where it is not its latest checkpoint.

        Of the two files on disk, one that the database knows by its checksum is used, the latest
        first. None where the run ended before its first checkpoint, or where both are damaged. What is
        used takes the first place: the file there, unknown or damaged, must not push it out with the
        next write. Call it for a run that this process has claimed.
        """
        if run["checkpoint"] is None:
            return None, ""
        path = self.path.parent / run["checkpoint"]
        loaded: dict[str, tuple[Path, checkpoints.Checkpoint]] = {}
        failures: list[str] = []
        for file in (path, checkpoints.previous(path)):
            try:
                checkpoint = checkpoints.load(file)
                loaded.setdefault(checkpoint.sha256, (file, checkpoint))
            except StoreError as error:
                failures.append(str(error))
        for sha256, remark in ((run["checkpoint_sha256"], ""), (run["previous_sha256"], "the one before is used")):
            if sha256 in loaded:
                file, found = loaded[sha256]
                checkpoints.put(file, path)
                return Snapshot(found.step, found.state), f"{failures[0]}: {remark}" if remark and failures else remark
        return None, f"{failures[0] if failures else path}: run {run['id']} begins again"

    def checkpoint(self, run: Row) -> checkpoints.Checkpoint:
        """Return the checkpoint of a run. Raises StoreError where it is missing, damaged or another than it was."""
        if run["checkpoint"] is None:
            raise StoreError(
                f"run {run['id']} is {run['state']} and has no checkpoint: choose a complete one, "
                "`klcli report --list` shows all"
            )
        path = self.path.parent / run["checkpoint"]
        cure = f"restore it from a copy, or train again as `klcli report --run {run['id']}` shows"
        try:
            found = checkpoints.load(path)
        except StoreError as error:
            raise StoreError(f"{error}: {cure}") from error
        if found.sha256 != run["checkpoint_sha256"]:
            raise StoreError(f"{path}: this checkpoint is not the one of run {run['id']}: {cure}")
        return found

    def claim(self, run_id: int) -> None:
        """Take a run that has ended over to this process. Raises StoreError where another one was faster."""
        process = ProcessIdentity.current()
        with self._write():
            claimed = self._db.execute(
                "UPDATE runs SET state = 'running', host = ?, pid = ?, process_started_at = ?, finished_at = NULL,"
                " error = NULL WHERE id = ? AND state IN ('interrupted', 'failed')",
                [process.host, process.pid, process.started_at, run_id],
            ).rowcount
        if not claimed:
            raise StoreError(f"{self.path}: run {run_id} has just been taken over by another process")

    def latest_unfinished(self) -> Row | None:
        """Return the newest run outside studies that can go on."""
        rows = self._read(
            "SELECT * FROM runs WHERE state IN ('interrupted', 'failed') AND study_id IS NULL ORDER BY id DESC LIMIT 1"
        )
        return rows[0] if rows else None

    def metrics(self, run_id: int) -> list[EpochMetrics]:
        """Return the evaluations of one run in order, as training made them."""
        return [
            EpochMetrics(
                row["epoch"],
                row["step"],
                row["learning_rate"],
                _of(row, "train"),
                _of(row, "validation"),
                row["seconds"],
            )
            for row in self.epochs(run_id)
        ]

    def finish(
        self, run_id: int, state: str, result: TrainResult | None, seconds: float, error: str | None = None
    ) -> None:
        """End a run in `state`, with the metrics of its last evaluation and of the test split."""
        with self._write():
            self._db.table("runs").update(run_id, ending_row(state, result, seconds, error))
        if state == "complete":
            with suppress(OSError):  # it is in nobody's way
                checkpoints.previous(self.folder("checkpoints") / f"run-{run_id:06d}.npz").unlink(missing_ok=True)

    def _insert_run(self, row: Row) -> int:
        return cast(int, self._db.table("runs").insert(row).last_pk)

    def _upsert_epoch(self, run_id: int, metrics: EpochMetrics) -> None:
        row = {
            "run_id": run_id,
            "epoch": metrics.epoch,
            "step": metrics.step,
            "learning_rate": metrics.learning_rate,
            **_columns("train", metrics.train),
            **_columns("validation", metrics.validation),
            "seconds": metrics.seconds,
        }
        self._db.table("epochs").upsert(row, pk=("run_id", "epoch"))
        self._db.execute(
            "UPDATE runs SET epochs_done = max(epochs_done, :epoch),"
            " best_validation_accuracy = max(coalesce(best_validation_accuracy, 0), :accuracy) WHERE id = :run",
            {"epoch": metrics.epoch, "accuracy": metrics.validation.accuracy, "run": run_id},
        )

    def _write_checkpoint(self, run_id: int, result: TrainResult) -> Row:
        """Write the file and return the columns that point at it, relative so that the folder can be moved."""
        path = self.folder("checkpoints") / f"run-{run_id:06d}.npz"
        sha256 = checkpoints.save(path, result.arrays(), result.config.to_json(), result.step)
        return {"checkpoint": str(path.relative_to(self.path.parent)), "checkpoint_sha256": sha256}

    def run(self, run_id: int) -> Row:
        """Return one run. Raises StoreError where there is none of that number."""
        rows = self._read("SELECT * FROM runs WHERE id = ?", [run_id])
        if not rows:
            raise StoreError(
                f"{self.path}: there is no run {run_id}, `klcli report --best 10` shows some that are there"
            )
        return rows[0]

    def epochs(self, run_id: int) -> list[Row]:
        """Return the evaluations of one run in order."""
        return self._read("SELECT * FROM epochs WHERE run_id = ? ORDER BY epoch", [run_id])


def _columns(split: str, metrics: Metrics) -> Row:
    return {f"{split}_{name}": value for name, value in asdict(metrics).items()}


def _of(row: Row, split: str) -> Metrics:
    return Metrics(row[f"{split}_loss"], row[f"{split}_cost"], row[f"{split}_accuracy"])


def ending_row(state: str, result: TrainResult | None, seconds: float, error: str | None) -> Row:
    """Return the columns of a run that has ended."""
    row: Row = {"state": state, "finished_at": now(), "seconds": seconds, "error": error}
    if result is not None and result.epochs:
        row |= _columns("train", result.epochs[-1].train) | _columns("validation", result.epochs[-1].validation)
    if result is not None and result.test is not None:
        row |= _columns("test", result.test)
    if result is not None and result.ensemble is not None:
        row |= {"snapshots": result.ensemble.networks}
        for split, score in (("validation", result.ensemble.validation), ("test", result.ensemble.test)):
            row |= {f"ensemble_{split}_{name}": value for name, value in asdict(score).items()} if score else {}
    return row


def divergence(result: TrainResult) -> str:
    """Say in the error column what happened to a run that diverged."""
    return f"the cost was not finite after update {result.diverged_at}"


def run_row(config: TrainConfig, times: Timetable, dataset: Dataset, environment: Environment, command: str) -> Row:
    """Return the columns of a run that this process is about to train."""
    process = ProcessIdentity.current()
    return {
        "state": "running",
        "started_at": now(),
        "host": process.host,
        "pid": process.pid,
        "process_started_at": process.started_at,
        "command": command,
        "dataset": dataset.name,
        "dataset_sha256": dataset.sha256,
        "dataset_source": dataset.source,
        "hidden": " ".join(map(str, config.hidden)),
        "batch_norm": int(config.batch_norm),
        "bn_position": config.bn_position if config.batch_norm else None,
        "initializer": config.initializer,
        "sigma": config.sigma,
        "lambda": config.lam,
        "optimizer": config.optimizer,
        "schedule": config.schedule,
        "eta_min": config.eta_min,
        "eta_max": config.eta_max,
        "step_size": times.step_size,
        "cycles": times.cycles,
        "epochs": times.epoch_at(times.total_updates),
        "batch_size": config.batch_size,
        "seed": config.seed,
        "dtype": config.dtype,
        "threads": environment.threads,
        "config": config.to_json(),
        "versions": json.dumps(environment.versions),
    }
