"""GradientCheckStore: checked networks and the errors of their tensors."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from klcli.data.dataset import Dataset
from klcli.settings.check_settings import CheckSettings
from klcli.settings.train_config import TrainConfig
from klcli.store.database import Database, Row, now
from klcli.studies.gradient_checks import NetworkCheck


class GradientCheckStore(Database):
    """The gradient checks, in suites: all networks that one call checked."""

    def record(self, checks: Sequence[NetworkCheck], dataset: Dataset, command: str) -> int:
        """Record the checks of one call together and return the number of their suite."""
        with self._write():
            suite = self._read("SELECT coalesce(max(id), 0) + 1 AS next FROM gradient_checks")[0]["next"]
            for check_id, check in enumerate(checks, start=suite):
                first = check.members[0]
                settings = check.settings
                row = {
                    "id": check_id,
                    "suite": suite,
                    "created_at": now(),
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
                    "configs": _configs(check.members),
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

    def suite(self, suite: int | None = None) -> list[Row]:
        """Return the checks of one call, by default the latest, each with its tensors under "errors"."""
        checks = self._read(
            "SELECT * FROM gradient_checks"
            " WHERE suite = coalesce(?, (SELECT max(suite) FROM gradient_checks)) ORDER BY id",
            [suite],
        )
        return [self._with_errors(check) for check in checks]

    def latest(self, members: Sequence[TrainConfig], settings: CheckSettings, dataset_sha256: str) -> Row | None:
        """Return the latest check of one network, or group, under these settings on one data set."""
        named = asdict(settings)
        rows = self._read(
            "SELECT * FROM gradient_checks WHERE configs = ? AND dataset_sha256 = ?"
            f" AND {' AND '.join(f'{name} = ?' for name in named)} ORDER BY id DESC LIMIT 1",
            [_configs(members), dataset_sha256, *named.values()],
        )
        return self._with_errors(rows[0]) if rows else None

    def _with_errors(self, check: Row) -> Row:
        errors = self._read("SELECT * FROM gradient_errors WHERE check_id = ? ORDER BY position", [check["id"]])
        return check | {"errors": errors}


def _configs(members: Sequence[TrainConfig]) -> str:
    """The JSON by which equal networks are recognised."""
    return json.dumps([json.loads(member.to_json()) for member in members])
