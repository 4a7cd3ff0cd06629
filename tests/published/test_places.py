"""The lines of a document: every table, key and item of what tomllib reads."""

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from klcli.published.format.places import Path, places
from klcli.published.report import report_names

TRICKY = '''# rows = [{ "not" = "a key" }]
a = 1
"x y".b.'c = d' = """
#[ "" = }
\\""" still text
"""
when = 1979-05-27 07:32:00 # = [
literal = \'\'\'
[no.table]\'\'\'
[common]
split = { train_batches = [1, 2], validation_batches = [
  3, # three
] }
[[e]]
name = "a]"
rows = [
  { row = "1", l = [1,
   [2, 3]] }, # x
  { row = '2"' }
]
[e.config]
z = 1
[[ e ]]
n . m = 2
[[e.f]]
x = {}
[[e.f]]
x = []
'''


def paths(value: Any, before: Path = ()) -> Iterator[Path]:
    """The paths of everything in a value that tomllib has read."""
    if before:
        yield before
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*before, key))


@pytest.mark.parametrize("name", report_names())
def test_every_key_of_the_reports_stands_in_its_line(name: str) -> None:
    text = files("klcli.published").joinpath("reports", f"{name}.toml").read_text(encoding="utf-8")
    found, lines = places(text), text.splitlines()
    assert found.keys() == {*paths(tomllib.loads(text))}
    for path, line in found.items():
        if isinstance(path[-1], str):
            assert path[-1] in lines[line - 1]
    last = max(index for index, line in enumerate(lines) if line.startswith(("[[", "[")))
    assert max(line for path, line in found.items() if len(path) == 2) == last + 1


def test_the_lines_of_a_tricky_document() -> None:
    found = places(TRICKY)
    assert found.keys() == {*paths(tomllib.loads(TRICKY))}
    by_hand: dict[Path, int] = {
        ("a",): 2, ("x y", "b", "c = d"): 3, ("when",): 7, ("literal",): 8, ("common",): 10, ("common", "split"): 11,
        ("common", "split", "train_batches", 1): 11, ("common", "split", "validation_batches", 0): 12,
        ("e",): 14, ("e", 0): 14, ("e", 0, "name"): 15, ("e", 0, "rows", 0): 17, ("e", 0, "rows", 0, "l", 1, 0): 18,
        ("e", 0, "rows", 1, "row"): 19, ("e", 0, "config"): 21, ("e", 0, "config", "z"): 22, ("e", 1): 23,
        ("e", 1, "n", "m"): 24, ("e", 1, "f", 0): 25, ("e", 1, "f", 1): 27, ("e", 1, "f", 1, "x"): 28,
    }  # fmt: skip
    assert {path: found[path] for path in by_hand} == by_hand
