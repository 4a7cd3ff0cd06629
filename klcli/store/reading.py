"""Reading: a copy of a database, a table as a CSV file, rows for completion. Imports little, to start fast."""

import errno
import shutil
import sqlite3
from contextlib import ExitStack, closing, suppress
from pathlib import Path, PurePath
from tempfile import gettempdir
from typing import Any

from klcli.csv_text import AT_ONCE, csv_text
from klcli.errors import StoreError
from klcli.files import flush, temporary_folder


class TemporaryCopy:
    """A copy of a database with its journal, in a temporary folder. Raises OSError if the database cannot be read,
    StoreError without space for the copy.
    """

    def __init__(self, database: Path) -> None:
        with ExitStack() as unless_it_is_copied:
            # Closed with the copy: on POSIX, closing a file ends all locks that this process has on it, SQLite's too.
            unless_it_is_copied.enter_context(database.open("rb"))
            try:
                self.file = unless_it_is_copied.enter_context(temporary_folder()) / database.name
                for source in (database.with_name(f"{database.name}{suffix}") for suffix in ("", "-journal", "-wal")):
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


def write_table(database: Path, busy_seconds: float, name: str, file: Path) -> int:
    """Write a table or view to an empty file and flush it; return the number of rows. Raises sqlite3 and OS errors."""
    written = 0
    with closing(sqlite3.connect(database, timeout=busy_seconds)) as connection, file.open("r+b") as content:
        rows = connection.execute(f'SELECT * FROM "{name}"')
        content.write(csv_text([[column for column, *_ in rows.description]]).encode())
        while portion := rows.fetchmany(AT_ONCE):
            content.write(csv_text(portion).encode())
            written += len(portion)
        flush(content)  # here, while the other process still computes
    return written


def read_only_uri(path: PurePath) -> str:
    """Return the URI with which SQLite opens a database for reading; `path` is absolute."""
    uri = path.as_uri()
    # SQLite refuses the server of \\server\share: it takes both as the path.
    return f"{uri if uri.startswith('file:///') else uri.replace('//', '////', 1)}?mode=ro"


def rows(database: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a query, none of a database that is absent, locked or damaged, of which nothing changes."""
    try:
        with closing(sqlite3.connect(read_only_uri(database.absolute()), uri=True, timeout=0.1)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.Error:
        return []
