"""The file of a database: in every mode, on every kind of place, with every limit, each with its own cause."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from shlex import quote
from typing import Any

import pytest
from raw_sql import execute, execute_all

from klcli.errors import StoreError
from klcli.store.store import Store

NEEDS_MOUNTS = pytest.mark.skipif(
    os.name != "posix" or os.getuid() != 0 or shutil.which("unshare") is None, reason="only the superuser mounts"
)
KILLED = "0" * 16  # as a run and its lock file name a process
LOOK = """
import sys
from contextlib import closing
from pathlib import Path
from klcli.errors import KlcliError
from klcli.store.store import Store
# as the user
try:
    with closing(Store(Path(sys.argv[1]))) as store:
        print([(run.id, run.state) for run in store.runs.where("1 ORDER BY id")])
        store.upkeep.set_note([1], "x")
except KlcliError as error:
    print(error)
"""


def mode(path: Path) -> str:
    [(found,)] = execute(path, "PRAGMA journal_mode")
    return str(found)


def in_wal(path: Path) -> sqlite3.Connection:
    """Put a database into WAL, as an earlier klcli did, add a run and keep it open: the run is in the -wal alone."""
    connection = sqlite3.connect(path, isolation_level=None)
    assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    connection.execute("UPDATE runs SET note = 'in the wal'")
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0
    return connection


def note(path: Path) -> str | None:
    with closing(Store(path)) as store:
        return store.runs.get(1).note


@pytest.fixture
def complete(recorder: Any) -> Iterator[Path]:
    recorder.store.runs.finish(recorder.begin(), "failed", None, 1.0)
    recorder.store.close()
    yield recorder.path


def test_a_new_database_has_a_rollback_journal_and_flushes_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the tests' own connections flush nothing
    with closing(Store(tmp_path / "klcli.db")) as store:
        assert store._db.read("PRAGMA journal_mode") == [{"journal_mode": "delete"}]
        assert store._db.read("PRAGMA synchronous") == [{"synchronous": 3}]


def test_a_database_in_wal_is_put_back_with_all_of_its_rows(complete: Path) -> None:
    in_wal(complete).close()
    assert note(complete) == "in the wal"
    assert mode(complete) == "delete"
    assert sorted(path.name for path in complete.parent.iterdir() if path.is_file()) == ["klcli.db"]


def test_a_database_in_wal_that_another_program_has_open_is_used_as_it_is(complete: Path) -> None:
    other = in_wal(complete)
    other.execute("BEGIN")
    other.execute("SELECT * FROM runs").fetchall()
    assert note(complete) == "in the wal"
    other.close()
    assert note(complete) == "in the wal"
    assert mode(complete) == "delete"


def read_only(folder: Path, *arguments: str, at: Path | None = None) -> str:
    """Run Python with a folder mounted read-only, by default at its own place, and return what it prints."""
    there = at or folder
    mount = f'mount --bind {quote(str(folder))} "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, str(there), sys.executable, "-c", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount" in done.stderr:
        pytest.skip(f"no mount is possible here: {done.stderr}")
    assert done.stderr == ""
    return done.stdout


def leave_as_is(path: Path) -> None:
    pass


def leave_in_wal(path: Path) -> None:
    other = in_wal(path)
    files = {file: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    other.close()  # takes the -wal along
    for file, content in files.items():
        if not file.name.endswith("-shm"):
            file.write_bytes(content)


def leave_running(path: Path) -> None:
    execute(path, f"UPDATE runs SET state = 'running', owner = '{KILLED}'")


def leave_killed(path: Path) -> None:
    """As `leave_running`, with the lock that nobody holds any more."""
    leave_running(path)
    (path.parent / "locks").mkdir(exist_ok=True)
    (path.parent / "locks" / f"{KILLED}.lock").touch()


def leave_a_hot_journal(path: Path) -> None:
    """A process is killed in the middle of a large write."""
    script = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size = 1')\n"
        "c.execute('BEGIN IMMEDIATE')\n"
        "c.execute('UPDATE runs SET state = \"diverged\"')\n"
        "c.execute('CREATE TABLE large AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) '\n"
        "          'SELECT randomblob(4000) AS x FROM n')\n"
        "os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert path.with_name(f"{path.name}-journal").exists()


@NEEDS_MOUNTS
@pytest.mark.parametrize(
    ("leave", "expected"),
    [
        (leave_as_is, "failed"),
        (leave_in_wal, "failed"),
        (leave_running, "interrupted"),
        (leave_killed, "interrupted"),
        (leave_a_hot_journal, "failed"),
    ],
)
def test_a_database_on_read_only_media_is_read_whatever_its_state(
    complete: Path, leave: Callable[[Path], None], expected: str
) -> None:
    leave(complete)
    before = {path.name: path.read_bytes() for path in complete.parent.iterdir() if path.is_file()}
    states, refusal = read_only(complete.parent, LOOK, str(complete)).splitlines()
    assert states == f"[(1, '{expected}')]"
    assert refusal.startswith(f"{complete}: this database cannot be written")
    assert {path.name: path.read_bytes() for path in complete.parent.iterdir() if path.is_file()} == before


@NEEDS_MOUNTS
def test_a_lab_of_a_database_that_only_others_write_sees_what_they_write(complete: Path, tmp_path: Path) -> None:
    """With a killed run in it, it is read from a copy."""
    leave_killed(complete)
    (there := tmp_path / "there").mkdir()
    script = """
