"""Formats: one table as Markdown, LaTeX, CSV or JSON.

Markdown and LaTeX show the rounded numbers of the terminal. CSV and JSON have every stored digit,
with the column names of the database.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from klcli.report.tables.table import Shown, Table
from klcli.settings.columns import stored_value


def to_markdown(table: Table, notes: Sequence[str] = ()) -> str:
    """Return a Markdown table with its title above and its notes below."""
    rows = [[one.title for one in table.columns], *table.cells()]
    columns = [[cell.translate(_MARKDOWN) for cell in cells] for cells in zip(*rows, strict=True)]
    aligned = []
    for column, cells in zip(table.columns, columns, strict=True):
        width = max(3, *map(len, cells))
        head, *body = [cell.rjust(width) if column.is_number else cell.ljust(width) for cell in cells]
        aligned.append([head, "-" * (width - 1) + ":" if column.is_number else "-" * width, *body])
    lines = "\n".join("| " + " | ".join(row) + " |" for row in zip(*aligned, strict=True))
    return "\n\n".join([f"**{table.title.translate(_MARKDOWN)}**", lines, *(one.translate(_MARKDOWN) for one in notes)])


def to_latex(table: Table, notes: Sequence[str] = ()) -> str:
    r"""Return a floating table with the rules of booktabs; it needs `\usepackage{booktabs}`."""

    def line(cells: Sequence[str]) -> str:
        return "    " + " & ".join("--" if cell == "-" else cell.translate(_LATEX) for cell in cells) + r" \\"

    lines = [
        r"\begin{table}[ht]  % \usepackage{booktabs}",
        r"  \centering",
        rf"  \caption{{{table.title.translate(_LATEX)}}}",
        rf"  \begin{{tabular}}{{{''.join('r' if one.is_number else 'l' for one in table.columns)}}}",
        r"    \toprule",
        line([one.title for one in table.columns]),
        r"    \midrule",
        *map(line, table.cells()),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par\smallskip\footnotesize {note.translate(_LATEX)}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def to_csv(table: Table, notes: Sequence[str] = ()) -> str:
    """Return a header of column names and one line per row; a missing value is an empty cell. Notes are omitted."""
    rows = exact_rows(table)
    keys = list(dict.fromkeys(key for row in rows for key in row)) or [column.key for column in table.columns]
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().removesuffix("\n")


def to_json(table: Table, notes: Sequence[str] = ()) -> str:
    """Return one object with the title, the rows by column name and the notes."""
    content = {"title": table.title, "rows": exact_rows(table), "notes": list(notes)}
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)


Format = Callable[[Table, Sequence[str]], str]
FORMATS: dict[str, Format] = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv, "json": to_json}


def exact_rows(table: Table) -> list[dict[str, Any]]:
    """Return the values of all columns, unrounded, as stored in the database."""
    rows = []
    for row in table.rows:
        exact: dict[str, Any] = {}
        for column in table.columns:
            value = row.get(column.key)
            plain, more = (value.value, value.more) if isinstance(value, Shown) else (value, {})
            exact |= {column.key: stored_value(plain)} | {f"{column.key}_{part}": one for part, one in more.items()}
        rows.append(exact)
    return rows


_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|`*_[]<"} | {"\n": " ", "\r": " "})
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "\n": " ", "\r": " "}
)
