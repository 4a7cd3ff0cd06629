"""Studies: plans of many runs, and their states."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from klcli.errors import ConfigError, StoreError
from klcli.settings.train_config import TrainConfig
from klcli.store.connection import Database, now
from klcli.store.records import Run, Study
from klcli.store.runs import Runs, end_of, ending_row, fresh_columns, run_row, upsert_epoch

if TYPE_CHECKING:  # a report must not import the training code
    from klcli.data.dataset import Dataset
    from klcli.studies.execution import StackOutcome
    from klcli.training.environment import Environment


class Studies:
    """The studies of a database, each with its runs in the order of its plan."""

    def __init__(self, db: Database, runs: Runs) -> None:
        self._db = db
        self._runs = runs

    def begin(
        self,
        kind: str,
        stage: str,
        settings: dict[str, Any],
        plan: Sequence[TrainConfig],
        n_train: int,
        dataset: Dataset,
        environment: Environment,
        command: str,
        parent: int | None = None,
    ) -> int:
        """Record a study with all of its runs before the first one starts, and return its number."""
        from klcli.training.budget import budget_of

        about = {"kind": kind, "stage": stage, "settings": canonical(settings), "parent": parent}
        with self._db.write() as db:
            study = db.table("studies").insert(about | {"state": "running", "created_at": now()})
            for position, config in enumerate(plan):
                row = run_row(config, budget_of(config, n_train), dataset, environment, command)
                db.table("runs").insert(row | {"study_id": study.last_pk, "member": position})
        return cast(int, study.last_pk)

    def find(self, kind: str, stage: str, settings: dict[str, Any], parent: int | None) -> Study | None:
        """Return the latest study of exactly this plan, in any state, including studies of an older klcli."""
        wanted = canonical(settings)
        found = self._where("kind = ? AND stage = ? AND parent IS ? ORDER BY id DESC", kind, stage, parent)
        return next((one for one in found if wanted in (canonical(one.settings), _with_defaults(one.settings))), None)

    def get(self, study_id: int) -> Study:
        for study in self._where("id = ?", study_id):
            return study
        raise StoreError(f"{self._db.path}: there is no study {study_id}")

    def latest(self, kind: str, stage: str, dataset_sha256: str) -> Study | None:
        """Return the latest complete study of a stage on one data set."""
        of_images = "EXISTS (SELECT 1 FROM runs WHERE study_id = studies.id AND dataset_sha256 = ?)"
        condition = f"kind = ? AND stage = ? AND state = 'complete' AND {of_images} ORDER BY id DESC"
        return next(iter(self._where(condition, kind, stage, dataset_sha256)), None)

    def all(self) -> list[Study]:
        return self._where("1 ORDER BY id")

    def chain(self, study_id: int) -> list[Study]:
        """Return a study and the studies that it refines, the first one first."""
        study = self.get(study_id)
        return [*(self.chain(study.parent) if study.parent is not None else ()), study]

    def members(self, study_id: int) -> list[Run]:
        return self._runs.where("study_id = ? ORDER BY member", [study_id])

    def _where(self, condition: str, *values: object) -> list[Study]:
        return self._db.records(Study, f"studies WHERE {condition}", values)

    def restart(self, run_ids: Sequence[int], environment: Environment) -> None:
        """Assign unfinished runs to this process, to be trained again. Raises StoreError if another process has one."""
        without = {"epochs_done": 0, "finished_at": None, "best_validation_accuracy": None, "error": None}
        with self._db.write() as db:
            for run_id in run_ids:
                run = self._runs.get(run_id)
                if run.state not in ("interrupted", "failed"):
                    owner = f"process {run.pid} on {run.host}, end that first"
                    raise StoreError(f"{self._db.path}: run {run_id} of study {run.study_id} belongs to {owner}")
                db.execute("DELETE FROM epochs WHERE run_id = ?", [run_id])
                db.table("runs").update(run_id, fresh_columns(environment) | without)
                db.execute("UPDATE studies SET state = 'running' WHERE id = ?", [run.study_id])

    def record_stack(self, run_ids: Sequence[int], outcome: StackOutcome) -> None:
        """Record the results of a stack in one transaction: all of its runs, or none."""
        results, rows = dict(zip(run_ids, outcome.results, strict=True)), {}
        for run_id, result in results.items():
            state, error = end_of(result)
            pointer = self._runs.write_checkpoint(run_id, result) if state == "complete" else {}
            rows[run_id] = ending_row(state, result, outcome.seconds, error) | pointer
        with self._db.write() as db:
            for run_id, result in results.items():
                for metrics in result.epochs:
                    upsert_epoch(db, run_id, metrics)
                db.table("runs").update(run_id, rows[run_id])

    def end(self, study_id: int, state: str, error: str | None = None) -> None:
        """End a study; its unfinished runs get the same state."""
        ended = "UPDATE runs SET state = ?, error = ?, finished_at = ? WHERE study_id = ? AND state = 'running'"
        with self._db.write() as db:
            db.table("studies").update(study_id, {"state": state})
            db.execute(ended, [state, error, now(), study_id])


def canonical(settings: dict[str, Any]) -> str:
    """Return the JSON that identifies a plan."""
    return json.dumps(settings, sort_keys=True)


def _with_defaults(settings: dict[str, Any]) -> str:
    """Return stored settings with the defaults of newer options, which an older klcli did not have."""
    try:
        plan = [asdict(TrainConfig.from_values(one)) for one in settings.get("plan", [])]
    except (ConfigError, TypeError):
        return canonical(settings)  # a plan that this version of klcli cannot train
    return canonical(settings | ({"plan": plan} if plan else {}))
