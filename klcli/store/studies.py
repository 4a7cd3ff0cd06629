"""StudyStore: plans of many runs, from the drawing to the last member."""

import json
from collections.abc import Sequence
from typing import Any

from klcli.data.dataset import Dataset
from klcli.errors import ConfigError, StoreError
from klcli.settings.train_config import TrainConfig
from klcli.store.database import Row, now
from klcli.store.process import ProcessIdentity
from klcli.store.runs import RunStore, divergence, ending_row, run_row
from klcli.studies.execution import GroupOutcome
from klcli.training.budget import timetable
from klcli.training.environment import Environment


class StudyStore(RunStore):
    """The studies: each a plan whose members are runs, in the order of the plan."""

    def begin_study(
        self,
        kind: str,
        stage: str,
        settings: Row,
        plan: Sequence[TrainConfig],
        n_train: int,
        dataset: Dataset,
        environment: Environment,
        command: str,
        parent: int | None = None,
    ) -> int:
        """Record a study with all of its runs before the first one starts, and return its number."""
        with self._write():
            study = {
                "kind": kind,
                "stage": stage,
                "settings": canonical(settings),
                "parent": parent,
                "state": "running",
                "created_at": now(),
            }
            study_id = self._db.table("studies").insert(study).last_pk
            for position, config in enumerate(plan):
                row = run_row(config, timetable(config, n_train), dataset, environment, command)
                self._insert_run(row | {"study_id": study_id, "member": position})
        return int(str(study_id))

    def find_study(self, kind: str, stage: str, settings: Row, parent: int | None) -> Row | None:
        """Return the latest study of exactly this plan, complete or not, also of one that an older klcli began."""
        rows = self._read(
            "SELECT * FROM studies WHERE kind = ? AND stage = ? AND parent IS ? ORDER BY id DESC",
            [kind, stage, parent],
        )
        wanted = canonical(settings)
        return next((row for row in rows if wanted in (row["settings"], _with_defaults(row["settings"]))), None)

    def study(self, study_id: int) -> Row:
        """Return one study. Raises StoreError where there is none of that number."""
        rows = self._read("SELECT * FROM studies WHERE id = ?", [study_id])
        if not rows:
            raise StoreError(f"{self.path}: there is no study {study_id}")
        return rows[0]

    def latest_study(self, kind: str, stage: str, dataset_sha256: str) -> Row | None:
        """Return the latest complete study of a stage on one data set."""
        rows = self._read(
            "SELECT * FROM studies WHERE kind = ? AND stage = ? AND state = 'complete'"
            " AND EXISTS (SELECT 1 FROM runs WHERE study_id = studies.id AND dataset_sha256 = ?)"
            " ORDER BY id DESC LIMIT 1",
            [kind, stage, dataset_sha256],
        )
        return rows[0] if rows else None

    def members(self, study_id: int) -> list[Row]:
        """Return the runs of a study in the order of its plan."""
        return self._read("SELECT * FROM runs WHERE study_id = ? ORDER BY member", [study_id])

    def restart(self, run_ids: Sequence[int], environment: Environment) -> None:
        """Take runs that did not end over to this process, as if they had just been planned.

        Raises StoreError where one of them is in the hands of another process, or has been completed.
        """
        process = ProcessIdentity.current()
        fresh: dict[str, Any] = {
            "state": "running",
            "started_at": now(),
            "finished_at": None,
            "host": process.host,
            "pid": process.pid,
            "process_started_at": process.started_at,
            "threads": environment.threads,
            "versions": json.dumps(environment.versions),
            "epochs_done": 0,
            "best_validation_accuracy": None,
            "error": None,
        }
        with self._write():
            for run_id in run_ids:
                run = self.run(run_id)
                if run["state"] not in ("interrupted", "failed"):
                    owner = f"in the hands of process {run['pid']} on {run['host']}"
                    raise StoreError(f"{self.path}: run {run_id} of study {run['study_id']} is {owner}, end that first")
                self._db.execute("DELETE FROM epochs WHERE run_id = ?", [run_id])
                self._db.table("runs").update(run_id, fresh)
                self._db.execute(
                    "UPDATE studies SET state = 'running' WHERE id = (SELECT study_id FROM runs WHERE id = ?)", [run_id]
                )

    def record_group(self, run_ids: Sequence[int], outcome: GroupOutcome) -> None:
        """Record all that a group leaves, in one transaction: a group is complete or was never trained."""
        with_checkpoint = {
            run_id: self._write_checkpoint(run_id, result)
            for run_id, result in zip(run_ids, outcome.results, strict=True)
            if result.diverged_at is None
        }
        with self._write():
            for run_id, result in zip(run_ids, outcome.results, strict=True):
                for metrics in result.epochs:
                    self._upsert_epoch(run_id, metrics)
                state, error = ("complete", None) if result.diverged_at is None else ("diverged", divergence(result))
                ending = ending_row(state, result, outcome.seconds, error)
                self._db.table("runs").update(run_id, ending | with_checkpoint.get(run_id, {}))

    def end_study(self, study_id: int, state: str, error: str | None = None) -> None:
        """End a study; its runs that have not ended get the same state."""
        with self._write():
            self._db.table("studies").update(study_id, {"state": state})
            self._db.execute(
                "UPDATE runs SET state = ?, error = ?, finished_at = ? WHERE study_id = ? AND state = 'running'",
                [state, error, now(), study_id],
            )


def canonical(settings: Row) -> str:
    """Return the JSON by which two equal plans are recognised."""
    return json.dumps(settings, sort_keys=True)


def _with_defaults(settings: str) -> str:
    """Return stored settings with the options that have come since, which an older klcli trained without."""
    values = json.loads(settings)
    try:
        plan = [json.loads(TrainConfig.from_json(json.dumps(config)).to_json()) for config in values.get("plan", [])]
    except (ConfigError, TypeError):
        return settings  # of a plan that this klcli cannot train
    return canonical(values | ({"plan": plan} if plan else {}))
