"""The SQLite of the system and a current one at once on one database: nothing lost, whatever mode it was left in."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from stored import is_whole, rows
from trials import TIMEOUT, Trials

from klcli.store.store import Store

CURRENT = os.environ.get("KLCLI_TEST_CURRENT_SQLITE", "")  # a folder with a wheel that carries one
HERE = Path(__file__).parent
Row = Callable[[str, str], Trials]
EPOCHS = 50
# Waits for the start, then writes a run of 50 epochs, or reads until all runs are complete.
WORKER = """
import sqlite3, sys, time
from contextlib import closing
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/.."]  # tests/faults and tests
from test_many_writers import write
from klcli.store.store import Store
task, path, go, complaint = sys.argv[2:]
print(sqlite3.sqlite_version, flush=True)
if task == "write":
    write(path, go, complaint)
else:
    while not Path(go).exists():
        time.sleep(0.002)
    highest, looks = 0, 0
    while highest < int(task):
        with closing(Store(Path(path))) as store:
            found = sum(len(store.runs.epochs(run.id)) for run in store.runs.where("1"))
        assert found >= highest, f"{found} epochs after {highest}"
        highest, looks = found, looks + 1
"""
# Leaves a database in WAL, as an earlier klcli did, with the newest rows in the -wal alone: it ends without a close.
LEAVE_IN_WAL = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
assert connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal"
connection.execute("PRAGMA wal_autocheckpoint = 0")
for number in range(int(sys.argv[2])):
    connection.execute("INSERT INTO studies (id, kind, stage, settings, state, created_at) "
                       "VALUES (?, 'lambda', 'coarse', '{}', 'complete', '2026')", [100 + number])
os._exit(0)
"""

pytestmark = [
    pytest.mark.timeout(TIMEOUT),
    pytest.mark.slow,
    pytest.mark.skipif(not CURRENT, reason="KLCLI_TEST_CURRENT_SQLITE names no current SQLite"),
]


def start(is_current: bool, script: str, *arguments: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"} | ({"PYTHONPATH": CURRENT} if is_current else {})
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def all_end_well(trials: Trials, name: str, workers: Sequence["subprocess.Popen[str]"]) -> set[str]:
    """Wait for all; return the versions of SQLite that they used."""
    versions = set()
    for worker in workers:
        out, err = worker.communicate(timeout=120)
        trials.expect(worker.returncode == 0, f"{name}: {err[-300:]}")
        versions.add(out.strip())
    return versions


def mode(path: Path) -> list[dict[str, str]]:
    return rows(path, "PRAGMA journal_mode")


def test_at_once(row: Row, tmp_path: Path) -> None:
    trials = row(
        "writers and readers with the SQLite of the system and with a current one at once on one database",
        "no error, every epoch is there, none vanishes, integrity_check ok, no WAL",
    ).planned(1, 15)
    used: set[str] = set()
    for number, _ in trials:
        name, path, go = f"trial {number}", tmp_path / str(number) / "klcli.db", tmp_path / f"go {number}"
        writers = 4 if number else 3
        workers = [
            start(bool(which % 2), WORKER, str(HERE), "write", str(path), str(go), str(tmp_path / f"error {which}"))
            for which in range(writers)
        ]
        readers = [
            start(bool(which), WORKER, str(HERE), str(writers * EPOCHS), str(path), str(go), "") for which in range(2)
        ]
        go.touch()
        used |= all_end_well(trials, name, [*workers, *readers])
        [stored] = rows(path, "SELECT count(*) AS n FROM epochs")
        [complete] = rows(path, "SELECT count(*) AS n FROM runs WHERE state = 'complete'")
        trials.expect(stored["n"] == writers * EPOCHS, f"{name}: {stored['n']} epochs of {writers * EPOCHS}")
        trials.expect(complete["n"] == writers, f"{name}: {complete['n']} complete runs of {writers}")
        trials.expect(is_whole(path), f"{name}: the database is damaged")
        trials.expect(mode(path) == [{"journal_mode": "delete"}], f"{name}: {mode(path)}")
        trials.tried["commits"] += writers * (EPOCHS + 2)
    assert len(used) == 2, f"{used}: the two are one"
    trials.remarks.append(f"SQLite {' and '.join(sorted(used))}")
    assert trials.lost == []


def test_left_in_wal(row: Row, tmp_path: Path) -> None:
    trials = row(
        "a database that an earlier klcli left in WAL, its newest rows in the -wal, opened by both SQLites at once",
        "every row is there, integrity_check ok, the rollback journal in the end",
    ).planned(2, 30)
    for number, rng in trials:
        name, path, go = f"trial {number}", tmp_path / str(number) / "klcli.db", tmp_path / f"go {number}"
        Store(path).close()
        left, waiting = int(rng.integers(1, 200)), path.with_name("klcli.db-wal")
        all_end_well(trials, name, [start(bool(number % 2), LEAVE_IN_WAL, str(path), str(left))])
        trials.expect(waiting.exists() and waiting.stat().st_size > 0, f"{name}: nothing is in the -wal")
        workers = [
            start(bool(which % 2), WORKER, str(HERE), "write", str(path), str(go), str(tmp_path / f"error {which}"))
            for which in range(2)
        ]
        go.touch()
        all_end_well(trials, name, workers)
        [studies] = rows(path, "SELECT count(*) AS n FROM studies WHERE id >= 100")
        [epochs] = rows(path, "SELECT count(*) AS n FROM epochs")
        trials.expect(studies["n"] == left, f"{name}: {studies['n']} rows of {left} that were in the -wal")
        trials.expect(epochs["n"] == 2 * EPOCHS, f"{name}: {epochs['n']} epochs of {2 * EPOCHS}")
        Store(path).close()  # the last one alone can always put it back
        trials.expect(is_whole(path), f"{name}: the database is damaged")
        trials.expect(mode(path) == [{"journal_mode": "delete"}], f"{name}: {mode(path)}")
        trials.expect(not waiting.exists(), f"{name}: a -wal stays")
        trials.tried["rows in the -wal"] += left
    assert trials.lost == []
