"""Studies: plans of many runs, and their states."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from klcli.errors import ConfigError, StoreError
from klcli.settings.sameness import settings_and_seeds
from klcli.settings.train_config import TrainConfig
from klcli.store.connection import RESTORE, Database, next_number
from klcli.store.locks import Locks
from klcli.store.records import Run, Study
from klcli.store.runs import RUNNING, UNFINISHED, Runs, ending_row, this_process
from klcli.text import now

if TYPE_CHECKING:  # a report must not import the training code
    from klcli.studies.execution import StackOutcome

Row = dict[str, Any]  # columns and their values, or the settings of a study
STARTED = ("host", "pid", "state", "started_at", "threads", "versions")  # columns that change when a run begins again
TEXT, PLAN_SHA256 = "text", "plan_sha256"  # in the settings of a reproduction: its report, and a hash of its whole plan
# Settings that no training of the plan depends on; the last one is of an older klcli.
UNTRAINED = ("vary", TEXT, PLAN_SHA256, "deleted_members")


class Studies:
    """The studies of a database, each with its runs in the order of its plan."""

    def __init__(self, db: Database, runs: Runs, locks: Locks) -> None:
        self._db, self._runs, self._locks = db, runs, locks
        self._owners: dict[int, str] = {}  # the locks of the studies that this process trains

    def begin(
        self, kind: str, stage: str, settings: Row, rows: Sequence[Row], command: str, parent: int | None = None
    ) -> int:
        """Record a study with the rows of all its runs before the first one starts, lock it, and return its number."""
        about = {"kind": kind, "stage": stage, "settings": canonical(settings), "parent": parent, "command": command}
        with self._runs.owning() as (db, owner):
            study_id = next_number(db, "studies")
            db.table("studies").insert(about | {"id": study_id, "state": "running", "created_at": now()})
            for position, row in enumerate(rows):
                self._runs.insert(db, row | {"study_id": study_id, "member": position, "owner": owner})
        self._owners[study_id] = owner
        return study_id

    def find(self, kind: str, stage: str, settings: Row, parent: int | None) -> Study | None:
        """Return the latest study of exactly this plan, in any state, including studies of an older klcli."""
        wanted = identity(settings)
        found = self._where("kind = ? AND stage = ? AND parent IS ?", kind, stage, parent)
        return next((one for one in reversed(found) if identity(one.settings) == wanted), None)

    def get(self, study_id: int) -> Study:
        for study in self._where("id = ?", study_id):
            return study
        latest = self._db.read("SELECT max(id) AS id FROM studies")[0]["id"]
        begin = "`klcli search-lambda`, `sigma-sweep`, `reproduce` and `train --repeats 3` begin one"
        cure = f"the latest is {latest}" if latest else begin
        raise StoreError(f"{self._db.path}: there is no study {study_id}, {cure}")

    def complete(self, kind: str, stage: str, dataset_sha256: str) -> list[Study]:
        """Return the complete studies with runs on these images, the newest first."""
        of_images = "EXISTS (SELECT 1 FROM runs WHERE study_id = studies.id AND dataset_sha256 = ?)"
        condition = f"kind = ? AND stage = ? AND state = 'complete' AND {of_images}"
        return self._where(condition, kind, stage, dataset_sha256)[::-1]

    def all(self) -> list[Study]:
        """Return all studies in the order of time: the numbers of a merged database are those of the merge."""
        return self._where("1")

    def chain(self, study_id: int) -> list[Study]:
        chain = [self.get(study_id)]
        while (parent := chain[0].parent) is not None:
            if parent in [study.id for study in chain]:
                raise StoreError(f"{self._db.path}: study {parent} refines itself, {RESTORE}")
            chain.insert(0, self.get(parent))
        return chain

    def members(self, study_id: int) -> list[Run]:
        return self._runs.where("study_id = ? ORDER BY member", [study_id])

    def deletions(self, studies: Sequence[Study]) -> list[str]:
        """`2 runs were deleted from study 3`, for each that lacks runs of its plan: all were there when it began."""
        there = {one.id: len({run.member for run in self.members(one.id)}) for one in studies}
        lost = {one.id: len(one.settings.get("plan", ())) - there[one.id] for one in studies}
        return [f"{n} run{'s were' if n > 1 else ' was'} deleted from study {one}" for one, n in lost.items() if n > 0]

    def _where(self, condition: str, *values: object) -> list[Study]:
        return [*self._db.records(Study, f"studies WHERE {condition} ORDER BY created_at, id", values)]

    def restart(self, study_id: int, rows: dict[int, Row], alone: Collection[int] = ()) -> None:
        """Take over the unfinished or deleted runs at these positions. Raises StoreError if one is being trained.

        Those at the positions `alone`, each its own stack, continue from their checkpoints; the others begin again.
        """
        again = dict.fromkeys(("checkpoint", "checkpoint_sha256", "previous_sha256")) | RUNNING
        with self._runs.owning() as (db, owner):
            runs = {run.member: run for run in self.members(study_id)}
            for position, row in rows.items():
                run = runs.get(position)
                if run is None:
                    self._runs.insert(db, row | {"study_id": study_id, "member": position, "owner": owner})
                elif self._runs.is_alive(run):
                    words = f"{self._runs.training_words(run)}, end that first"
                    raise StoreError(f"{self._db.path}: run {run.id} of study {study_id}: {words}")
                elif position in alone and run.checkpoint and run.state in (*UNFINISHED, "running"):
                    db.table("runs").update(run.id, this_process() | RUNNING | {"owner": owner})
                elif run.state in (*UNFINISHED, "running"):
                    self._runs.rewind(db, run.id)
                    started = {name: row[name] for name in STARTED}
                    db.table("runs").update(run.id, started | again | {"owner": owner})
            db.table("studies").update(study_id, {"state": "running"})
        self._owners[study_id] = owner

    def record_stack(self, run_ids: Sequence[int], outcome: StackOutcome) -> None:
        """Record the results of a stack in one transaction; runs that were complete before stay as they are.

        The versions of a worker with others than this process are recorded first: the checkpoints contain them.
        """
        from klcli.training.environment import continued

        runs = [self._runs.get(run_id) for run_id in run_ids]
        # Another process may have marked a run as interrupted whose lock was lost; one that was taken over is refused.
        unended, pairs = (*UNFINISHED, "running"), zip(runs, outcome.results, strict=True)
        results = {run.id: one for run, one in pairs if run.state in unended}
        versions = {run.id: continued(run.versions, outcome.since, outcome.versions)[0] for run in runs}
        if elsewhere := [run.id for run in runs if run.id in results and run.versions != versions[run.id]]:
            with self._db.write() as db:
                for run_id in elsewhere:
                    self._runs.update(db, run_id, {"versions": json.dumps(versions[run_id])})
        rows = {}
        for run_id, result in results.items():
            state, error = result.end
            pointer = self._runs.write_checkpoint(run_id, result) if state == "complete" else {}
            rows[run_id] = ending_row(state, result, result.seconds, error) | pointer
        with self._db.write() as db:
            for run_id, result in results.items():
                self._runs.update(db, run_id, rows[run_id], result.epochs)
        for run_id, row in rows.items():
            if row["state"] == "complete":
                self._runs.remove_previous(run_id)

    def end(self, study_id: int, state: str, error: str | None = None) -> None:
        ended = "UPDATE runs SET state = ?, error = ?, finished_at = ? WHERE study_id = ? AND state = 'running'"
        with self._locks.releasing(self._owners.get(study_id)), self._db.write() as db:
            for run in self.members(study_id):
                if run.state == "running":
                    self._runs.require_owner(run.id)
            db.table("studies").update(study_id, {"state": state})
            db.execute(ended, [state, error, now(), study_id])


def canonical(settings: Row) -> str:
    """Return the JSON that identifies a plan."""
    return json.dumps(settings, sort_keys=True)


def identity(settings: Row) -> tuple[str, list[Any], str]:
    """Return what determines the numbers of a study: its settings, its plan as `settings_and_seeds`, and its stacks."""
    known = {key: value for key, value in settings.items() if key not in UNTRAINED}
    known |= {"method": known.pop("study")} if "study" in known else {}  # an older klcli called every one a method
    try:
        plan = [settings_and_seeds(TrainConfig.from_values(one)) for one in known.pop("plan", [])]
    except (ConfigError, TypeError):  # this version of klcli cannot train it
        return canonical(settings), [], ""
    groups = known.pop("groups", None)
    return canonical(known), plan, json.dumps(groups)
