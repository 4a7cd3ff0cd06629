"""The tables of klcli/docs/database.md: `python -m tests.store.documentation` writes them into the page.

The schema gives tables, views, columns and types, the page the order and the meaning of the columns.
"""

import re
import sqlite3
import tempfile
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from klcli.settings.sameness import SETTINGS
from klcli.store.store import Store

PAGE = files("klcli").joinpath("docs", "database.md").read_text(encoding="utf-8")
HEAD = "| column | type | meaning |\n|---|---|---|\n"
DERIVED = {"step_size", "cycles", "epochs"}  # they hold what follows from all settings
OTHER_PAGE = (
    "| the settings | | a column for each, such as `lambda` or `bn_eps`: [settings](settings.md) lists them |\n"
)


def schema() -> dict[str, dict[str, str]]:
    """Return the columns of every table and view of a new database, with their types."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "klcli.db"
        Store(path).close()
        with closing(sqlite3.connect(path)) as db:
            found = db.execute("SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY rowid")
            return {
                f"{kind.capitalize()} `{name}`": {row[1]: row[2] for row in db.execute(f"PRAGMA table_xinfo({name})")}
                for kind, name in found
                if not name.startswith(("_", "sqlite_"))
            }


def page(text: str) -> str:
    """Return the page with the columns of the schema. A new one has no meaning yet; a heading is written by hand."""
    for heading, columns in schema().items():
        before, found, after = text.partition(f"## {heading}\n")
        assert found, f"add the heading: ## {heading}"
        own, next_, rest = after.partition("\n## ")
        text = before + found + _with_columns(own, columns, heading) + next_ + rest
    return text


def _with_columns(section: str, columns: dict[str, str], heading: str) -> str:
    if heading.startswith("View"):
        listed = ", ".join(f"`{name}`" for name in columns)
        return re.sub(r"^Columns: .*$", f"Columns: {listed}.", section, flags=re.MULTILINE)
    settings = {one.column for one in SETTINGS.values()} - DERIVED if heading == "Table `runs`" else set()
    left, rows = {name: type_ for name, type_ in columns.items() if name not in settings}, []
    for line in section.splitlines():
        if line.startswith("| the settings"):
            rows.append(OTHER_PAGE)
        elif line.startswith("| `"):
            _, names, *_, meaning, _ = re.split(r"(?<!\\)\|", line)
            if known := [name for name in re.findall(r"`(\w+)`", names) if name in left]:
                rows.append(_row({name: left.pop(name) for name in known}, meaning.strip()))
    rows += [_row({name: type_}, "") for name, type_ in left.items()]
    return re.sub(r"(?:^\|.*\n)+", lambda _: HEAD + "".join(rows), section, count=1, flags=re.MULTILINE)


def _row(columns: dict[str, str], meaning: str) -> str:
    types = ", ".join(dict.fromkeys(columns.values()))
    return f"| {', '.join(f'`{name}`' for name in columns)} | {types} | {meaning} |\n"


if __name__ == "__main__":
    Path(__file__).parents[2].joinpath("klcli/docs/database.md").write_text(page(PAGE), encoding="utf-8")