import sqlite3, sys
from klcli import Lab
lab = Lab(sys.argv[1])
print(lab.store.runs.get(1).state, lab.store is lab.store)
with sqlite3.connect(sys.argv[2]) as other:
    other.execute("UPDATE runs SET state = 'complete'")
print(lab.run("last").state, lab.store is lab.store)
"""
    printed = read_only(complete.parent, script, str(there / complete.name), str(complete), at=there)
    assert printed.splitlines() == ["interrupted True", "complete True"]


@NEEDS_MOUNTS
def test_a_database_of_an_earlier_klcli_on_read_only_media_is_read(complete: Path) -> None:
    execute_all(
        complete, "DELETE FROM _sqlite_migrations WHERE name LIKE 'm011%'", "DROP TABLE _numbers",
        "ALTER TABLE studies DROP COLUMN command", "ALTER TABLE runs DROP COLUMN owner",
        "ALTER TABLE runs ADD COLUMN process_started_at REAL NOT NULL DEFAULT 1",
    )  # fmt: skip
    states, _ = read_only(complete.parent, LOOK, str(complete)).splitlines()
    assert states == "[(1, 'failed')]"


def test_a_process_without_files_left_names_that_and_no_damage(complete: Path) -> None:
    used = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    if not used:
        pytest.skip("this system does not count open files")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    messages = set()
    for spare in range(4):
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1 + spare, limits[1]))
        try:
            with closing(Store(complete)) as store:
                store.upkeep.set_note([1], "x")
        except StoreError as error:
            messages.add(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in held:
                os.close(descriptor)
    assert any("Too many open files" in message for message in messages)
    assert not any("damaged" in message for message in messages)
    with closing(Store(complete)) as store:
        assert store.runs.get(1).state == "failed"


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only the superuser becomes another user")
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_what_another_user_may_not_read_is_named(complete: Path, closed: str) -> None:
    (complete if closed == "file" else complete.parent).chmod(0)
    script = LOOK.replace("# as the user", "import os, filelock, urllib.parse\nos.setgid(65534)\nos.setuid(65534)")
    for folder in complete.parents[1:]:
        if folder.stat().st_mode & 0o111 != 0o111 and len(folder.parts) > 2:
            folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", script, str(complete)], capture_output=True, text=True, check=False, cwd="/"
    )
    (complete if closed == "file" else complete.parent).chmod(0o755)
    assert (done.stderr, "damaged" in done.stdout, "Permission denied" in done.stdout) == ("", False, True), done
    assert done.stdout.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_a_pipe_or_a_folder_in_the_place_of_a_journal_is_named(
    complete: Path, suffix: str, make: Callable[[Path], None], request: pytest.FixtureRequest
) -> None:
    beside = complete.with_name(f"{complete.name}{suffix}")
    make(beside)
    with pytest.raises(StoreError) as error:
        Store(complete)
    what = request.node.callspec.id.partition("-")[0]
    assert str(error.value) == f"{beside}: this is {what} in the place of a file of SQLite, remove it"


@pytest.mark.parametrize("change", ["file", "folder", "deleted"])
def test_a_database_that_is_moved_while_it_is_open_is_named(complete: Path, change: str) -> None:
    with closing(Store(complete)) as store:
        if change == "deleted":
            complete.unlink()
        else:
            moved = complete if change == "file" else complete.parent
            moved.rename(moved.with_name("moved"))
        with pytest.raises(StoreError, match="was moved or deleted while it was open, name its new place with --db"):
            store.upkeep.set_note([1], "x")


@pytest.mark.slow
def test_a_process_with_very_few_files_learns_to_raise_the_limit(three_runs_here: Path) -> None:
    for limit, command in product(range(5, 12), ("note 1 x", "check")):
        done = limited(resource.RLIMIT_NOFILE, limit, three_runs_here / "klcli.db", *command.split())
        assert "damaged" not in done.stdout  # a checkpoint that cannot be opened now
        if done.returncode:
            assert "Too many open files" in done.stderr and "`ulimit -" in done.stderr, (limit, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [20, 40, 60])
def test_a_process_with_very_little_memory_ends_with_one_line(three_runs_here: Path, megabytes: int) -> None:
    """Without room for a thread, it had a traceback; without room for a library, the advice of that library."""
    done = limited(resource.RLIMIT_AS, megabytes * 1_000_000, three_runs_here / "klcli.db", "check")
    assert done.returncode == 1 and done.stderr.startswith("klcli: ") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.slow
def test_a_file_that_the_limit_of_files_cuts_short_names_the_limit(three_runs_here: Path) -> None:
    done = limited(
        resource.RLIMIT_FSIZE, 1000, three_runs_here / "klcli.db", "export", "--tables", str(three_runs_here / "tables")
    )
    assert (done.returncode, done.stdout) == (4, "")
    cure = "cannot be written (File too large): this process has reached a limit, raise it with `ulimit -f`\n"
    assert done.stderr.endswith(cure) and not [*three_runs_here.glob("tables/*.csv")]


def limited(kind: int, limit: int, database: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "klcli", "runs", *words, "--db", str(database)],
        capture_output=True, text=True, check=False, preexec_fn=lambda: resource.setrlimit(kind, (limit, limit)),
    )  # fmt: skip


def test_a_check_counts_one_run_as_one(complete: Path, answer: Callable[..., Any]) -> None:
    stray = complete.parent / "checkpoints" / "stray.npz"
    stray.parent.mkdir(exist_ok=True)
    stray.touch()
    _, out, _ = answer("runs", "check", "--db", str(complete))
    assert out.endswith(": 1 run, the database and all checkpoints are sound, 1 orphan\n"), out
