"""A database read and changed without klcli's own code."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection whose changes are one transaction, and close it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def execute(path: Path, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Execute one statement and return its rows."""
    with opened(path) as connection:
        return connection.execute(statement, parameters).fetchall()


def execute_all(path: Path, *statements: str) -> None:
    with opened(path) as connection:
        for statement in statements:
            connection.execute(statement)


def dicts(path: Path, statement: str, *parameters: Any) -> list[dict[str, Any]]:
    """Execute one statement and return its rows by column."""
    with opened(path) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(statement, parameters)]
