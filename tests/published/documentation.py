"""The key tables of klcli/docs/reproduce.md: `python -m tests.published.documentation` writes them into the page."""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from klcli.published.format.schema import DOCUMENT, ROWS, TABLES, Key

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
    rows = [f"| `{key}`{' *' * one.is_required} | {one.meaning} | {one.kind.words} |" for key, one in keys.items()]
    return "\n".join(["| key | meaning | value |", "|---|---|---|", *rows])


def page(text: str) -> str:
    """Return the page with the tables of the code; a table without a heading in the page is missing from it."""
    for heading, table in key_tables().items():
        before, found, after = text.partition(f"## {heading}\n\n")
        text = f"{before}{found}{table}\n" + re.sub(r"\A(\|.*\n)*\n*", "\n", after) if found else text
    return text


if __name__ == "__main__":
    where = Path(__file__).parents[2] / "klcli/docs/reproduce.md"
    where.write_text(page(PAGE), encoding="utf-8")
    print(*(f"add the heading: ## {one}" for one in key_tables() if f"## {one}\n" not in PAGE), sep="\n")
