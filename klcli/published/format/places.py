"""Places: the line of every table, key and item of a TOML document, which tomllib does not report."""

import re
import tomllib
from collections import Counter, deque
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
    tokens, found, sizes = deque([*_tokens(text), ("\n", 0)]), Places(), Counter[Path]()

    def key(end: str) -> tuple[list[str], int]:
        """Take the key before the token `end`, and that token; return the parts of the key and its line."""
        line, words = tokens[0][1], [*iter(lambda: tokens.popleft()[0], end)]
        nested: Any = tomllib.loads(f"{' '.join(words)} = 0")  # a.b is {"a": {"b": 0}}
        parts = list[str]()
        while nested:
            [(part, nested)] = nested.items()
            parts.append(part)
        return parts, line

    def pair(path: Path) -> None:
        parts, line = key("=")
        for part in parts:
            path = (*path, part)
            found.setdefault(path, line)
        value(path)

    def value(path: Path) -> None:
        word, line = tokens.popleft()
        found.setdefault(path, line)
        index = 0
        while word in ("[", "{") and tokens[0][0] not in ("]", "}"):
            if tokens[0][0] in (",", "\n"):
                tokens.popleft()
            elif word == "{":
                pair(path)
            else:
                value((*path, index))
                index += 1
        if word in ("[", "{"):
            tokens.popleft()

    table: Path = ()  # of the header that the keys belong to
    while tokens:
        if tokens[0][0] == "\n":
            tokens.popleft()
        elif tokens[0][0] == "[":
            tokens.popleft()
            if is_list := tokens[0][0] == "[":
                tokens.popleft()
            parts, line = key("]")
            if is_list:
                tokens.popleft()
            table = ()
            for depth, part in enumerate(parts, start=1):
                table = (*table, part)
                found.setdefault(table, line)
                sizes[table] += is_list and depth == len(parts)
                if sizes[table]:  # a header belongs to the last item of a list
                    table = (*table, sizes[table] - 1)
                    found.setdefault(table, line)
        else:
            pair(table)
    return found


def _tokens(text: str) -> Iterator[Token]:
    line = 1
    for found in _TOKEN.finditer(text):
        if found["skipped"] is None:
            yield found[0], line
        line += found[0].count("\n")
