"""Reading: a copy of a database, a table as a CSV file, rows for completion. Imports little, to start fast."""

import errno
import shutil
import sqlite3
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from klcli.csv_text import AT_ONCE, csv_text
from klcli.errors import StoreError
from klcli.files import flush, hold, unheld
from klcli.termination import at_the_end

PREFIX, IN_USE = "klcli-copy-", "in-use"  # of the folder of a copy, and the file in it that its process holds
NEW_SECONDS = 60.0


class TemporaryCopy:
    """A copy of a database with its journal, which is removed at the latest when the process ends, also by a signal.

    The next copy removes those of processes that were killed. Raises OSError if the database cannot be read, StoreError
    without space for the copy.
    """

    def __init__(self, database: Path) -> None:
        # Closed with the copy: on POSIX, closing a file ends all locks that this process has on it, SQLite's too.
        self._open = ExitStack()
        self._open.enter_context(database.open("rb"))
        _remove_left_behind()
        # On Windows, a signal that ends the process finds the copy open, and cannot remove it.
        self._folder = TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
        self._open.enter_context(at_the_end(self._folder.cleanup))
        self.file = Path(self._folder.name) / database.name
        try:
            hold(self._open.enter_context(self.file.with_name(IN_USE).open("wb")))
            for source in (database.with_name(f"{database.name}{suffix}") for suffix in ("", "-journal", "-wal")):
                with suppress(FileNotFoundError):
                    content = self._open.enter_context(source.open("rb"))
                    with self.file.with_name(source.name).open("xb") as copy:
                        shutil.copyfileobj(content, copy)
        except OSError as error:
            self.remove()
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                cure = "free some, or name another folder in the environment variable TMPDIR"
                raise StoreError(f"{database}: no space for a copy of it in {gettempdir()}, {cure}") from error
            raise

    def remove(self) -> None:
        self._open.close()
        self._folder.cleanup()


def _remove_left_behind() -> None:
    for file in Path(gettempdir()).glob(f"{PREFIX}*/{IN_USE}"):
        with suppress(OSError), unheld(file) as is_left:
            is_new = time.time() - file.stat().st_mtime < NEW_SECONDS  # made, and perhaps not held yet
            if is_left and not is_new and not file.parent.is_symlink():
                shutil.rmtree(file.parent, ignore_errors=True)


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
