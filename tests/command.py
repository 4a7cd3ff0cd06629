"""A command and its database, as the tests of the command line see them."""

import re
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.raw_sql import dicts, opened

Klcli = Callable[..., "CompletedProcess[str]"]  # calls the command with these words
Refused = Callable[..., str]  # checks a refusal, returns its line
Rows = Callable[..., list[dict[str, Any]]]  # reads a table


def succeeded(done: "CompletedProcess[str]") -> "CompletedProcess[str]":
    """Check that a command succeeded, and return it."""
    assert done.returncode == 0, done.stderr
    return done


def read(folder: Path, sql: str, database: str = "results/klcli.db") -> list[dict[str, Any]]:
    """Return what a query finds in the database of a folder, without klcli's own code."""
    return dicts(folder / database, sql)


def change(folder: Path, *statements: str, values: Sequence[Any] = ()) -> None:
    """Change the database of a folder behind klcli's back."""
    with opened(folder / "results/klcli.db") as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for sql in statements:
            connection.execute(sql, values)


def cells(done: "CompletedProcess[str]") -> list[list[str]]:
    """Return the cells of the first table that was printed, row by row."""
    lines = done.stdout.splitlines()
    begin = next(index for index, line in enumerate(lines) if set(line.strip()) == {"─"})
    return [re.split(r"\s{2,}", line.strip()) for line in takewhile(str.strip, lines[begin + 1 :])]
