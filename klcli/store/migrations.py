"""The migration steps, schema/*.sql. A released one is never edited, not even its spaces, which SQLite stores."""

import sqlite3
from importlib.resources import files
from importlib.resources.abc import Traversable

from sqlite_utils import Database, Migrations

migrations = Migrations("klcli")


def _apply(step: Traversable, db: Database) -> None:
    statement = ""
    for line in step.read_text(encoding="utf-8").splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):  # not every semicolon ends a statement: a trigger contains some
            db.execute(statement)
            statement = ""


for _step in sorted(files("klcli.store").joinpath("schema").iterdir(), key=lambda step: step.name):
    migrations(name=f"m{_step.name.removesuffix('.sql')}")(lambda db, step=_step: _apply(step, db))
