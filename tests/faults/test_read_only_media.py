"""Databases on read-only media, in each state that a process can leave: read as they are, and left alone."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sabotage import Plan, sabotage
from stored import TRAIN, run_of
from trials import TIMEOUT, Trials
from warm import Laboratory

# Mounts a folder read-only in a name space of its own, then runs each command, and prints what came of them.
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
COMMANDS = """
import contextlib, io, json, sys
from klcli.cli.app import main
answers = []
for command in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(command)
            code = 0
        except SystemExit as end:
            code = end.code or 0
    answers.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""
HOT_JOURNAL = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE runs SET state = 'diverged'")
connection.execute("CREATE TABLE large AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) "
                   "SELECT randomblob(4000) AS x FROM n")
os._exit(0)
"""
IN_WAL = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("UPDATE runs SET note = 'in the wal'")
os._exit(0)
"""

pytestmark = [
    pytest.mark.timeout(TIMEOUT),
    pytest.mark.slow,
    pytest.mark.skipif(
        os.name != "posix" or os.geteuid() != 0 or shutil.which("unshare") is None, reason="only the superuser mounts"
    ),
]


def as_it_is(db: Path) -> None:
    pass


def in_wal(db: Path) -> None:
    subprocess.run([sys.executable, "-c", IN_WAL, str(db)], check=True)
    assert db.with_name("klcli.db-wal").stat().st_size > 0


def in_wal_without_shm(db: Path) -> None:
    """As a copy has it."""
    in_wal(db)
    db.with_name("klcli.db-shm").unlink()


def hot_journal(db: Path) -> None:
    subprocess.run([sys.executable, "-c", HOT_JOURNAL, str(db)], check=True)
    assert db.with_name("klcli.db-journal").exists()


def older_schema(db: Path) -> None:
    """As before the last migration."""
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("DELETE FROM _sqlite_migrations WHERE name LIKE 'm011%'")
        connection.execute("DROP TABLE _numbers")
        connection.execute("ALTER TABLE studies DROP COLUMN command")
        connection.execute("ALTER TABLE runs DROP COLUMN owner")
        connection.execute("ALTER TABLE runs ADD COLUMN process_started_at REAL NOT NULL DEFAULT 1")


STATES = (as_it_is, in_wal, in_wal_without_shm, hot_journal, older_schema)


def test_read_only_media(lab: Laboratory, row: Callable[[str, str], Trials], tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "source"
    for seed, crash in (("0", False), ("1", True)):  # run 1 is complete, run 2 was killed after some epochs
        plan = (sabotage, Plan(str(source), 70)) if crash else None
        lab.run(*TRAIN, "--seed", seed, "--db", str(source / "klcli.db"), prepare=plan)
    one, two = run_of(source / "klcli.db", 1), run_of(source / "klcli.db", 2)
    assert one is not None and two is not None
    assert (one["state"], two["state"], two["epochs_done"] > 2) == ("complete", "running", True)
    reading = {
        "best": (["report", "--best", "3", "--format", "json"], (0,)),
        "list": (["report", "--list", "--format", "json"], (0,)),
        "run": (["report", "--run", "1", "--format", "json"], (0,)),
        "export": (["runs", "export", "--tables", "EXPORT"], (0,)),
        "check": (["runs", "check"], (0, 4)),
        "evaluate": (["evaluate", "1", "--flips", "--data", "synthetic"], (0, 4)),
        "note": (["runs", "note", "1", "x"], (4,)),
        "delete": (["runs", "delete", "1", "--yes"], (4,)),
        "resume": (["train", "--resume", "2"], (4,)),
        "train": ([*TRAIN], (4,)),
    }
    trials = row(
        f"{len(reading)} commands on a read-only mount of a database with a complete and a killed run: as it is, "
        "in WAL with and without a -shm, with a hot journal, with an older schema",
        "reports as on writable media, exit 4 and one line for what would write, every file unchanged",
    ).all([(state, command) for state in STATES for command in reading])

    def trial(state: Callable[[Path], None]) -> None:
        folder, writable = tmp_path / state.__name__, tmp_path / f"{state.__name__} writable"
        shutil.copytree(source, folder)
        state(folder / "klcli.db")
        shutil.copytree(folder, writable)
        before = content(folder)
        export = str(tmp_path / f"{state.__name__} export")
        commands = [
            [word.replace("EXPORT", export) for word in (*command, "--db", str(folder / "klcli.db"))]
            for command, _ in reading.values()
        ]
        answers = run(folder, commands, cache)
        reports = ("best", "list", "run")
        expected = dict(zip(reports, on_writable(writable, [reading[name][0] for name in reports], cache), strict=True))
        for (name, (_, codes)), (code, out, err) in zip(reading.items(), answers, strict=True):
            which = f"{name} {state.__name__}"
            trials.tried["trials"] += 1
            trials.tried[f"exit {code}"] += 1
            trials.expect(code in codes, f"{which}: exit {code}: {err[-300:]}")
            trials.expect("Traceback" not in out + err, f"{which}: {err[-500:]}")
            said = [line for line in err.splitlines() if line.startswith("klcli: ")]
            trials.expect(len(said) == bool(code) or name == "check", f"{which}: {err[-300:]}")
            if name in expected:
                right = expected[name][1].replace(str(writable), str(folder))
                trials.expect(out == right, f"{which}: other than on writable media")
                trials.expect("running" not in json.dumps(json.loads(out)), f"{which}: a dead run is running")
        trials.expect(content(folder) == before, f"{state.__name__}: a file has changed")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(trial, STATES))
    assert trials.lost == []


def run(folder: Path, commands: list[list[str]], cache: Path, writable: bool = False) -> list[tuple[int, str, str]]:
    """Run commands with `folder` mounted read-only; return exit codes and outputs."""
    mount = [] if writable else ["unshare", "--mount", "sh", "-c", READ_ONLY, str(folder)]
    done = subprocess.run(
        [*mount, sys.executable, "-c", COMMANDS, json.dumps(commands)],
        env=os.environ | {"KLCLI_CACHE": str(cache), "OPENBLAS_NUM_THREADS": "1", "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount" in done.stderr:
        pytest.skip(f"no mount is possible here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout.splitlines()[-1])]


def on_writable(folder: Path, commands: list[list[str]], cache: Path) -> list[tuple[int, str, str]]:
    return run(folder, [[*command, "--db", str(folder / "klcli.db")] for command in commands], cache, writable=True)


def content(folder: Path) -> dict[str, tuple[str, int]]:
    """The files of a folder, what is in them and when they were changed."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {
        str(file.relative_to(folder)): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in files
    }
