"""Schema: the migration steps, *.sql. A released one is never edited, not even its spaces, which SQLite stores."""

import re
import sqlite3
from importlib.resources import files
from importlib.resources.abc import Traversable

from sqlite_utils import Database, Migrations

from klcli.settings.columns import virtual_columns
from klcli.store.records import AS_CONFIGURED, ONE_SPLIT

migrations = Migrations("klcli")
STALE = "evaluation_of_an_earlier_network"  # says nothing about the network after more updates


def _apply(step: Traversable, db: Database) -> None:
    statement = ""
    for line in step.read_text(encoding="utf-8").splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):  # not every semicolon ends a statement: a trigger contains some
            db.execute(statement)
            statement = ""


def additions(db: Database) -> list[str]:
    """Return the statements of what a database lacks and no step makes: an older klcli opens the database with it."""
    found = {row["name"] for row in db.execute("PRAGMA table_xinfo(runs)")}
    columns = {name: definition for name, definition in virtual_columns().items() if name not in found}
    statements = [f'ALTER TABLE runs ADD COLUMN "{name}" {definition}' for name, definition in columns.items()]
    if not db.execute(f"SELECT 1 FROM sqlite_master WHERE name = '{STALE}'").fetchone():
        is_other = "OLD.checkpoint_sha256 IS NOT NULL AND OLD.checkpoint_sha256 IS NOT NEW.checkpoint_sha256"
        removal = "DELETE FROM evaluation_runs WHERE run_id = OLD.id;"  # and with it the evaluation
        updated = f"AFTER UPDATE OF checkpoint_sha256 ON runs WHEN {is_other}"
        statements.append(f"CREATE TRIGGER {STALE} {updated} BEGIN {removal} END")
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs_by_time'").fetchone():
        statements.append("CREATE INDEX runs_by_time ON runs (started_at)")
    for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE type = 'view' AND name = 'best_runs'"):
        together = re.sub("sha256, .* ORDER BY", lambda _: f"sha256, {ONE_SPLIT} ORDER BY", sql)
        ranked = re.sub("state = 'complete'.*", lambda _: f"state = 'complete' AND {AS_CONFIGURED}", together)
        statements += [] if ranked == sql else ["DROP VIEW best_runs", ranked]
    return statements


_steps = {step.name.removesuffix(".sql"): step for step in files(__name__).iterdir() if step.name.endswith(".sql")}
for _name in sorted(_steps):
    migrations(name=f"m{_name}")(lambda db, step=_steps[_name]: _apply(step, db))
