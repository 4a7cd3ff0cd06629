"""The time of a ranking of 10 000 runs with 20 epochs each: `python -m tests.benchmarks.large_database`."""

import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS, EPOCHS = 10_000, 20
ROUNDS = 5
TRAIN = ("train", "--data", "synthetic", "--subset", "200", "--epochs", "1", "--quiet")


def main() -> None:
    """Print the median time of the whole process, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        _seconds(Path(folder), *TRAIN)
        enlarge(Path(folder) / "results/klcli.db")
        times = [_seconds(Path(folder), "report", "--best", "3") for _ in range(ROUNDS)]
    print(f"klcli report --best 3, {RUNS} runs of {EPOCHS} epochs: {statistics.median(times):.2f} s")


def _seconds(folder: Path, *args: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "klcli", *args], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def enlarge(path: Path) -> None:
    """Copy the last run of a database until there are 10 000, with random accuracies, and give each 20 epochs."""
    connection = sqlite3.connect(path)
    [last] = connection.execute("SELECT max(id) FROM runs").fetchone()
    names = ", ".join(f'"{row[1]}"' for row in connection.execute("PRAGMA table_info(runs)") if row[1] != "id")
    connection.execute(
        f"WITH RECURSIVE n(i) AS (SELECT {last + 1} UNION ALL SELECT i + 1 FROM n WHERE i < {RUNS})"
        f" INSERT INTO runs (id, {names}) SELECT i, {names} FROM n, runs WHERE runs.id = {last}"
    )
    connection.execute("UPDATE runs SET validation_accuracy = abs(random() % 1000000) / 1000001.0 WHERE id > ?", [last])
    connection.execute("DELETE FROM epochs")
    connection.execute(
        f"WITH RECURSIVE e(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM e WHERE i < {EPOCHS})"
        " INSERT INTO epochs SELECT runs.id, e.i, e.i, 0.1, 1, 1, 1, 1, 1, 1, 1 FROM runs, e"
    )
    connection.commit()
    connection.close()


if __name__ == "__main__":
    main()
