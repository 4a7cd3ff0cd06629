"""CSV: the lines of many rows, column by column; csv.writer takes three times as long."""

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from klcli.text import csv_cell

try:
    import orjson
except ImportError:  # PyPy has none: repr gives the same digits in five times the time
    orjson = None  # type: ignore[assignment]

AT_ONCE = 250  # rows: their values fit into the cache of a core, which takes a quarter off the time
_NUMBERS = {int, float}
_SPECIAL = re.compile('[",;\n]')  # what is enclosed in quotes


def csv_text(rows: Sequence[Sequence[Any]], *, has_decimal_comma: bool = False) -> str:
    """Return a line per row with the texts of `csv_cell`. None is an empty cell, a number reads back as the same.

    With a decimal comma, a semicolon separates the cells.
    """
    if orjson and not has_decimal_comma and {*map(type, chain.from_iterable(rows))} <= _NUMBERS:
        text = orjson.dumps(rows).decode()
        if "null" not in text:  # JSON has no infinite numbers
            return text[2:-2].replace("],[", "\n") + "\n"
    columns = [_cells(column, has_decimal_comma) for column in zip(*rows, strict=True)]
    lines = [*map((";" if has_decimal_comma else ",").join, zip(*columns, strict=True))]
    if "" in lines:  # an empty line would not be a row
        lines = [line or '""' for line in lines]
    return "\n".join([*lines, ""])


def _cells(column: Sequence[Any], has_decimal_comma: bool) -> Iterable[str]:
    """Return the text of the values of a column."""
    types = {*map(type, column)}
    if not types & _NUMBERS:  # only among numbers, equal values can have unequal texts: 0.0, -0.0 and 0
        texts = {value: _text(value) for value in {*column}}
        return map(texts.__getitem__, column)
    if not types <= {*_NUMBERS, type(None)}:
        return [cell for value in column for cell in _cells([value], has_decimal_comma)]
    if orjson and (text := orjson.dumps(column).decode()).count("null") == column.count(None):
        cells = text[1:-1].replace("null", "").split(",")
    else:
        cells = ["" if value is None else repr(value) for value in column]
    return [cell.replace(".", ",") for cell in cells] if has_decimal_comma else cells


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = str(value)
    # Most texts need no escape, which is seen faster than `csv_cell` can find out.
    if isinstance(value, str) and not (text.isprintable() and (text[:1].isalnum() or text[:1] == "{")):
        text = csv_cell(text)
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text
