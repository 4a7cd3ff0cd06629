"""CSV of many rows, compared with what csv.reader reads from it."""

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thinning import mostly_slow

from klcli import csv_text
from klcli.text import csv_cell

# The edges of the ranges in which libraries write the same number differently.
REALS = (0.0, -0.0, 1e-4, 9.999e-5, 1e-5, 1.23e-05, 5e-324, 1e15, 1e16, 9999999999999998.0, 1e22, 1e23, float("inf"))
real = st.floats(allow_nan=False) | st.sampled_from(REALS) | st.sampled_from(REALS).map(lambda value: -value)
whole = st.integers(-(2**63), 2**63 - 1)
word = st.text(max_size=8) | st.text('=+-@{}",; \n\r\t\x1b\u202e\uff1dé1', max_size=8)
column = st.sampled_from(
    [real, whole, word, st.none(), real | st.none(), word | st.none(), whole | real, whole | real | word | st.binary()]
)


@pytest.mark.parametrize("library", mostly_slow(["orjson", "repr"], 2))
@pytest.mark.parametrize("comma", [False, True])
@given(st.data(), st.lists(column, min_size=1, max_size=4), st.booleans())
def test_any_rows_read_back(library: str, comma: bool, data: st.DataObject, columns: list[Any], repeated: bool) -> None:
    rows = data.draw(st.lists(st.tuples(*columns), min_size=1, max_size=12))
    rows = rows[:1] * len(rows) if repeated else rows
    with pytest.MonkeyPatch.context() as patch:
        if library == "repr":
            patch.setattr(csv_text, "orjson", None)
        text = csv_text.csv_text(rows, has_decimal_comma=comma)
    found = [*csv.reader(io.StringIO(text, newline=""), delimiter=";" if comma else ",")]
    assert len(found) == len(rows)
    for cells, values in zip(found, rows, strict=True):
        for cell, value in zip(cells, values, strict=True):
            if type(value) in (int, float):
                text = cell.replace(",", ".") if comma else cell  # 1 and 1.0 are the same number
                assert (int(text) if text.lstrip("-").isdigit() else float(text)) == value
            else:
                assert cell == ("" if value is None else str(csv_cell(value)))


@pytest.mark.parametrize("values", [(0.0, -0.0), (-0.0, 0.0), (1, 1.0), (1.0, 1), (True, 1), (0, False, 0.0)])
def test_equal_values_keep_their_own_text(values: tuple[Any, ...]) -> None:
    text = csv_text.csv_text([(value, "x") for value in values])
    assert text == "".join(f"{value!r},x\n" for value in values)


def test_the_fast_library_is_there() -> None:
    assert csv_text.orjson is not None
