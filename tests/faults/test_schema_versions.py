"""Databases of every schema version so far: opened by today's code, every row is there and readable."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlite_utils
from stored import is_whole, rows
from trials import Trials

from klcli.cli.app import main
from klcli.data.dataset import Dataset
from klcli.settings.train_config import TrainConfig
from klcli.store.records import BEST_FIRST, RunFilter
from klcli.store.runs import run_row
from klcli.store.schema import migrations
from klcli.store.store import Store
from klcli.training.budget import budget_of
from klcli.training.environment import Environment

NAMES = [migration.name for migration in migrations.pending(sqlite_utils.Database(memory=True))]
OLD = [None, *NAMES]  # the step before which an old klcli stopped; the first of them is an empty file


def old_database(path: Path, versions: int) -> None:
    """A database as klcli made it when it had this many migrations, with a row in every table."""
    with closing(sqlite_utils.Database(path)) as db:
        later = NAMES[versions] if versions < len(NAMES) else None
        migrations.apply(db, stop_before=later) if later else migrations.apply(db)
        config = TrainConfig()
        dataset = Dataset("d", np.empty((0, 3072), np.uint8), np.empty(0, np.uint8), (), "s", "", "", None, None)
        run = run_row(config, budget_of(config, 45_000), dataset, Environment(1, {}), "klcli train")
        known: dict[str, Any] = run | {"kind": "lambda", "state": "complete", "validation_accuracy": 0.5, "passed": 1}
        for table in db.tables:
            if table.name.startswith("_"):
                continue
            columns = db.execute(f"PRAGMA table_info({table.name})").fetchall()
            row = {
                name: known.get(name, _any(kind))
                for _, name, kind, needed, _, key in columns
                if needed or key or name in known
            }
            row |= {name: 1 for name in ("id", "run_id", "check_id") if name in row}
            names = ", ".join(f'"{name}"' for name in row)
            db.execute(f"INSERT INTO {table.name} ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
        db.conn.commit()


REPLACED = "process_started_at"  # by the lock of a run


def _any(kind: str) -> Any:
    """A value that fits a column: an object where JSON is wanted, too."""
    return {"INTEGER": 1, "REAL": 1.0, "TEXT": "{}"}[kind]


@pytest.mark.slow
def test_old_databases(row: Callable[[str, str], Trials], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = row(
        f"databases of every schema version so far, 0 to {len(NAMES)}", "opened, migrated, every row readable"
    ).all(OLD)
    for versions, _ in trials:
        path = tmp_path / f"{versions}.db"
        old_database(path, versions)
        tables = [row["name"] for row in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
        before = {name: rows(path, f"SELECT * FROM {name}") for name in tables if not name.startswith("_")}
        store = Store(path)
        if versions:
            trials.expect(store.runs.get(1).validation_accuracy == 0.5, f"version {versions}: the run is not read")
            trials.expect(store.runs.get(1).config == TrainConfig(), f"version {versions}: its settings are not read")
            trials.expect(len(store.runs.metrics(1)) == 1, f"version {versions}: its epochs are not read")
            trials.expect(store.studies.get(1).kind == "lambda", f"version {versions}: the study is not read")
            trials.expect(
                len(store.runs.query(RunFilter(dataset_sha256="s", state="complete"), BEST_FIRST, 10)) == 1,
                f"version {versions}: the run is not ranked",
            )
        store.close()
        for name, old in before.items():
            new = rows(path, f"SELECT * FROM {name}")
            kept = [{key: value for key, value in row.items() if key in old[0]} for row in new]
            old = [{key: value for key, value in row.items() if key != REPLACED} for row in old]
            trials.expect(kept == old, f"version {versions}: the rows of {name} have changed")
            trials.tried["rows"] += len(old)
        trials.expect(is_whole(path), f"version {versions}: damaged")
        with pytest.raises(SystemExit) as exit_:
            main(["report", "--json", "--db", str(path)])
        trials.expect(not exit_.value.code, f"version {versions}: {capsys.readouterr().err}")
    assert trials.lost == []
