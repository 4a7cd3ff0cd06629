"""Reading: a copy of a database, its rows for completion, databases beside it. Imports little, to start fast."""

import errno
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path, PurePath
from tempfile import gettempdir
from typing import Any

from klcli.errors import StoreError
from klcli.files import followed, irregular, temporary_folder

JOURNALS = ("-journal", "-wal", "-shm")  # of SQLite, after the name of the database
TABLES = (
    *("studies", "runs", "epochs", "gradient_checks", "gradient_errors", "evaluations", "evaluation_runs"),
    *("_numbers", "_sqlite_migrations"),
)


class TemporaryCopy:
    """A copy of a database with its journal, in a temporary folder. Raises OSError if the database cannot be read,
    StoreError without space for the copy.
    """

    def __init__(self, database: Path) -> None:
        with ExitStack() as unless_it_is_copied:
            # Closed with the copy: on POSIX, closing a file ends all locks that this process has on it, SQLite's too.
            unless_it_is_copied.enter_context(database.open("rb"))
            self.version = database.stat().st_mtime_ns
            try:
                self.file = unless_it_is_copied.enter_context(temporary_folder()) / database.name
                for source in (database.with_name(f"{database.name}{suffix}") for suffix in ("", *JOURNALS[:2])):
                    with suppress(FileNotFoundError):
                        content = unless_it_is_copied.enter_context(source.open("rb"))
                        with self.file.with_name(source.name).open("xb") as copy:
                            shutil.copyfileobj(content, copy)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    cure = "free some, or name another folder in the environment variable TMPDIR"
                    raise StoreError(f"{database}: no space for a copy of it in {gettempdir()}, {cure}") from error
                raise
            self.remove = unless_it_is_copied.pop_all().close


def read_only_uri(path: PurePath) -> str:
    """Return the URI with which SQLite opens a database for reading; `path` is absolute."""
    uri = path.as_uri()
    # SQLite refuses the server of \\server\share: it takes both as the path.
    return f"{uri if uri.startswith('file:///') else uri.replace('//', '////', 1)}?mode=ro"


def rows(database: Path, query: str, *values: Any, seconds: float = 0.1) -> list[tuple[Any, ...]]:
    """Return the rows of a query, none of a file that is no database of klcli. Nothing changes.

    Raises StoreError for a database that is absent, damaged, or locked for so many seconds.
    """
    if any(irregular(Path(f"{database}{suffix}")) for suffix in JOURNALS):  # SQLite would wait for a pipe without end
        return []
    try:
        with closing(sqlite3.connect(read_only_uri(database.absolute()), uri=True, timeout=seconds)) as connection:
            return [] if view_in_place(connection) else connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            return []
        cure = "close the program that has it open, or move it away"
        raise StoreError(f"{database}: it can name the same files, and cannot be read ({error}), {cure}") from error


def view_in_place(connection: sqlite3.Connection) -> str | None:
    """Return the first table of klcli that is a view in this database: reading a foreign view may never end."""
    without_pages = "SELECT name FROM sqlite_master WHERE type IN ('view', 'table') AND coalesce(rootpage, 0) = 0"
    return next((name for (name,) in connection.execute(without_pages) if name.lower() in TABLES), None)


def folder_of(database: Path, kind: str) -> Path:
    """Return its folder of "checkpoints", "plots", "locks" or "assignment", beside the file itself, not a link to it.

    It has the name of the database: two in one folder must not share files.
    """
    real = followed(database)
    return real.parent / (kind if real.stem == "klcli" else f"{real.stem}-{kind}")


def beside(database: Path) -> Iterator[Path]:
    """Yield the other files in the folder of a database that can be databases, such as copies of it."""
    for one in database.parent.glob("*"):
        with suppress(OSError):  # it has just been removed
            is_file = stat.S_ISREG((found := one.lstat()).st_mode) and found.st_size
            if is_file and not one.name.endswith(JOURNALS) and not one.samefile(database):
                yield one
