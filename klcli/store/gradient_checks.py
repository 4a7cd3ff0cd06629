"""GradientChecks: checked networks and the errors of their tensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from klcli.settings.columns import columns as columns_of
from klcli.settings.procedures import CheckSettings
from klcli.settings.train_config import TrainConfig
from klcli.store.connection import Database, now
from klcli.store.records import GradientCheck, GradientError

if TYPE_CHECKING:  # a report must not load what trains
    from klcli.data.dataset import Dataset
    from klcli.studies.gradient_checks import NetworkCheck


class GradientChecks:
    """The gradient checks, in suites: all networks that one call checked."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def record(self, checks: Sequence[NetworkCheck], dataset: Dataset, command: str) -> int:
        """Record the checks of one call together and return the number of their suite."""
        with self._db.write() as db:
            [[suite]] = db.execute("SELECT coalesce(max(id), 0) + 1 FROM gradient_checks").fetchall()
            for check_id, check in enumerate(checks, start=suite):
                first = columns_of(check.configs[0])
                row = {
                    "id": check_id,
                    "suite": suite,
                    "created_at": now(),
                    "command": command,
                    "dataset": dataset.name,
                    "dataset_sha256": dataset.sha256,
                    **{name: first[name] for name in ("hidden", "batch_norm", "bn_position")},
                    "lambda": " ".join(f"{config.lam:g}" for config in check.configs),
                    **asdict(check.settings),
                    "passed": int(not check.failed),
                    "seconds": check.seconds,
                    "configs": json.dumps([json.loads(config.to_json()) for config in check.configs]),
                }
                db.table("gradient_checks").insert(row)
                for position, tensor in enumerate(check.tensors):
                    row = {"check_id": check_id, "position": position, "passed": int(tensor not in check.failed)}
                    db.table("gradient_errors").insert(row | asdict(tensor))
        return int(suite)

    def suite(self, suite: int | None = None) -> list[GradientCheck]:
        """Return the checks of one call, by default of the latest, with the errors of their tensors."""
        return self._checks("suite = coalesce(?, (SELECT max(suite) FROM gradient_checks)) ORDER BY id", [suite])

    def latest(
        self, configs: Sequence[TrainConfig], settings: CheckSettings, dataset_sha256: str
    ) -> GradientCheck | None:
        """Return the latest check of one network, or of a stack, under these settings on one data set."""
        named = asdict(settings)
        condition = f"dataset_sha256 = ? AND {' AND '.join(f'{name} = ?' for name in named)} ORDER BY id DESC"
        checks = self._checks(condition, [dataset_sha256, *named.values()])
        # As configs and not as text: an older klcli wrote fewer settings, in another order.
        return next((check for check in checks if check.configs == tuple(configs)), None)

    def suites(self) -> list[int]:
        return [row["suite"] for row in self._db.read("SELECT DISTINCT suite FROM gradient_checks ORDER BY suite")]

    def _checks(self, condition: str, values: Sequence[object]) -> list[GradientCheck]:
        checks = self._db.records(GradientCheck, f"gradient_checks WHERE {condition}", values)
        return [replace(check, errors=self._errors(check.id)) for check in checks]

    def _errors(self, check_id: int) -> tuple[GradientError, ...]:
        source = "gradient_errors WHERE check_id = ? ORDER BY position"
        return tuple(self._db.records(GradientError, source, [check_id]))
