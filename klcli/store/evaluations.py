"""EvaluationStore: what stored networks gave when they were evaluated again."""

from collections.abc import Sequence

from klcli.evaluation.reevaluation import Reevaluation
from klcli.settings.evaluation_settings import EvaluationSettings
from klcli.store.database import Row, now
from klcli.store.queries import ReportStore

_SETTINGS = ("bn_statistics", "bn_samples", "snapshots", "flips", "shifts", "seed")


class EvaluationStore(ReportStore):
    """The evaluations of runs, each of one run or of the mean of several."""

    def record(self, run_ids: Sequence[int], settings: EvaluationSettings, found: Reevaluation, command: str) -> Row:
        """Keep an evaluation, in the place of an earlier one of the same runs and settings; return its row."""
        row: Row = {
            "created_at": now(),
            "command": command,
            "bn_statistics": found.policy,
            "bn_samples": found.samples,
            "snapshots": int(settings.snapshots),
            "flips": int(settings.flips),
            "shifts": settings.shifts,
            "seed": settings.seed,
            "transductive": int(found.transductive),
            "validation_loss": found.validation.loss,
            "validation_accuracy": found.validation.accuracy,
            "test_loss": found.test.loss,
            "test_accuracy": found.test.accuracy,
            "seconds": found.seconds,
        }
        wanted = sorted(set(run_ids))
        with self._write():
            for old in self.evaluations(wanted):
                if old["runs"] == wanted and all(old[name] == row[name] for name in _SETTINGS):
                    self._db.execute("DELETE FROM evaluations WHERE id = ?", [old["id"]])
            evaluation = self._db.table("evaluations").insert(row).last_pk
            self._db.table("evaluation_runs").insert_all(
                {"evaluation_id": evaluation, "run_id": run_id} for run_id in wanted
            )
        return {"id": evaluation, "runs": wanted} | row
