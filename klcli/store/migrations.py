"""The numbered migration steps of the schema, schema/*.sql, which new and old databases apply alike.

A released step is never edited; a change is a new step. SQLite stores the text of a definition, so even its spaces
must stay.
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
            if sqlite3.complete_statement(statement):  # not every semicolon ends a statement: a trigger contains some
                db.execute(statement)
                statement = ""

    migrations(name=f"m{step.name.removesuffix('.sql')}")(apply)


for _step in sorted(files("klcli.store").joinpath("schema").iterdir(), key=lambda step: step.name):
    _register(_step)
