"""Speed and memory with a large database: of 10 000 runs with 20 epochs each, a ranking reads the best ones only.

The tests count operations of SQLite and bytes, so the result does not depend on the load of the machine; the times are
measured by `python -m tests.benchmarks.large_database`.
"""

import csv
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from benchmarks.large_database import enlarge
from command import Klcli, read, succeeded

pytestmark = pytest.mark.slow

RUNS, EPOCHS = 10_000, 20
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
    enlarge(trained / "results/klcli.db", RUNS, EPOCHS)
    work.clear()
    done = succeeded(here("report", "--best", "3"))
    of_all = work.copy()

    assert read(trained, "SELECT count(*) AS n FROM epochs") == [{"n": RUNS * EPOCHS}]
    ranked = "FROM runs WHERE state = 'complete' AND dataset = 'cifar10'"
    common = (
        f"SELECT split {ranked} GROUP BY split"
        " ORDER BY json_extract(split, '$.subset') IS NULL DESC, count(*) DESC, max(id) DESC LIMIT 1"
    )
    best = read(trained, f"SELECT id {ranked} AND split = ({common}) ORDER BY validation_accuracy DESC, id LIMIT 3")
    shown = [line.split()[0] for line in done.stdout.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert shown == [str(run["id"]) for run in best]
    assert of_all["statements"] == of_three["statements"]  # none per run
    assert of_all["rows"] == of_three["rows"] + 2 > 3  # of the two other sets of images
    assert of_all["instructions"] < 50 * RUNS  # one look at each run; at each epoch, they would be millions


@pytest.fixture(scope="module")
def large(three_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database of 10 000 runs in results/, which no test changes."""
    folder = tmp_path_factory.mktemp("large")
    shutil.copytree(three_runs, folder / "results")
    enlarge(folder / "results/klcli.db", RUNS, EPOCHS)
    return folder


@pytest.fixture(scope="module")
def few(large: Path) -> float:
    """The memory for three runs."""
    return peak(large, "report", "--best", "3")[0]


def peak(folder: Path, *args: str) -> tuple[float, int]:
    """Return the largest memory of a real process in MB, and its exit code; its output is in the file `out`."""
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen([sys.executable, "-m", "klcli", *args], cwd=folder, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss / 1e3, process.returncode


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units")
@pytest.mark.parametrize(
    "words",
    [
        "--list", "--list --json", "--list --format csv", "--list --state failed", "--best 10000 --format csv",
        "--group-by hidden,bn,lambda", "runs check", "runs export --tables tables",
    ],
)  # fmt: skip
def test_memory_does_not_grow_with_the_database(large: Path, few: float, words: str) -> None:
    """Whole records of 10 000 runs take 140 MB."""
    all_, code = peak(large, *(() if words.startswith("runs") else ("report",)), *words.split())
    assert code == (4 if words == "runs check" else 0)  # most checkpoints are missing
    assert all_ - few < 50


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        ("--group-by hiden", "--group-by hiden: the nearest is hidden"),
        ("--group-by bn,lamda", "--group-by lamda: the nearest is lambda"),
        ("--sort validation_acuracy", "--sort validation_acuracy: this is not a column of runs, the nearest is v"),
        ("--list --sort secnds:desc", "--sort secnds: this is not a column of runs, the nearest is seconds"),
        ("--where seet=1", "no such column: seet"),
    ],
)
def test_a_wrong_column_is_refused_before_any_run_is_read(
    here: Klcli, large: Path, monkeypatch: pytest.MonkeyPatch, work: Counter[str], words: str, nearest: str
) -> None:
    monkeypatch.setenv("KLCLI_DB", str(large / "results/klcli.db"))
    done = here("report", "--quiet", *words.split())
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert nearest in line
    assert work["instructions"] < 0.5 * RUNS


def test_a_long_list_names_its_limit_and_csv_has_every_run(large: Path) -> None:
    assert peak(large, "report", "--list")[1] == 0
    text = (large / "out").read_text()
    numbers = [line.split()[0] for line in text.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    newest = read(large, "SELECT id FROM runs ORDER BY started_at DESC, id DESC LIMIT 1000")
    assert numbers == [str(row["id"]) for row in newest]
    assert f"Only the newest 1000 of {RUNS} runs: `--limit {RUNS}` shows all." in text
    assert peak(large, "report", "--list", "--format", "csv")[1] == 0
    with (large / "out").open() as file:
        listed = list(csv.DictReader(file))
    stored = read(large, "SELECT id, validation_accuracy, hidden, seed FROM runs ORDER BY started_at DESC, id DESC")
    shown = [(int(one["id"]), one["validation_accuracy"], one["network"], int(one["seed"])) for one in listed]
    for (number, accuracy, network, seed), row in zip(shown, stored, strict=True):
        exact = row["validation_accuracy"]
        assert (number, accuracy, seed) == (row["id"], "" if exact is None else str(exact), row["seed"])
        assert row["hidden"].replace(" ", "-") in network


def test_groups_have_the_means_of_the_database(large: Path) -> None:
    assert peak(large, "report", "--dataset", "synthetic", "--group-by", "hidden,bn", "--format", "csv")[1] == 0
    with (large / "out").open() as file:
        groups = list(csv.DictReader(file))
    rows = read(
        large,
        "SELECT hidden, batch_norm, validation_accuracy, min(id) FROM runs"
        " WHERE state = 'complete' AND dataset = 'synthetic' GROUP BY config",  # equal settings and seeds: one run
    )
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        found.setdefault((row["hidden"], str(row["batch_norm"])), []).append(row["validation_accuracy"])
    assert len(groups) == len(found) > 5
    for one in groups:
        own = found[one["hidden"], one["batch_norm"]]
        assert int(one["validation_accuracy_n"]) == len(own)
        assert float(one["validation_accuracy_mean"]) == pytest.approx(statistics.fmean(own), rel=1e-12)
        assert float(one["validation_accuracy_std"]) == pytest.approx(statistics.stdev(own), rel=1e-9)


def test_exported_tables_have_every_row(large: Path) -> None:
    assert peak(large, "runs", "export", "--tables", "tables")[1] == 0
    with (large / "tables/epochs.csv").open() as file:
        epochs = list(csv.reader(file))
    stored = read(large, "SELECT * FROM epochs ORDER BY run_id, epoch")
    assert [[*map(float, row)] for row in epochs[1:]] == [[*map(float, row.values())] for row in stored]
    assert f"tables/epochs.csv  {RUNS * EPOCHS} rows" in (large / "out").read_text()
