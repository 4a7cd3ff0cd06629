"""Records of later evaluations of stored networks, and of gradient checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from klcli.errors import StoreError
from klcli.settings.columns import columns as columns_of
from klcli.settings.procedures import CheckSettings, EvaluationSettings
from klcli.settings.train_config import TrainConfig
from klcli.store.connection import Database, next_number
from klcli.store.records import Evaluation, GradientCheck, GradientError, Run
from klcli.store.runs import prefixed
from klcli.text import now

if TYPE_CHECKING:  # a report must not import the training code
    from klcli.data.dataset import Dataset
    from klcli.evaluation.reevaluation import Reevaluation
    from klcli.studies.gradient_checks import NetworkCheck

LATEST = "ORDER BY created_at DESC, id DESC"  # the numbers of a merged database are those of the merge


class Evaluations:
    """The evaluations of runs, each of one run or of the mean of several."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def record(
        self, runs: Sequence[Run], settings: EvaluationSettings, found: Reevaluation, command: str
    ) -> Evaluation:
        """Record an evaluation, replacing an earlier one of the same runs and settings, and return it.

        Raises StoreError unless each of the runs still has the network that was evaluated.
        """
        used = {"bn_statistics": found.policy, "bn_samples": found.samples, "transductive": found.transductive}
        about = {"created_at": now(), "command": command, "seconds": found.seconds}
        row = asdict(settings) | used | about | prefixed("validation", found.validation) | prefixed("test", found.test)
        wanted = sorted({run.id for run in runs})
        with self._db.write() as db:
            for run in runs:
                unchanged = "SELECT 1 FROM runs WHERE id = ? AND checkpoint_sha256 IS ?"
                if not self._db.read(unchanged, [run.id, run.checkpoint_sha256]):
                    raise StoreError(f"run {run.id} was trained further or deleted meanwhile: evaluate it after that")
            for old in self.same(wanted, row):
                db.execute("DELETE FROM evaluations WHERE id = ?", [old.id])
            evaluation = next_number(db, "evaluations")
            db.table("evaluations").insert(row | {"id": evaluation})
            db.table("evaluation_runs").insert_all({"evaluation_id": evaluation, "run_id": run_id} for run_id in wanted)
            return next(one for one in self.of_runs(wanted) if one.id == evaluation)

    def same(self, run_ids: list[int], row: Mapping[str, Any]) -> list[Evaluation]:
        """Return the evaluations of exactly these runs, in ascending order, with the settings in `row`."""
        how = asdict(EvaluationSettings())
        found = [one for one in self.of_runs(run_ids) if one.runs == run_ids]
        return [one for one in found if all(getattr(one, name) == row[name] for name in how)]

    def of_runs(self, run_ids: Sequence[int]) -> list[Evaluation]:
        numbers = "SELECT run_id FROM evaluation_runs WHERE evaluation_id = evaluations.id ORDER BY run_id"
        with_runs = f"SELECT *, (SELECT json_group_array(run_id) FROM ({numbers})) AS runs FROM evaluations"
        wanted = "SELECT evaluation_id FROM evaluation_runs WHERE run_id IN (SELECT value FROM json_each(?))"
        source = f"({with_runs}) WHERE id IN ({wanted}) ORDER BY id"
        return [*self._db.records(Evaluation, source, [json.dumps(list(run_ids))])]


def checked_network(configs: Sequence[TrainConfig]) -> dict[str, object]:
    """Return the columns of a checked network, or of a stack of networks that differ in lambda."""
    first = columns_of(configs[0])
    network = {name: first[name] for name in ("hidden", "batch_norm", "bn_position")}
    return network | {"lambda": " ".join(f"{config.lam:g}" for config in configs)}


class GradientChecks:
    """The gradient checks, in suites: a suite is the set of networks of one call."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def record(self, checks: Sequence[NetworkCheck], dataset: Dataset, command: str) -> int:
        with self._db.write() as db:
            numbers = [next_number(db, "gradient_checks") for _ in checks]
            for check_id, check in zip(numbers, checks, strict=True):
                configs = json.dumps([asdict(config) for config in check.configs])
                images = {"dataset": dataset.name, "dataset_sha256": dataset.sha256, "configs": configs}
                found = {"passed": int(not check.failed), "seconds": check.seconds, **asdict(check.settings)}
                about = {"id": check_id, "suite": numbers[0], "created_at": now(), "command": command}
                db.table("gradient_checks").insert(about | images | checked_network(check.configs) | found)
                for position, tensor in enumerate(check.tensors):
                    row = {"check_id": check_id, "position": position, "passed": int(tensor not in check.failed)}
                    errors = {name: value for name, value in asdict(tensor).items() if name != "complex_step"}
                    db.table("gradient_errors").insert(row | errors)
        return numbers[0]

    def suite(self, suite: int | None = None) -> list[GradientCheck]:
        """Return the checks of one call, by default of the latest, with the errors of their tensors."""
        latest = f"SELECT suite FROM gradient_checks {LATEST} LIMIT 1"
        return self._checks(f"suite = coalesce(?, ({latest})) ORDER BY id", [suite])

    def latest(self, configs: Sequence[TrainConfig], settings: CheckSettings, sha256: str) -> GradientCheck | None:
        named = asdict(settings)
        equal = ("dataset_sha256", "json_extract(configs, '$[0].seed')", *named)
        condition = f"{' AND '.join(f'{name} = ?' for name in equal)} {LATEST}"
        checks = self._checks(condition, [sha256, configs[0].seed, *named.values()])
        # Compared as configs, not as text: an older klcli wrote fewer settings, in another order.
        return next((check for check in checks if check.configs == tuple(configs)), None)

    def _checks(self, condition: str, values: Sequence[object]) -> list[GradientCheck]:
        checks = [*self._db.records(GradientCheck, f"gradient_checks WHERE {condition}", values)]
        of_check = "gradient_errors WHERE check_id = ? ORDER BY position"
        return [replace(one, errors=tuple(self._db.records(GradientError, of_check, [one.id]))) for one in checks]
