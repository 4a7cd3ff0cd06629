"""The numbered steps of the schema, schema/*.sql, which a new and an old database take alike.

A step is never edited once it has been released; a change is a new step. SQLite stores the text of a definition, so
that even the blanks of a released one stay.
"""

import sqlite3
from importlib.resources import files
from importlib.resources.abc import Traversable

from sqlite_utils import Database, Migrations

migrations = Migrations("klcli")


def _register(step: Traversable) -> None:
    def apply(db: Database) -> None:
        statement = ""
        for line in step.read_text(encoding="utf-8").splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):  # not every semicolon ends one: a trigger holds some
                db.execute(statement)
                statement = ""

    migrations(name=f"m{step.name.removesuffix('.sql')}")(apply)


for _step in sorted(files("klcli.store").joinpath("schema").iterdir(), key=lambda step: step.name):
    _register(_step)
