"""Database: one connection to an open and migrated file, and SQLite's errors explained in one line."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlite_utils
from sqlite_utils.db import NotFoundError

from klcli.errors import ConfigError, StoreError
from klcli.settings.columns import virtual_columns
from klcli.store.migrations import migrations
from klcli.store.records import from_row

BUSY_SECONDS = 60  # how long a write waits for other writers before it gives up
CHECKED_BYTES = 100_000_000  # 10 000 runs of 20 epochs take 33 MB and 0.1 s; what is larger is opened unchecked
# From 3.7.0 on, two connections that checkpoint a WAL database at once could corrupt it; fixed in 3.51.3.
FIRST_SAFE_WAL = (3, 51, 3)
# What the condition of a user may do: read. SQLite itself refuses everything else.
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_USERS_FAULT = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}

_last_opened: list[Path] = []  # by this process; one, or none yet
Record = TypeVar("Record")


class Database:
    """The connection that all parts of a Store share. All methods raise StoreError, one line with the cure."""

    path: Path

    def __init__(self, path: Path) -> None:
        """Open or create the database at `path` and bring its schema up to date.

        Raises StoreError where it cannot be read or written, is damaged, is no database, or was written by a newer
        klcli.
        """
        self.path = path
        with explained(path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"{path.parent}: cannot make this folder ({error.strerror}), choose another with --db"
                ) from error
            # isolation_level None: transactions begin where this code says so, and nowhere else.
            # The whole path: one that begins with `file:` is a URI for some builds of SQLite, and another file.
            connection = sqlite3.connect(path.absolute(), timeout=BUSY_SECONDS, isolation_level=None)
            _last_opened[:] = [path.absolute()]
            try:
                self._db = _prepared(connection, path)
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def folder(self, kind: str) -> Path:
        """Return the folder of the "checkpoints" or "plots" of this database, beside it.

        Two databases in one folder must not share files, so a name other than klcli.db becomes the prefix.
        """
        return self.path.parent / (kind if self.path.stem == "klcli" else f"{self.path.stem}-{kind}")

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query by column name."""
        with explained(self.path):
            return [dict(row) for row in self._db.execute(sql, parameters).fetchall()]

    def records(self, kind: type[Record], sql: str, parameters: Sequence[Any] = ()) -> list[Record]:
        """Return the rows of a query that selects the columns of a record."""
        rows = self.read(sql, parameters)
        try:
            return [from_row(kind, row) for row in rows]
        except KeyError as error:
            raise _damaged(self.path, f"no such column: {error}") from error
        except ValueError as error:
            raise _damaged(self.path, str(error)) from error

    @contextmanager
    def write(self) -> Iterator[sqlite_utils.Database]:
        """Inside, what is done with the tables is one transaction."""
        with explained(self.path), transaction(self._db):
            yield self._db

    @contextmanager
    def reading_only(self, where: str | None) -> Iterator[None]:
        """Inside, a query with the condition of a user cannot write. Raises ConfigError where it is no SQL."""
        if where is None:
            yield
            return
        connection = self._db.conn
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY)
        try:
            yield
        except StoreError as error:
            cause = error.__cause__
            if isinstance(cause, sqlite3.Error) and _is_users_fault(cause):
                raise ConfigError(
                    f"--where {where!r}: {cause}; it is an SQL condition on the columns of runs"
                ) from None
            raise
        finally:
            connection.set_authorizer(None)


def _is_users_fault(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)  # missing where Python itself refuses, as two statements
    return code is None or code & 0xFF in _USERS_FAULT


def now() -> str:
    """The time as the database stores it: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _prepared(connection: sqlite3.Connection, path: Path) -> sqlite_utils.Database:
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    if sqlite3.sqlite_version_info >= FIRST_SAFE_WAL:
        connection.execute("PRAGMA journal_mode = WAL")
    # The whole file once: damage found later would be half an answer.
    if path.stat().st_size <= CHECKED_BYTES:
        [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise _damaged(path, found)
    db = sqlite_utils.Database(connection, execute_plugins=False)
    released = {migration.name for migration in migrations._migrations}
    if {migration.name for migration in migrations.applied(db)} != released:
        with transaction(db):
            newer = {migration.name for migration in migrations.applied(db)} - released
            if newer:
                raise StoreError(f"{path}: a newer klcli wrote this database ({max(newer)}), update klcli to open it")
            migrations.apply(db)
            _add_virtual_columns(db)
    elif _missing_columns(db):
        with suppress(sqlite3.OperationalError), transaction(db):  # a read-only database can be read without them
            _add_virtual_columns(db)
    return db


def _add_virtual_columns(db: sqlite_utils.Database) -> None:
    """Add a column to `runs` for each setting that has come since the database was made.

    A virtual column takes no space and needs no migration: SQLite computes it from the config of each run.
    """
    for name, definition in _missing_columns(db).items():
        db.execute(f'ALTER TABLE runs ADD COLUMN "{name}" {definition}')


def _missing_columns(db: sqlite_utils.Database) -> dict[str, str]:
    found = {row["name"] for row in db.execute("PRAGMA table_xinfo(runs)")}
    return {name: definition for name, definition in virtual_columns().items() if name not in found}


def damage_behind_a_failure() -> StoreError | None:
    """Return what is wrong with the database that this process has opened last, None where nothing is.

    For an unexpected exception: exchanged pages pass the quick check on opening. The full check reads every index
    as well, and takes seconds where there are many runs.
    """
    if not _last_opened or not _last_opened[0].exists():
        return None
    try:
        connection = sqlite3.connect(_last_opened[0], timeout=BUSY_SECONDS)
        [found] = connection.execute("PRAGMA integrity_check(1)").fetchone()
        connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        found = str(error)
    return None if found == "ok" else _damaged(_last_opened[0], found)


def _damaged(path: Path, found: str) -> StoreError:
    words = " ".join(found.split())
    return StoreError(f"{path}: this database is damaged, restore a copy or choose another with --db ({words})")


@contextmanager
def transaction(db: sqlite_utils.Database) -> Iterator[None]:
    """One write, all or nothing. The lock is taken first: a deferred one can fail in the middle."""
    db.conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.conn.execute("COMMIT")
    except BaseException:
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")
        raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line that names the file and the cure."""
    try:
        yield
    except OverflowError as error:
        raise StoreError(f"{path}: there is no such row (the number is too large for one)") from error
    except UnicodeDecodeError as error:  # also of what SQLite says about a damaged text
        raise _damaged(path, "a text is not UTF-8") from error
    except NotFoundError as error:
        raise StoreError(f"{path}: there is no such row ({error})") from error
    except sqlite3.Error as error:
        reason = str(error)
        if any(symptom in reason for symptom in _DAMAGE):
            raise _damaged(path, reason) from error
        cures = [cure for symptom, cure in _CURES.items() if symptom in reason]
        otherwise = f"SQLite says {reason!r}, check the file with `sqlite3 FILE 'PRAGMA quick_check'`"
        raise StoreError(f"{path}: {[*cures, otherwise][0]}") from error


# The last three are about klcli's own statements: a name in the schema has changed.
_DAMAGE = ("malformed", "no such table", "no such column", "has no column named")
_CURES = {
    "locked": f"another program has held this database for {BUSY_SECONDS} s, close it and run again",
    "unable to open": "cannot open or create this file, choose another with --db",
    "readonly": "this database cannot be written, choose another with --db or make it and its folder writable",
    "not a database": "this is no SQLite database, choose another file with --db",
    "full": "the disk is full, free some space and run again",
    "disk I/O": "the disk could not be read or written, check it for free space and faults",
}
