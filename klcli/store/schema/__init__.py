"""Schema: the migration steps, *.sql. A released one is never edited, not even its spaces, which SQLite stores."""

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


_steps = {step.name.removesuffix(".sql"): step for step in files(__name__).iterdir() if step.name.endswith(".sql")}
for _name in sorted(_steps):
    migrations(name=f"m{_name}")(lambda db, step=_steps[_name]: _apply(step, db))
