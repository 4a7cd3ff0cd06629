"""Evaluations: the results of stored networks that were evaluated again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from klcli.settings.procedures import EvaluationSettings
from klcli.store.connection import Database, now
from klcli.store.records import Evaluation
from klcli.store.runs import prefixed

if TYPE_CHECKING:  # a report must not load what trains
    from klcli.evaluation.reevaluation import Reevaluation

_SETTINGS = ("bn_statistics", "bn_samples", "snapshots", "flips", "shifts", "seed")


class Evaluations:
    """The evaluations of runs, each of one run or of the mean of several."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def record(
        self, run_ids: Sequence[int], settings: EvaluationSettings, found: Reevaluation, command: str
    ) -> Evaluation:
        """Record an evaluation in the place of an earlier one of the same runs and settings, and return it."""
        used = {"bn_statistics": found.policy, "bn_samples": found.samples, "transductive": found.transductive}
        measured = prefixed("validation", found.validation) | prefixed("test", found.test)
        about = {"created_at": now(), "command": command, "seconds": found.seconds}
        row = asdict(settings) | used | measured | about
        wanted = sorted(set(run_ids))
        with self._db.write() as db:
            for old in self.of_runs(wanted):
                if old.runs == wanted and all(getattr(old, name) == row[name] for name in _SETTINGS):
                    db.execute("DELETE FROM evaluations WHERE id = ?", [old.id])
            evaluation = db.table("evaluations").insert(row).last_pk
            db.table("evaluation_runs").insert_all({"evaluation_id": evaluation, "run_id": run_id} for run_id in wanted)
        return next(one for one in self.of_runs(wanted) if one.id == evaluation)

    def of_runs(self, run_ids: Sequence[int]) -> list[Evaluation]:
        """Return the evaluations to which one of these runs belongs, the oldest first."""
        numbers = "SELECT run_id FROM evaluation_runs WHERE evaluation_id = evaluations.id ORDER BY run_id"
        with_runs = f"SELECT *, (SELECT json_group_array(run_id) FROM ({numbers})) AS runs FROM evaluations"
        wanted = "SELECT evaluation_id FROM evaluation_runs WHERE run_id IN (SELECT value FROM json_each(?))"
        source = f"({with_runs}) WHERE id IN ({wanted}) ORDER BY id"
        return self._db.records(Evaluation, source, [json.dumps(list(run_ids))])
