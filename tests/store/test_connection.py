"""Opening the database: every way it can fail is one line, and many processes can do it at once."""

import hashlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlite_utils
from raw_sql import execute, opened

from klcli.errors import ExitCode, StoreError
from klcli.procedures.run_lookup import NEWEST
from klcli.store import connection, schema
from klcli.store.connection import Database
from klcli.store.records import BEST_FIRST, RunFilter
from klcli.store.schema import migrations
from klcli.store.store import Store

RUNS = 40
RELEASED = "a3a84b3af305332d3f022c36cbcfb6ac379fbb61e149f1e6a21782a03034d680"  # SHA-256 of the schema of steps 1 to 10


def assert_refused_in_one_line(path: Path, *words: str) -> None:
    with pytest.raises(StoreError) as error:
        Store(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path)) or message.startswith(str(path.parent))
    for word in words:
        assert word in message
    assert error.value.exit_code == ExitCode.STORE


@pytest.fixture(scope="module")
def full_database(tmp_path_factory: pytest.TempPathFactory, new_recorder: Callable[[Path], Any]) -> bytes:
    """The file of 40 runs, many pages long."""
    recorder = new_recorder(tmp_path_factory.mktemp("full") / "klcli.db")
    for _ in range(RUNS):
        recorder.begin(command="klcli train " + "x" * 2000)
    recorder.store.close()
    content: bytes = recorder.path.read_bytes()
    return content


@pytest.fixture
def database(tmp_path: Path, full_database: bytes) -> Path:
    path = tmp_path / "klcli.db"
    path.write_bytes(full_database)
    return path


def test_a_new_database_and_its_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "klcli.db"
    Store(path).close()
    assert path.is_file()


def test_opening_an_old_database_changes_nothing(database: Path) -> None:
    def content() -> dict[str, list[tuple[object, ...]]]:
        with opened(database) as db:
            tables = [name for [name] in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: db.execute(f'SELECT * FROM "{name}"').fetchall() for name in ["sqlite_master", *tables]}

    Store(database).close()  # its runs are those of a process that is gone
    before = content()
    Store(database).close()
    assert content() == before


def test_the_newest_runs_are_found_without_sorting_all(database: Path) -> None:
    Store(database).close()
    with opened(database) as db:
        for condition in ("1", "+state = 'complete'"):
            query = f"SELECT * FROM runs WHERE {condition} {NEWEST}"
            plan = db.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
            assert [step[-1] for step in plan] == ["SCAN runs USING INDEX runs_by_time"]


def test_the_steps_of_the_schema_are_what_was_released() -> None:
    names = [one.name for one in migrations._migrations]
    assert names == sorted(names)
    db = sqlite_utils.Database(memory=True)
    migrations.apply(db, stop_before=names[10:])
    stored = [
        row[0] for row in db.execute("SELECT sql FROM sqlite_master WHERE name NOT LIKE '%migrations%'") if row[0]
    ]
    db.close()
    assert hashlib.sha256("\n".join(stored).encode()).hexdigest() == RELEASED


def test_a_path_with_blanks_and_other_scripts_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "Übung 3 ?#%" / "läufe & mehr.db"
    Store(path).close()
    assert path.is_file()


@pytest.mark.parametrize(
    "content",
    [b"this is a text about learning rates\n" * 100, b"PK\x03\x04" + bytes(5000), bytes(range(256)) * 16, b"short"],
    ids=["text", "zip", "bytes", "short"],
)
def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert_refused_in_one_line(path, "not an SQLite database")
    assert path.read_bytes() == content


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_truncated_database_is_refused_in_one_line(database: Path, share: float) -> None:
    content = database.read_bytes()
    database.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(StoreError) as error:
        store = Store(database)
        for run_id in range(1, RUNS + 1):
            store.runs.get(run_id)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(8))
