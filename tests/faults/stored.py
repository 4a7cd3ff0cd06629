"""The content of a database, read without klcli's own code, and the comparison of two databases."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from klcli.store import checkpoints

# What two runs of the same config may differ in: when, where and how long.
OF_THE_MOMENT = {
    *("id", "study_id", "run_id", "started_at", "finished_at", "host", "pid", "owner", "identity"),
    *("command", "seconds", "checkpoint", "previous_sha256", "error", "versions"),
}
SHORT = ("--data", "synthetic", "--subset", "300", "--hidden", "10", "--bn")  # a network that learns in no time
TRAIN = ("train", *SHORT, "--step-epochs", "3")  # 12 epochs


def rows(path: Path, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    """Rows of a database."""
    with closing(sqlite3.connect(path, timeout=30)) as connection:  # not read-only: a hot journal is rolled back
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql, parameters)]


def run_of(path: Path, run: int = 1) -> dict[str, Any] | None:
    """One run, or None where it was never recorded."""
    if not path.exists() or not rows(path, "SELECT 1 FROM sqlite_master WHERE name = 'runs'"):
        return None
    found = rows(path, "SELECT * FROM runs WHERE id = ?", run)
    return found[0] if found else None


def epochs_of(path: Path, run: int = 1) -> list[float]:
    """The epochs that are stored of a run."""
    return [row["epoch"] for row in rows(path, "SELECT epoch FROM epochs WHERE run_id = ? ORDER BY epoch", run)]


def printed_epochs(stderr: str) -> list[float]:
    """The epochs that a training told as done."""
    lines = (line for line in stderr.splitlines() if line.startswith("epoch ") and line.count("  ") >= 3)
    return [float(line.split()[1].partition("/")[0]) for line in lines]


def outcome(path: Path, run: int = 1) -> dict[str, Any]:
    """All that a run must have in common with an uninterrupted one: every number, and the SHA-256 of its weights."""
    found = run_of(path, run)
    assert found is not None
    epochs = rows(path, "SELECT * FROM epochs WHERE run_id = ? ORDER BY epoch", run)
    weights = checkpoints.load(path.parent / found["checkpoint"]) if found["checkpoint"] else None
    return {
        "run": {name: value for name, value in found.items() if name not in OF_THE_MOMENT},
        "epochs": [{name: value for name, value in row.items() if name not in OF_THE_MOMENT} for row in epochs],
        "weights": weights.sha256 if weights else None,
    }


def is_whole(path: Path) -> bool:
    """Whether SQLite finds nothing wrong with the file."""
    return rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def leftovers(path: Path) -> list[str]:
    """Temporary checkpoints that nobody has cleared away, of the database at `path`."""
    return sorted(file.name for file in (path.parent / "checkpoints").glob(".*"))
