"""Text from outside: control characters, formulas and bytes that are no text."""

import csv
import io

import pytest

from klcli.text import csv_cell, storable, visible

# Every character that moves a cursor, hides text or reorders it, from the Unicode standard.
CONTROL = [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]


@pytest.mark.parametrize("code", CONTROL, ids=hex)
def test_no_control_character_is_shown(code: int) -> None:
    text = f"a{chr(code)}b"
    shown = visible(text)
    assert chr(code) not in shown
    assert shown.isprintable()
    assert shown.startswith("a\\") and shown.endswith("b")


@pytest.mark.parametrize("text", ["plain", "é ü 猫 😀 ±", "a\\b", "👩‍🔬"])
def test_other_characters_stay(text: str) -> None:
    assert visible(text) == storable(text) == csv_cell(text) == text


def test_bytes_that_are_no_utf_8_are_legible_and_can_be_stored() -> None:
    name = b"caf\xe9\n".decode(errors="surrogateescape")
    assert visible(name) == "caf\\xe9\\n"
    assert storable(name) == "caf\\xe9\n"
    storable(name + "\ud800").encode()


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "=", "＝1"]
)
def test_a_formula_is_text(text: str) -> None:
    assert csv_cell(text).startswith("'")


@pytest.mark.parametrize("value", [-0.5, 7, None, True, "-0.5", "+3", "1e-05", "-", "a=b", "n/a"])
def test_numbers_stay_numbers(value: object) -> None:
    assert csv_cell(value) == value


def test_a_note_of_several_lines_survives_csv() -> None:
    text = io.StringIO()
    csv.writer(text).writerow([csv_cell("one\ntwo\tthree"), csv_cell(-0.25)])
    assert next(csv.reader(io.StringIO(text.getvalue()))) == ["one\ntwo\tthree", "-0.25"]
