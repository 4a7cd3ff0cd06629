"""Time and memory of `klcli report` on 100 000 runs of 10 epochs: `python -m tests.benchmarks.large_database`.

The runs have 300 settings with many seeds, three sets of images, every state, studies, tags and notes; 200 have a
checkpoint in a file.
"""

import json
import os
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

RUNS, EPOCHS = 100_000, 10
TRAIN = "train --data synthetic --subset 200 --epochs 1 --hidden 50 50 --bn --quiet"
HIDDEN = ([50, 50], [50], [20], [100, 50], [50, 30, 20, 20, 10, 10, 10, 10])
SETTINGS = [*product(HIDDEN, (True, False), range(30))]  # widths, BN and lambda: 300 settings
STATES = ["complete"] * 17 + ["diverged", "interrupted", "failed"]
COMMANDS = (
    "report",
    "report --best 3",
    "report --best 3 --json",
    "report --best 100000 --format csv",
    "report --list",
    "report --list --limit 20",
    "report --list --state failed",
    "report --list --json",
    "report --list --format csv",
    "report --group-by hidden",
    "report --group-by hidden,bn,lambda --format csv",
    "report --group-by hiden",
    "report --sort wrong",
    "report --where 'lambda < 1e-3 AND test_accuracy > 0.9'",
    "report --tagged thesis",
    "report --since 7d",
    "report --run 50005 50006",
    "report --study 7",
    "runs check",
    "runs check --contents",
    "runs export --tables tables",
    "report --html report.html",
)


def main() -> None:
    """Print the seconds, the megabytes and the exit code of every command."""
    wanted = sys.argv[1:] or COMMANDS
    with tempfile.TemporaryDirectory() as folder:
        _measured(Path(folder), TRAIN)
        enlarge(Path(folder) / "results/klcli.db")
        size = (Path(folder) / "results/klcli.db").stat().st_size / 1e6
        print(f"{RUNS} runs of {EPOCHS} epochs, {size:.0f} MB")
        for command in wanted:
            print("{:6.2f} s {:5.0f} MB  exit {}  ".format(*_measured(Path(folder), command)) + command, flush=True)


def _measured(folder: Path, command: str) -> tuple[float, float, int]:
    started = time.perf_counter()
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "klcli", *shlex.split(command)], cwd=folder, stdout=out, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - started, usage.ru_maxrss / 1e3, process.returncode


def enlarge(path: Path, runs: int = RUNS, epochs: int = EPOCHS, files: int = 200) -> None:
    """Add runs to a database until there are `runs`, made from its last one, and give every run `epochs` epochs."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    last = dict(connection.execute("SELECT * FROM runs ORDER BY id DESC LIMIT 1").fetchone())
    computed = [row["name"] for row in connection.execute("PRAGMA table_xinfo(runs)") if row["hidden"]]
    stored = {name: value for name, value in last.items() if name not in computed}
    columns, places = (", ".join(f'{mark}{name}"' for name in stored) for mark in ('"', ':"'))
    places = places.replace('"', "")
    images = [("synthetic", last["dataset_sha256"]), ("cifar10", "c" * 64)]
    connection.execute("BEGIN")
    for study in range(1, 1 + runs // 1000):
        words = (study, ("repeats", "lambda")[study % 2], "coarse")
        connection.execute(
            "INSERT INTO studies (id, kind, stage, settings, state, created_at)"
            " VALUES (?, ?, ?, '{}', 'complete', '2026-01-01T00:00:00+00:00')", words,
        )  # fmt: skip
    content = (path.parent / last["checkpoint"]).read_bytes()

    def row(number: int) -> dict[str, object]:
        hidden, bn, power = SETTINGS[number % len(SETTINGS)] if number > files else ([50, 50], True, number % 30)
        seed, lam = number // len(SETTINGS), 10 ** (-5 + power / 10)
        state = "complete" if number <= files else STATES[number % len(STATES)]
        name, sha256 = images[number % 3 > 0]
        split = json.loads(last["config"])["split"] | {"subset": None if number % 3 > 1 else 200}
        config = json.loads(last["config"]) | {
            "hidden": hidden, "batch_norm": bn, "lam": lam, "seed": seed, "split": split,
        }  # fmt: skip
        accuracy = 0.1 + 0.8 * (number * 2654435761 % 2**32) / 2**32
        measured = {f"{split}_accuracy": accuracy - 0.01 * i for i, split in enumerate(("train", "validation", "test"))}
        new: dict[str, object] = {
            "id": number, "config": json.dumps(config), "hidden": " ".join(map(str, hidden)), "batch_norm": int(bn),
            "lambda": lam, "seed": seed, "state": state, "dataset": name, "dataset_sha256": sha256,
            "started_at": f"2026-{1 + number * 10 // runs:02d}-{1 + number % 28:02d}T12:00:00+00:00",
            "error": None if state == "complete" else f"its process ended unexpectedly while training run {number}",
            "tags": "thesis baseline" if number % 50 == 0 else None, "checkpoint": None, "identity": f"run {number}",
            "note": f"note {number}" if number % 100 == 0 else None,
        }  # fmt: skip
        if number % 10 == 0 and number // 1000:  # runs of a study, 100 each
            new |= {"study_id": number // 1000, "member": number % 1000 // 10}
        if number <= files:
            (path.parent / f"checkpoints/run-{number:06d}.npz").write_bytes(content)
        if state == "complete":
            new |= {"checkpoint": f"checkpoints/run-{number:06d}.npz"}
        return stored | new | (measured if state == "complete" else dict.fromkeys(measured))

    connection.executemany(f"INSERT INTO runs ({columns}) VALUES ({places})", map(row, range(last["id"] + 1, runs + 1)))
    connection.execute("DELETE FROM epochs")
    numbers = "WITH RECURSIVE e(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM e WHERE i < ?)"
    measures = ", ".join(["abs(random() / 1e19)"] * 6)
    connection.execute(
        f"{numbers} INSERT INTO epochs SELECT runs.id, e.i, e.i * 450, 0.1, {measures}, 1.5 FROM runs, e", [epochs]
    )
    connection.commit()
    connection.close()


if __name__ == "__main__":
    main()