def test_a_database_with_a_damaged_page_gives_its_runs_or_one_line(database: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray(database.read_bytes())
    page = int(rng.integers(0, len(content) // 4096))
    content[page * 4096 : (page + 1) * 4096] = rng.bytes(4096)
    database.write_bytes(content)
    try:
        store = Store(database)
        for run_id in range(1, RUNS + 1):
            assert store.runs.get(run_id).id == run_id
    except StoreError as error:
        assert "\n" not in str(error)


def test_a_damage_is_found_on_opening(database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[-4096:] = bytes(4096)
    database.write_bytes(content)
    assert_refused_in_one_line(database, "damaged", "restore a copy")


def test_text_that_is_no_json_is_found_on_opening(database: Path) -> None:
    content = database.read_bytes()
    assert b'"dtype": "float32"' in content
    database.write_bytes(content.replace(b'"dtype": "float32"', b'"dtype": <float32"', 1))
    assert_refused_in_one_line(database, "malformed JSON", "restore a copy")


def test_a_very_large_database_is_opened_unchecked(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database.write_bytes(database.read_bytes().replace(b'"dtype": "float32"', b'"dtype": <float32"', 1))
    monkeypatch.setattr(connection, "CHECKED_BYTES", 1000)
    Store(database).close()


def test_a_number_that_is_too_large_for_a_row_is_a_row_that_is_not_there(database: Path) -> None:
    store = Store(database)
    with pytest.raises(StoreError, match="no such row"):
        store.runs.get(10**30)
    store.close()


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    assert_refused_in_one_line(tmp_path, "a folder, not a database")


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_a_file_in_which_sqlite_keeps_the_changes_to_another_is_no_database(tmp_path: Path, suffix: str) -> None:
    """SQLite takes one for what a killed process left of the database beside it: it rolls back or removes it."""
    (link := tmp_path / "link.db").symlink_to(file := tmp_path / f"klcli.db{suffix}")
    for path in (file, link):
        assert_refused_in_one_line(path, "klcli.db under this name", "--db")
    assert [*tmp_path.iterdir()] == [link]
    Store(tmp_path / f"klcli{suffix}.db").close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert_refused_in_one_line(tmp_path / "file" / "klcli.db", str(tmp_path / "file"), "--db")
    assert_refused_in_one_line(tmp_path / "file" / "deeper" / "klcli.db", "--db")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc, where nothing can be made")
def test_a_place_where_nobody_may_write_is_named() -> None:
    assert_refused_in_one_line(Path("/proc/klcli/klcli.db"), "/proc/klcli", "--db")
    assert_refused_in_one_line(Path("/proc/klcli.db"), "--db")


def test_a_database_of_a_newer_klcli_is_left_alone(database: Path) -> None:
    with opened(database) as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(_sqlite_migrations)")]
        values = {"migration_set": "klcli", "name": "m999_the_future", "applied_at": "2040-01-01"}
        names = [name for name in columns if name in values]
        db.execute(
            f"INSERT INTO _sqlite_migrations ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            [values[name] for name in names],
        )
    before = database.read_bytes()
    assert_refused_in_one_line(database, "newer", "m999_the_future")
    assert database.read_bytes() == before


def test_a_database_that_another_program_holds_is_refused_after_the_wait(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.2)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    assert_refused_in_one_line(database, "another program")
    assert time.monotonic() - started > 0.1
    other.execute("ROLLBACK")
    Store(database).close()
    other.close()


def test_a_database_that_another_program_writes_is_read_at_once(recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.2)
    run_id = recorder.begin()
    other = sqlite3.connect(recorder.path, isolation_level=None)
    other.execute("UPDATE runs SET owner = 'gone'")  # nobody can mark it now
    other.execute("BEGIN IMMEDIATE")
    store = Store(recorder.path)
    assert store.runs.get(run_id).state == "running"
    other.execute("ROLLBACK")
    other.close()
    store.close()
    store = Store(recorder.path)
    assert store.runs.get(run_id).state == "interrupted"
    store.close()


def test_a_write_waits_for_the_other_writer(recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.2)
    store = Store(recorder.path)
    run_id = recorder.begin()
    other = sqlite3.connect(recorder.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another program"):
        store.runs.finish(run_id, "complete", None, 1.0)
    other.execute("COMMIT")
    store.runs.finish(run_id, "complete", None, 1.0)
    assert store.runs.get(run_id).state == "complete"
    other.close()
    store.close()


def test_a_transaction_that_raises_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "klcli.db")
    with database.write() as db:
        db.execute("CREATE TABLE t (x INTEGER)")
    with pytest.raises(KeyboardInterrupt), database.write() as db:
        db.execute("INSERT INTO t VALUES (1)")
        raise KeyboardInterrupt
    assert database.read("SELECT count(*) AS n FROM t") == [{"n": 0}]
    with database.write() as db:
        db.execute("INSERT INTO t VALUES (2)")
    assert database.read("SELECT x FROM t") == [{"x": 2}]
    database.close()


def test_a_disk_that_is_full_is_one_line_and_the_run_so_far_is_kept(recorder: Any) -> None:
    run_id = recorder.begin()
    with recorder.store._db.write() as db:
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(StoreError, match="full"):
        for _ in range(100):
            recorder.begin(command="x" * 4000)
    assert recorder.store.runs.get(run_id).state == "running"


PROCESSES, RUNS_EACH = 8, 4
WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from klcli.data.dataset import Dataset
from klcli.settings.train_config import TrainConfig
from klcli.training.environment import Environment
from klcli.evaluation.metrics import Metrics
from klcli.training.budget import budget_of
from klcli.training.result import EpochMetrics
from klcli.store.store import Store

path, go = Path(sys.argv[1]), Path(sys.argv[2])
dataset = Dataset("d", np.empty((0, 3072), np.uint8), np.empty(0, np.uint8), (), "s", "", "", None, None)
print("ready", flush=True)
while not go.exists():
    time.sleep(0.005)
store = Store(path)
for _ in range(int(sys.argv[3])):
    run_id = store.runs.begin(TrainConfig(), budget_of(TrainConfig(), 45000), dataset, Environment(1, {}), "c")
    store.runs.record_epochs(run_id, EpochMetrics(1.0, 450, 0.1, Metrics(1, 1, 0.1), Metrics(1, 1, 0.1), 1.0))
    store.runs.finish(run_id, "complete", None, 1.0)
"""


@pytest.mark.slow
def test_processes_that_open_a_new_database_at_once_lose_nothing(tmp_path: Path) -> None:
    path, go = tmp_path / "klcli.db", tmp_path / "go"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(go), str(RUNS_EACH)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # its imports are done
    go.touch()
    for process in processes:
        _, complaint = process.communicate(timeout=60)
        assert (process.returncode, complaint) == (0, "")
    assert execute(path, "SELECT count(*) FROM runs WHERE state = 'complete'") == [(PROCESSES * RUNS_EACH,)]
    assert execute(path, "SELECT count(*) FROM epochs") == [(PROCESSES * RUNS_EACH,)]
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def explained() -> Callable[[sqlite3.Error], str]:
    def message(error: sqlite3.Error) -> str:
        with pytest.raises(StoreError) as refusal, connection.explained(Path("some.db")):
            raise error
        return str(refusal.value)

    return message


@pytest.mark.parametrize(
    ("code", "reason", "word"),
    [
        (sqlite3.SQLITE_BUSY, "database is locked", "another program"),
        (sqlite3.SQLITE_BUSY | 2 << 8, "database is locked", "another program"),
        (sqlite3.SQLITE_CANTOPEN, "unable to open database file", "cannot open"),
        (sqlite3.SQLITE_READONLY, "attempt to write a readonly database", "cannot be written"),
        (sqlite3.SQLITE_READONLY | 4 << 8, "attempt to write a readonly database", "moved or deleted"),
        (sqlite3.SQLITE_NOTADB, "file is not a database", "not an SQLite database"),
        (sqlite3.SQLITE_CORRUPT, "database disk image is malformed", "damaged"),
        (sqlite3.SQLITE_CORRUPT | 3 << 8, "database disk image is malformed", "damaged"),
        (sqlite3.SQLITE_FULL, "database or disk is full", "full"),
        (sqlite3.SQLITE_IOERR | 4 << 8, "disk I/O error", "disk"),
        (sqlite3.SQLITE_NOMEM, "out of memory", "more memory"),
        (sqlite3.SQLITE_PROTOCOL, "locking protocol", "locking protocol"),
    ],
)
def test_what_sqlite_says_becomes_the_file_and_the_cure(
    explained: Callable[[sqlite3.Error], str], code: int, reason: str, word: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("some.db").touch()
    error = sqlite3.OperationalError(reason)
    error.sqlite_errorcode = code
    message = explained(error)
    assert message.startswith("some.db: ")
    assert word in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["file:mine.db", "file:folder/mine.db", ":memory:"])
def test_a_name_that_means_something_else_to_sqlite_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Store(Path(name)).close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


@contextmanager
def damaging(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database so that its own description can be changed."""
    with opened(path) as schema:
        schema.execute("PRAGMA writable_schema = ON")
        yield schema


def test_a_definition_with_another_name_is_one_line_that_says_so(tmp_path: Path, new_recorder: Any) -> None:
    """SQLite finds nothing wrong with it, and klcli meets a column that is not there in its own statement."""
    path = tmp_path / "klcli.db"
    recorder = new_recorder(path)
    recorder.begin()
    recorder.store.close()
    with damaging(path) as schema:
        schema.execute("UPDATE sqlite_master SET sql = replace(sql, 'versions', 'versiont') WHERE name = 'runs'")
    assert execute(path, "PRAGMA quick_check") == [("ok",)]
    store = Store(path)
    with pytest.raises(StoreError, match=r"not those of klcli \(no such column: versions\)") as error:
        store.runs.get(1)
    assert error.value.exit_code == ExitCode.STORE
    assert "\n" not in str(error.value)
    store.close()


def test_a_table_that_is_missing_is_one_line_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "klcli.db"
    Store(path).close()
    execute(path, "DROP TABLE epochs")
    store = Store(path)
    with pytest.raises(StoreError, match=r"not those of klcli \(no such table: epochs\)"):
        store.runs.epochs(1)
    store.close()


def test_what_a_user_adds_to_a_database_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "klcli.db"
    Store(path).close()
    execute(path, "CREATE TABLE notes_of_mine (run_id INTEGER, mark TEXT)")
    execute(path, "ALTER TABLE runs ADD COLUMN mark TEXT")
    execute(path, "CREATE VIEW best_of_mine AS SELECT * FROM runs LIMIT 1")
    Store(path).close()


def test_a_damage_that_the_quick_check_passes_is_found_behind_a_failure(
    tmp_path: Path, new_recorder: Callable[[Path], Any]
) -> None:
    path = tmp_path / "klcli.db"
    recorder = new_recorder(path)
    recorder.begin(command="klcli train")
    recorder.store.close()
    assert connection.damage_behind_a_failure() is None
    with damaging(path) as schema:  # two indices exchanged
        [one, other, *_] = schema.execute(
            "SELECT name, rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = 'runs' AND sql NOT NULL"
        ).fetchall()
        for name, page in ((one[0], other[1]), (other[0], one[1])):
            schema.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = ?", [page, name])
    Store(path).close()  # finds nothing
    damage = connection.damage_behind_a_failure()
    assert damage is not None
    assert "damaged" in str(damage)
    assert str(path) in str(damage)
    assert damage.exit_code == ExitCode.STORE


def test_a_setting_that_has_come_since_gets_a_column(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definition = "REAL GENERATED ALWAYS AS (coalesce(json_extract(config, '$.bn_eps'), 0.5)) VIRTUAL"
    monkeypatch.setattr(schema, "virtual_columns", lambda: {"eps_of_bn": definition})
    execute(database, "UPDATE runs SET config = json_remove(config, '$.bn_eps') WHERE id = 2")
    for _ in range(2):
        store = Store(database)
        assert "eps_of_bn" in store.runs.columns()
        assert [run.id for run in store.runs.query(RunFilter(where="eps_of_bn = 0.5"), BEST_FIRST)] == [2]
        assert store.runs.get(1).config.bn_eps == 1e-8
        store.close()


def test_a_database_that_cannot_be_written_is_read_without_the_new_column(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(database).close()
    monkeypatch.setattr(schema, "virtual_columns", lambda: {"x": "REAL GENERATED ALWAYS AS (1.0) VIRTUAL"})
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.2)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # as root may write every file, another program keeps it from being written
    store = Store(database)
    assert store.runs.get(1).id == 1
    assert "x" not in store.runs.columns()
    store.close()
    other.execute("ROLLBACK")
    other.close()
    store = Store(database)
    assert "x" in store.runs.columns()
    store.close()
