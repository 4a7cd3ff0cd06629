"""Formats: one table as Markdown, LaTeX, CSV or JSON.

Markdown and LaTeX show the rounded numbers of the terminal. CSV and JSON have every stored digit,
with the column names of the database.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from klcli.csv_text import AT_ONCE, csv_text
from klcli.report.tables.table import Shown, Table
from klcli.settings.columns import stored_value
from klcli.text import visible


def to_markdown(table: Table, notes: Sequence[str] = ()) -> str:
    """Return a Markdown table with its title above and its notes below."""
    rows = [[one.title for one in table.columns], *table.cells()]
    columns = [[markdown_text(cell) for cell in cells] for cells in zip(*rows, strict=True)]
    for column, cells in zip(table.columns, columns, strict=True):
        width = max(3, *map(len, cells))
        cells[:] = [cell.rjust(width) if column.is_number else cell.ljust(width) for cell in cells]
        cells.insert(1, "-" * (width - 1) + ":" if column.is_number else "-" * width)
    lines = "\n".join("| " + " | ".join(row) + " |" for row in zip(*columns, strict=True))
    return "\n\n".join([f"**{markdown_text(table.title)}**", lines, *map(markdown_text, notes)])


def to_latex(table: Table, notes: Sequence[str] = (), *, label: str = "", width: float = 345) -> str:
    r"""Return a floating table with the rules of booktabs; it needs `\usepackage{booktabs}`.

    `width` is that of the text in points, by default of an article; for a wider table, letters are smaller, and
    the widest one extends into both margins.
    """
    alignment = "".join("r" if one.is_number else "l" for one in table.columns)
    rows = [[one.title for one in table.columns], *table.cells()]
    texts = [["--" if cell == "-" else latex_text(cell) for cell in cells] for cells in rows]
    head, *body = [f"    {' & '.join(cells)} \\\\" for cells in texts]
    letters = sum(max(map(len, cells)) for cells in zip(*rows, strict=True))
    fitting = (size for size, points in _SIZES.items() if letters * points + 12 * len(alignment) <= width)
    size = next(fitting, r"\scriptsize\setlength{\tabcolsep}{3pt}\makebox[\linewidth]{")
    end = "}" * size.endswith("{")
    lines = [
        r"\begin{table}[htbp]  % \usepackage{booktabs}",
        r"  \centering",
        rf"  \caption{{{latex_text(table.title)}}}",
        *[rf"  \label{{{label}}}"] * bool(label),
        *[f"  {size}"] * bool(size),
        rf"  \begin{{tabular}}{{{alignment}}}",
        *(r"    \toprule", head, r"    \midrule"),
        *body,
        *(r"    \bottomrule", rf"  \end{{tabular}}{end}"),
        *(rf"  \par\smallskip\footnotesize {latex_text(note)}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def to_csv(table: Table, notes: Sequence[str] = (), *, has_decimal_comma: bool = False) -> str:
    """Return a header of column names and one line per row; a missing value is an empty cell. Notes are omitted.

    With a decimal comma, as a German Excel expects it, columns end in a semicolon and the byte order mark is needed.
    """
    # The first row has the columns, and the rows with a deviation more of them.
    wider = [row for row in table.rows if any(isinstance(value, Shown) and value.more for value in row.values())]
    found = dict.fromkeys(key for row in exact_rows(replace(table, rows=[*table.rows[:1], *wider])) for key in row)
    keys = list(found) or [column.key for column in table.columns]
    exact, lines = exact_rows(table), [csv_text([keys], has_decimal_comma=has_decimal_comma)]
    while portion := [[row.get(key) for key in keys] for row in islice(exact, AT_ONCE)]:
        lines.append(csv_text(portion, has_decimal_comma=has_decimal_comma))
    return "\ufeff" * has_decimal_comma + "".join(lines).removesuffix("\n")


def to_json(table: Table, notes: Sequence[str] = ()) -> str:
    """Return one object with the title, the rows by column name and the notes."""
    content = {"title": table.title, "rows": [*exact_rows(table)], "notes": list(notes)}
    return json.dumps(content, indent=2, allow_nan=False)


FORMATS: dict[str, Callable[[Table, Sequence[str]], str]] = {
    "markdown": to_markdown, "latex": to_latex, "json": to_json,
    "csv": to_csv, "csv-semicolon": partial(to_csv, has_decimal_comma=True),
}  # fmt: skip


def formatted(form: str, tables: Sequence[Table], notes: Sequence[str], name: str) -> str:
    """Return tables in a format, the notes below the last one; `name` is that of the first in LaTeX: `tab:study-3`."""
    texts = []
    for number, table in enumerate(tables, start=1):
        render = partial(to_latex, label=f"tab:{name}" + f"-{number}" * (number > 1))
        own = notes if number == len(tables) else ()
        texts.append((render if form == "latex" else FORMATS[form])(table, own))
    return "\n\n".join(texts)


def exact_rows(table: Table) -> Iterator[dict[str, Any]]:
    """Yield the values of all columns of each row, unrounded, as stored in the database."""
    keys = [column.key for column in table.columns]
    for row in table.rows:
        exact: dict[str, Any] = {}
        for key in keys:
            value = row.get(key)
            if type(value) in _STORED:
                exact[key] = value
            elif isinstance(value, Shown):
                exact[key] = stored_value(value.value)
                exact |= {f"{key}_{part}": one for part, one in value.more.items()}
            else:
                exact[key] = stored_value(value)
        yield exact


def markdown_text(text: str) -> str:
    """Return a text without markup: the first character of a note could begin a heading, a list or a table."""
    escaped = visible(text).translate(_MARKDOWN)
    return f"\\{escaped}" if escaped.startswith(("#", "+", "- ", "=")) else escaped


def latex_text(text: str) -> str:
    """Return a text without commands; a bracket or star at the beginning would be an argument of the line before."""
    escaped = _UNSET.sub(_unset, re.sub("-(?=-)", "-{}", visible(text).translate(_LATEX)))
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped.startswith(("[", "*")) else escaped


def _unset(found: re.Match[str]) -> str:
    """Return characters that pdfTeX would stop at as their numbers, and for its successors as they are."""
    numbers = " ".join(f"U+{ord(one):04X}" for one in found[0])
    return rf"\ifdefined\pdftexversion {numbers}\else {found[0]}\fi{{}}"


# What pdfLaTeX cannot set without a further package: all but most of Latin-1 and Latin Extended-A, and some signs.
_UNSET = re.compile("[^\n -\u017e–—‘’“”†‡•…‰€™]+|[«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲų]+")
_SIZES = {"": 5.0, r"\small": 4.5, r"\footnotesize": 4.0, r"\scriptsize": 3.5}  # points of a letter
_STORED = {str, int, float, type(None)}  # types whose values are stored as they are
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|`*_[]<>&~$"})
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", '"': r"\char34{}", "|": r"\textbar{}"}
)
