"""Speed with a large database: of 10 000 runs with 20 epochs each, a ranking reads the best ones and no epoch.

The test counts operations of SQLite, so the result does not depend on the load of the machine; the time is measured by
`python -m tests.benchmarks.large_database`.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from benchmarks.large_database import EPOCHS, RUNS, enlarge

Klcli = Callable[..., "CompletedProcess[str]"]
INSTRUCTIONS = 100  # of SQLite's virtual machine per progress callback


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the statements, the instructions and the rows of every connection that is opened from now on."""
    counts: Counter[str] = Counter()
    connect = sqlite3.connect

    class CountingCursor(sqlite3.Cursor):
        def fetchall(self) -> list[Any]:
            rows = super().fetchall()
            counts["rows"] += len(rows)
            return rows

        def __next__(self) -> Any:
            row = super().__next__()
            counts["rows"] += 1
            return row

    class CountingConnection(sqlite3.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            return self.cursor(CountingCursor).execute(*arguments)

    def begin(sql: str) -> None:
        counts["statements"] += 1
        counts["is_check"] = sql.startswith("PRAGMA quick_check")  # it reads the whole file, once

    def go_on() -> None:
        counts["instructions"] += 0 if counts["is_check"] else INSTRUCTIONS

    def counting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options, factory=CountingConnection)
        connection.set_trace_callback(begin)
        connection.set_progress_handler(go_on, INSTRUCTIONS)
        return connection

    monkeypatch.setattr(sqlite3, "connect", counting)
    return counts


def test_the_best_of_ten_thousand(here: Klcli, trained: Path, work: Counter[str]) -> None:
    assert here("report", "--best", "3").returncode == 0
    of_three = work.copy()
    enlarge(trained / "results/klcli.db")
    work.clear()
    done = here("report", "--best", "3")
    assert done.returncode == 0, done.stderr
    of_all = work.copy()

    connection = sqlite3.connect(trained / "results/klcli.db")
    assert connection.execute("SELECT count(*) FROM epochs").fetchone() == (RUNS * EPOCHS,)
    best = connection.execute(
        "SELECT id FROM runs WHERE state = 'complete' ORDER BY validation_accuracy DESC, id LIMIT 3"
    ).fetchall()
    connection.close()
    shown = [line.split()[0] for line in done.stdout.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert shown == [str(run) for (run,) in best]
    assert of_all["statements"] == of_three["statements"]  # none per run
    assert of_all["rows"] == of_three["rows"] > 3
    assert of_all["instructions"] < 50 * RUNS  # one look at each run; at each epoch, they would be millions
