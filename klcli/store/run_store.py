"""RunStore: every run with its epochs, in one SQLite database."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from klcli.data.dataset import Dataset
from klcli.errors import StoreError
from klcli.experiments.config import TrainConfig
from klcli.experiments.environment import Environment
from klcli.experiments.evaluation import Metrics
from klcli.experiments.gradient_checks import NetworkCheck
from klcli.experiments.timetable import Timetable
from klcli.experiments.training import EpochMetrics, TrainResult
from klcli.store import checkpoints
from klcli.store.connection import connect, explained, transaction
from klcli.store.process import ProcessIdentity

Row = dict[str, Any]  # one record, by column name


class RunStore:
    """An open database, migrated, with the runs of dead processes marked interrupted.

    Every method that writes is one transaction. All methods raise StoreError, one line with the cure.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the database at `path`."""
        self.path = path
        self._db = connect(path)
        self._mark_dead_runs()

    @classmethod
    def existing(cls, path: Path) -> "RunStore":
        """Open the database at `path`. Raises StoreError where there is none."""
        if not path.exists():
            raise StoreError(
                f"{path}: there is no database here yet, `klcli train` makes one (or name another with --db)"
            )
        return cls(path)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def folder(self, kind: str) -> Path:
        """Return the folder of the "checkpoints" or "plots" that belong to this database, beside it.

        Two databases in one folder must not share files, so a name other than klcli.db goes in front.
        """
        return self.path.parent / (kind if self.path.stem == "klcli" else f"{self.path.stem}-{kind}")

    def begin(
        self, config: TrainConfig, times: Timetable, dataset: Dataset, environment: Environment, command: str
    ) -> int:
        """Record a run before it starts and return its number."""
        process = ProcessIdentity.current()
        row: Row = {
            "state": "running",
            "started_at": _now(),
            "host": process.host,
            "pid": process.pid,
            "process_started_at": process.started_at,
            "command": command,
            "dataset": dataset.name,
            "dataset_sha256": dataset.sha256,
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
        with self._write():
            return cast(int, self._db.table("runs").insert(row).last_pk)

    def record_epoch(self, run_id: int, metrics: EpochMetrics) -> None:
        """Commit the metrics of one evaluation; repeating it changes nothing."""
        row = {
            "run_id": run_id,
            "epoch": metrics.epoch,
            "step": metrics.step,
            "learning_rate": metrics.learning_rate,
            **_columns("train", metrics.train),
            **_columns("validation", metrics.validation),
            "seconds": metrics.seconds,
        }
        with self._write():
            self._db.table("epochs").upsert(row, pk=("run_id", "epoch"))
            self._db.execute(
                "UPDATE runs SET epochs_done = :epoch,"
                " best_validation_accuracy = max(coalesce(best_validation_accuracy, 0), :accuracy) WHERE id = :run",
                {"epoch": metrics.epoch, "accuracy": metrics.validation.accuracy, "run": run_id},
            )

    def save_checkpoint(self, run_id: int, result: TrainResult) -> Path:
        """Write the network of a run beside the database, then point the run at it."""
        path = self.folder("checkpoints") / f"run-{run_id:06d}.npz"
        sha256 = checkpoints.save(path, result.network.state(), result.config.to_json())
        relative = str(path.relative_to(self.path.parent))
        self._update(run_id, {"checkpoint": relative, "checkpoint_sha256": sha256})
        return path

    def finish(
        self, run_id: int, state: str, result: TrainResult | None, seconds: float, error: str | None = None
    ) -> None:
        """End a run in `state`, with the metrics of its last evaluation and of the test split."""
        row: Row = {"state": state, "finished_at": _now(), "seconds": seconds, "error": error}
        if result is not None and result.epochs:
            row |= _columns("train", result.epochs[-1].train) | _columns("validation", result.epochs[-1].validation)
        if result is not None and result.test is not None:
            row |= _columns("test", result.test)
        self._update(run_id, row)

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

    def datasets(self) -> list[Row]:
        """Return the data sets of all complete runs, the latest used first: name, sha256, number of runs."""
        return self._read(
            "SELECT dataset, dataset_sha256, count(*) AS runs FROM runs WHERE state = 'complete'"
            " GROUP BY dataset_sha256 ORDER BY max(id) DESC"
        )

    def best_runs(self, dataset_sha256: str, limit: int) -> list[Row]:
        """Return the complete runs on one data set, the highest validation accuracy first."""
        return self._read(
            "SELECT * FROM runs WHERE dataset_sha256 = ? AND state = 'complete'"
            " ORDER BY validation_accuracy DESC, id LIMIT ?",
            [dataset_sha256, limit],
        )

    def record_gradient_checks(self, checks: Sequence[NetworkCheck], dataset: Dataset, command: str) -> int:
        """Record the checks of one call together and return the number of their suite."""
        with self._write():
            suite = self._read("SELECT coalesce(max(id), 0) + 1 AS next FROM gradient_checks")[0]["next"]
            for check_id, check in enumerate(checks, start=suite):
                first = check.members[0]
                settings = check.settings
                row = {
                    "id": check_id,
                    "suite": suite,
                    "created_at": _now(),
                    "command": command,
                    "dataset": dataset.name,
                    "dataset_sha256": dataset.sha256,
                    "hidden": " ".join(map(str, first.hidden)),
                    "batch_norm": int(first.batch_norm),
                    "bn_position": first.bn_position if first.batch_norm else None,
                    "lambda": " ".join(f"{member.lam:g}" for member in check.members),
                    **asdict(settings),
                    "passed": int(not check.failed),
                    "seconds": check.seconds,
                    "configs": json.dumps([json.loads(member.to_json()) for member in check.members]),
                }
                self._db.table("gradient_checks").insert(row)
                self._db.table("gradient_errors").insert_all(
                    {
                        "check_id": check_id,
                        "position": position,
                        **asdict(tensor),
                        "passed": int(tensor not in check.failed),
                    }
                    for position, tensor in enumerate(check.tensors)
                )
        return int(suite)

    def gradient_checks(self, suite: int | None = None) -> list[Row]:
        """Return the checks of one call, by default the latest, each with its tensors under "errors"."""
        checks = self._read(
            "SELECT * FROM gradient_checks"
            " WHERE suite = coalesce(?, (SELECT max(suite) FROM gradient_checks)) ORDER BY id",
            [suite],
        )
        for check in checks:
            check["errors"] = self._read(
                "SELECT * FROM gradient_errors WHERE check_id = ? ORDER BY position", [check["id"]]
            )
        return checks

    def _mark_dead_runs(self) -> None:
        """Mark the running runs whose process is gone as interrupted; nobody else can."""
        gone = [
            row["id"]
            for row in self._read("SELECT id, host, pid, process_started_at FROM runs WHERE state = 'running'")
            if ProcessIdentity(row["host"], row["pid"], row["process_started_at"]).is_gone()
        ]
        for run_id in gone:
            with self._write():
                self._db.execute(
                    "UPDATE runs SET state = 'interrupted', error = 'its process ended without a word'"
                    " WHERE id = ? AND state = 'running'",
                    [run_id],
                )

    def _update(self, run_id: int, row: Mapping[str, Any]) -> None:
        with self._write():
            self._db.table("runs").update(run_id, dict(row))

    def _read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with explained(self.path):
            return [dict(row) for row in self._db.execute(sql, parameters).fetchall()]

    @contextmanager
    def _write(self) -> Iterator[None]:
        with explained(self.path), transaction(self._db):
            yield


def _columns(split: str, metrics: Metrics) -> Row:
    return {f"{split}_{name}": value for name, value in asdict(metrics).items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
