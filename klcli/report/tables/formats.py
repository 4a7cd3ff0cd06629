"""Formats: one table as Markdown, LaTeX, CSV or JSON.

Markdown and LaTeX show the rounded numbers of the terminal. CSV and JSON carry every stored digit,
under the names that the columns have in the database.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from klcli.report.tables.table import Row, Shown, Table
from klcli.settings.columns import stored_value


def to_markdown(table: Table, notes: Sequence[str] = ()) -> str:
    """Return a table of pipes with its title above and its notes below."""
    head = [_markdown(column.title) for column in table.columns]
    body = [[_markdown(cell) for cell in cells] for cells in table.cells()]
    widths = [max(3, *(len(row[i]) for row in [head, *body])) for i in range(len(head))]
    rules = [
        "-" * (width - 1) + ":" if column.is_number else "-" * width
        for column, width in zip(table.columns, widths, strict=True)
    ]
    aligned = [
        [
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for cell, column, width in zip(row, table.columns, widths, strict=True)
        ]
        for row in [head, *body]
    ]
    lines = ["| " + " | ".join(row) + " |" for row in [aligned[0], rules, *aligned[1:]]]
    return "\n\n".join([f"**{_markdown(table.title)}**", "\n".join(lines), *map(_markdown, notes)])


def to_latex(table: Table, notes: Sequence[str] = ()) -> str:
    r"""Return a floating table with the rules of booktabs; it needs `\usepackage{booktabs}`."""
    kinds = "".join("r" if column.is_number else "l" for column in table.columns)
    rows = [" & ".join(_latex(cell) for cell in cells) + r" \\" for cells in table.cells()]
    lines = [
        r"\begin{table}[ht]  % \usepackage{booktabs}",
        r"  \centering",
        rf"  \caption{{{_latex(table.title)}}}",
        rf"  \begin{{tabular}}{{{kinds}}}",
        r"    \toprule",
        "    " + " & ".join(_latex(column.title) for column in table.columns) + r" \\",
        r"    \midrule",
        *(f"    {row}" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par\smallskip\footnotesize {_latex(note)}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def to_csv(table: Table, notes: Sequence[str] = ()) -> str:
    """Return a head of column names and one line per row; what is missing is an empty cell. Notes have no place."""
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


FORMATS: dict[str, Callable[[Table, Sequence[str]], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "json": to_json,
}


def exact_rows(table: Table) -> list[dict[str, Any]]:
    """Return the values of all columns, unrounded and as the database has them."""
    return [_exact_row(row, [column.key for column in table.columns]) for row in table.rows]


def _exact_row(row: Row, keys: Sequence[str]) -> dict[str, Any]:
    exact: dict[str, Any] = {}
    for key in keys:
        value = row.get(key)
        more: Mapping[str, Any] = {}
        if isinstance(value, Shown):
            value, more = value.value, value.more
        exact |= {key: stored_value(value)} | {f"{key}_{part}": one for part, one in more.items()}
    return exact


_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|`*_[]<"} | {"\n": " ", "\r": " "})
_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        "\n": " ",
        "\r": " ",
    }
)


def _markdown(text: str) -> str:
    return text.translate(_MARKDOWN)


def _latex(text: str) -> str:
    return "--" if text == "-" else text.translate(_LATEX)
