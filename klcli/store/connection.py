"""Opening the database: one connection, its promises, and its failures in words."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlite_utils
from sqlite_utils.db import NotFoundError

from klcli.errors import StoreError
from klcli.store.migrations import migrations

BUSY_SECONDS = 60  # how long a write waits for other writers before it gives up
_DEFINITIONS = """
SELECT master.name AS "of", info.name, info.type, info."notnull", info.pk
FROM sqlite_master AS master, pragma_table_info(master.name) AS info
"""
CHECKED_BYTES = 100_000_000  # 10 000 runs of 20 epochs take 33 MB and 0.1 s; what is larger is opened unchecked
# From 3.7.0 on, two connections that checkpoint a WAL database at once could corrupt it; fixed in 3.51.3.
FIRST_SAFE_WAL = (3, 51, 3)


_last_opened: list[Path] = []  # by this process; one, or none yet


def connect(path: Path) -> sqlite_utils.Database:
    """Open or create the database at `path`, bring its schema up to date, and return it.

    Raises StoreError where it cannot be read or written, is damaged, is no database, or was written
    by a newer klcli.
    """
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
            return _prepare(connection, path)
        except BaseException:
            connection.close()
            raise


def _prepare(connection: sqlite3.Connection, path: Path) -> sqlite_utils.Database:
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    if sqlite3.sqlite_version_info >= FIRST_SAFE_WAL:
        connection.execute("PRAGMA journal_mode = WAL")
    _check(connection, path)
    db = sqlite_utils.Database(connection, execute_plugins=False)
    if {migration.name for migration in migrations.applied(db)} == _released():
        _check_definitions(db, path)
        return db  # without a write: what lies in a read-only place, or is written by others, can still be read
    with transaction(db):
        newer = {migration.name for migration in migrations.applied(db)} - _released()
        if newer:
            raise StoreError(f"{path}: a newer klcli wrote this database ({max(newer)}), update klcli to open it")
        migrations.apply(db)
    return db


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Read the whole file once: its structure, types and constraints. A damage found later would be half an answer."""
    if path.stat().st_size > CHECKED_BYTES:
        return
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreError(f"{path}: {_CURES['malformed']} ({' '.join(found.split())})")


def _check_definitions(db: sqlite_utils.Database, path: Path) -> None:
    """Compare the columns of every table and view with those of a new database.

    A flip in a name leaves a file that is sound to SQLite, and another one to klcli.
    """
    found = {tuple(row) for row in db.conn.execute(_DEFINITIONS)}
    missing = [row for row in _new_definitions() if row not in found]
    if missing:
        table, column = missing[0][:2]
        raise StoreError(f"{path}: {_CURES['malformed']} (the definition of {table}.{column} is another)")


@lru_cache(maxsize=1)
def _new_definitions() -> list[tuple[Any, ...]]:
    """Return those of a new database, which takes 10 ms to make."""
    fresh = sqlite_utils.Database(memory=True, execute_plugins=False)
    migrations.apply(fresh)
    definitions = [tuple(row) for row in fresh.conn.execute(_DEFINITIONS)]
    fresh.close()
    return definitions


def damage_behind_a_failure() -> StoreError | None:
    """Return what is wrong with the database that this process has opened last, None where nothing is.

    For a failure that nobody expected: exchanged pages pass the quick check of `connect`. The full check reads
    every index as well, and takes seconds where there are many runs.
    """
    if not _last_opened or not _last_opened[0].exists():
        return None
    path = _last_opened[0]
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
        [found] = connection.execute("PRAGMA integrity_check(1)").fetchone()
        connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        found = str(error)
    return None if found == "ok" else StoreError(f"{path}: {_CURES['malformed']} ({' '.join(found.split())})")


def _released() -> set[str]:
    """The names of all migrations of this klcli."""
    return {migration.name for migration in migrations._migrations}


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
        raise StoreError(f"{path}: {_CURES['malformed']} (a text in it is none)") from error
    except NotFoundError as error:
        raise StoreError(f"{path}: there is no such row ({error})") from error
    except sqlite3.Error as error:
        reason = str(error)
        for symptom, cure in _CURES.items():
            if symptom in reason:
                raise StoreError(f"{path}: {cure}") from error
        raise StoreError(
            f"{path}: SQLite says {reason!r}, check the file with `sqlite3 FILE 'PRAGMA quick_check'`"
        ) from error


_CURES = {
    "locked": f"another program has held this database for {BUSY_SECONDS} s, close it and run again",
    "unable to open": "cannot open or create this file, choose another with --db",
    "readonly": "this database cannot be written, choose another with --db or make it and its folder writable",
    "not a database": "this is no SQLite database, choose another file with --db",
    "malformed": "this database is damaged, restore a copy or choose another with --db",
    "full": "the disk is full, free some space and run again",
    "disk I/O": "the disk could not be read or written, check it for free space and faults",
}
