"""Reading without a Store: a table as a CSV file, rows for completion. Imports little, to start fast."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from klcli.csv_text import AT_ONCE, csv_text


def write_table(database: Path, busy_seconds: float, name: str, file: Path) -> int:
    """Write a table or view to an empty file and flush it; return the number of rows. Raises sqlite3 and OS errors."""
    written = 0
    with closing(sqlite3.connect(database, timeout=busy_seconds)) as connection, file.open("r+b") as content:
        rows = connection.execute(f'SELECT * FROM "{name}"')
        content.write(csv_text([[column for column, *_ in rows.description]]).encode())
        while portion := rows.fetchmany(AT_ONCE):
            content.write(csv_text(portion).encode())
            written += len(portion)
        content.flush()
        os.fsync(content.fileno())  # here, while the other process still computes
    return written


def rows(database: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a query, none of a database that is absent, locked or damaged, of which nothing changes."""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=0.1)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.Error:
        return []
