"""Database: one connection to a migrated file, with SQLite's errors converted to one line with the cure."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlite_utils
from sqlite_utils.db import NotFoundError

from klcli.errors import ConfigError, StoreError
from klcli.settings.columns import virtual_columns
from klcli.store.migrations import migrations

BUSY_SECONDS = 60  # time that a write waits for other writers before it fails
CHECKED_BYTES = 100_000_000  # 10 000 runs of 20 epochs take 33 MB and 0.1 s; a larger file is opened unchecked
# The actions allowed to a user's condition: only reading. SQLite itself refuses all others.
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_USERS_FAULT = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}

# Parsers of columns by the type of the field, for types that SQLite lacks.
_PARSERS: dict[Any, Any] = {bool: bool, **dict.fromkeys((dict[str, str], dict[str, Any], list[int]), json.loads)}

_last_opened: list[Path] = []  # paths opened by this process; one, or none yet
Record = TypeVar("Record")


class Database:
    """The shared connection of all parts of a Store. All methods raise StoreError, one line with the cure."""

    def __init__(self, path: Path) -> None:
        """Open or create the database at `path` and bring its schema up to date."""
        self.path = path
        with explained(path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = f"cannot make this folder ({error.strerror}), choose another with --db"
                raise StoreError(f"{path.parent}: {reason}") from error
            # isolation_level None: only explicit statements begin transactions.
            # The absolute path: some builds of SQLite take a path that begins with `file:` as a URI of another file.
            connection = sqlite3.connect(path.absolute(), timeout=BUSY_SECONDS, isolation_level=None)
            _last_opened[:] = [path.absolute()]
            try:
                self._db = _prepared(connection, path)
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        self._db.close()

    def folder(self, kind: str) -> Path:
        """Return the folder of "checkpoints" or "plots". Two databases in one folder must not share files."""
        return self.path.parent / (kind if self.path.stem == "klcli" else f"{self.path.stem}-{kind}")

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query by column name."""
        with explained(self.path):
            return [dict(row) for row in self._db.execute(sql, parameters).fetchall()]

    def records(self, kind: type[Record], source: str, parameters: Sequence[Any] = ()) -> list[Record]:
        """Return records from `source`, the SQL after FROM, with a column for each field of the record."""
        # The errors of a gradient check are rows in another table.
        stored = [field for field in fields(kind) if field.name != "errors"]  # type: ignore[arg-type]
        columns = [(field.name, field.name.removesuffix("_json"), _PARSERS.get(field.type)) for field in stored]
        rows = self.read(f"SELECT {', '.join(column for _, column, _ in columns)} FROM {source}", parameters)
        try:
            return [kind(**{name: f(row[column]) if f else row[column] for name, column, f in columns}) for row in rows]
        except ValueError as error:  # raised by text that is not JSON
            raise _damaged(self.path, str(error)) from error

    @contextmanager
    def write(self) -> Iterator[sqlite_utils.Database]:
        """Make all changes inside the block one transaction."""
        with explained(self.path), transaction(self._db):
            yield self._db

    @contextmanager
    def reading_only(self, where: str | None) -> Iterator[None]:
        """Prevent writes by a query with a user's condition. Raises ConfigError if the condition is not valid SQL."""
        if where is None:
            yield
            return
        self._db.conn.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY
        )
        try:
            yield
        except StoreError as error:
            # An error without a code comes from Python itself, for two statements in one.
            code = getattr(error.__cause__, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if not isinstance(error.__cause__, sqlite3.Error) or code & 0xFF not in _USERS_FAULT:
                raise
            cause = f"{error.__cause__}; it is an SQL condition on the columns of runs"
            raise ConfigError(f"--where {where!r}: {cause}") from None
        finally:
            self._db.conn.set_authorizer(None)


def now() -> str:
    """The time as the database stores it: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _prepared(connection: sqlite3.Connection, path: Path) -> sqlite_utils.Database:
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    # Check the whole file first: damage found later would leave an incomplete result.
    if path.stat().st_size <= CHECKED_BYTES:
        [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise _damaged(path, found)
    db = sqlite_utils.Database(connection, execute_plugins=False)
    newer = {one.name for one in migrations.applied(db)} - {one.name for one in migrations._migrations}
    if newer:
        raise StoreError(f"{path}: a newer klcli wrote this database ({max(newer)}), update klcli to open it")
    pending = migrations.pending(db)
    if pending or _missing_columns(db):
        # A read-only database is readable without the columns of new settings, but not without a migration step.
        with suppress(*() if pending else (sqlite3.OperationalError,)), transaction(db):
            migrations.apply(db)
            for name, definition in _missing_columns(db).items():
                db.execute(f'ALTER TABLE runs ADD COLUMN "{name}" {definition}')
    return db


def _missing_columns(db: sqlite_utils.Database) -> dict[str, str]:
    """Return definitions of the settings that the database lacks: virtual columns need no migration."""
    found = {row["name"] for row in db.execute("PRAGMA table_xinfo(runs)")}
    return {name: definition for name, definition in virtual_columns().items() if name not in found}


def damage_behind_a_failure() -> StoreError | None:
    """Return the damage that the full check, which takes seconds, finds in the open database, None if it is sound."""
    for path in filter(Path.exists, _last_opened):
        try:
            with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
                [found] = connection.execute("PRAGMA integrity_check(1)").fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            found = str(error)
        return None if found == "ok" else _damaged(path, found)
    return None


def _damaged(path: Path, found: str) -> StoreError:
    words = " ".join(found.split())
    return StoreError(f"{path}: this database is damaged, restore a copy or choose another with --db ({words})")


@contextmanager
def transaction(db: sqlite_utils.Database) -> Iterator[None]:
    """Make the block one atomic write. It takes the lock first: a deferred lock can fail in the middle."""
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
    """Convert SQLite's errors to one line that names the file and the cure."""
    try:
        yield
    except UnicodeDecodeError as error:  # also for SQLite's own message about a damaged text
        raise _damaged(path, "a text is not UTF-8") from error
    except (NotFoundError, OverflowError) as error:  # raised by a number too large for an SQLite integer
        raise StoreError(f"{path}: there is no such row ({error})") from error
    except sqlite3.Error as error:
        reason = str(error)
        if any(symptom in reason for symptom in _DAMAGE):
            raise _damaged(path, reason) from error
        otherwise = f"SQLite reports {reason!r}, check the file with `sqlite3 FILE 'PRAGMA quick_check'`"
        cure = next((cure for symptom, cure in _CURES.items() if symptom in reason), otherwise)
        raise StoreError(f"{path}: {cure}") from error


# The last three concern klcli's own statements: a name in the schema differs.
_DAMAGE = ("malformed", "no such table", "no such column", "has no column named")
_CURES = {
    "locked": f"another program has locked this database for {BUSY_SECONDS} s, close it and run again",
    "unable to open": "cannot open or create this file, choose another with --db",
    "readonly": "this database cannot be written, choose another with --db or make it and its folder writable",
    "not a database": "this is not an SQLite database, choose another file with --db",
    "full": "the disk is full, free some space and run again",
    "disk I/O": "the disk could not be read or written, check it for free space and faults",
}
