"""The key tables of klcli/docs/reproduce.md: `python -m tests.published.documentation` prints them."""

import re
from collections.abc import Mapping
from importlib.resources import files

from klcli.published.schema import DOCUMENT, ROWS, TABLES, Key

PAGE = files("klcli").joinpath("docs", "reproduce.md").read_text(encoding="utf-8")


def example() -> str:
    """Return the report that stands in the page."""
    [report] = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return report


def key_tables() -> dict[str, str]:
    """Return the table below each heading of the page."""
    tables = {"The document": DOCUMENT}
    for name, keys in TABLES.items():
        tables[f"`[[{name}]]`"] = keys
        if name in ROWS:
            tables[f"The rows of `[[{name}]]`"] = ROWS[name]
    return {heading: _table(keys) for heading, keys in tables.items()}


def _table(keys: Mapping[str, Key]) -> str:
    rows = [f"| `{key}`{' *' * one.is_required} | {one.meaning} | {one.kind} |" for key, one in keys.items()]
    return "\n".join(["| key | meaning | value |", "|---|---|---|", *rows])


if __name__ == "__main__":
    for heading, table in key_tables().items():
        print(f"## {heading}\n\n{table}\n")
