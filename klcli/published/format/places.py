"""Places: the line of every table, key and item of a TOML document, which tomllib does not report."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]  # ("experiments", 1, "rows", 2, "lam"): items of a list are counted from 0
Places = dict[Path, int]
Token = tuple[str, int]  # its text and its line

_TOKEN = re.compile(
    r'(?P<skipped>#[^\n]*|[^\S\n]+)|"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}'
    r'|"(?:\\.|[^"\\])*"|\'[^\']*\'|[][{}=,\n]|(?:\d{4}-\d\d-\d\d )?[^][{}=,\n#"\'\s]+',
    re.DOTALL,
)


def places(text: str) -> Places:
    """Return the lines, from 1 on, of a document that tomllib has accepted; RecursionError if it nests too deeply."""
    return _Scanner(text).places


class _Scanner:
    """Reads the tokens of a valid document once; `table` is the path of the header that the keys belong to."""

    def __init__(self, text: str) -> None:
        self.tokens = [*_tokens(text), ("\n", 0)]
        self.at, self.places, self.sizes = 0, Places(), dict[Path, int]()
        table: Path = ()
        while self.at < len(self.tokens):
            if self._peek() == "\n":
                self.at += 1
            elif self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)

    def _peek(self) -> str:
        return self.tokens[self.at][0]

    def _until(self, end: str) -> tuple[Any, int]:
        """Return the key before the token `end` as tomllib reads it, a.b as {"a": {"b": 0}}, and its line."""
        start = self.at
        while self._peek() != end:
            self.at += 1
        text = " ".join(word for word, _ in self.tokens[start : self.at])
        self.at += 1
        return tomllib.loads(f"{text} = 0"), self.tokens[start][1]

    def _header(self) -> Path:
        brackets = 2 if self.tokens[self.at + 1][0] == "[" else 1
        self.at += brackets
        key, line = self._until("]")
        self.at += brackets - 1
        table: Path = ()
        while isinstance(key, dict):
            [(name, key)] = key.items()
            table = (*table, name)
            if key == 0 and brackets == 2:
                self.sizes[table] = self.sizes.get(table, 0) + 1
            if table in self.sizes:  # a header belongs to the last item of a list
                self.places.setdefault(table, line)
                table = (*table, self.sizes[table] - 1)
            self.places.setdefault(table, line)
        return table

    def _pair(self, table: Path) -> None:
        key, line = self._until("=")
        while isinstance(key, dict):
            [(name, key)] = key.items()
            table = (*table, name)
            self.places.setdefault(table, line)
        self._value(table)

    def _value(self, path: Path) -> None:
        word, line = self.tokens[self.at]
        self.at += 1
        self.places.setdefault(path, line)
        index = 0
        while word in ("[", "{") and self._peek() not in ("]", "}"):
            if self._peek() in (",", "\n"):
                self.at += 1
            elif word == "{":
                self._pair(path)
            else:
                self._value((*path, index))
                index += 1
        self.at += word in ("[", "{")


def _tokens(text: str) -> Iterator[Token]:
    line = 1
    for found in _TOKEN.finditer(text):
        if found["skipped"] is None:
            yield found[0], line
        line += found[0].count("\n")
