"""Export: one table as a CSV file. This module imports little, so that a second process starts fast."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from klcli.csv_text import AT_ONCE, csv_text


def write_table(database: Path, busy_seconds: float, name: str, file: Path) -> int:
    """Write a table or view to a file and flush it; return the number of rows. Raises sqlite3.Error and OSError."""
    written = 0
    with closing(sqlite3.connect(database, timeout=busy_seconds)) as connection, file.open("wb") as content:
        rows = connection.execute(f'SELECT * FROM "{name}"')
        content.write(csv_text([[column for column, *_ in rows.description]]).encode())
        while portion := rows.fetchmany(AT_ONCE):
            content.write(csv_text(portion).encode())
            written += len(portion)
        content.flush()
        os.fsync(content.fileno())  # here, while the other process still computes
    return written
