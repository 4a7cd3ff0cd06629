"""Places: the line of every table, key and item of a TOML document, which tomllib does not report.

It reads the document a second time, with lines in place of values: each value that is neither a table nor a list is
replaced by its line, a list gets its line as the first item, and a table under the key LINE.
"""

import re
import tomllib
from typing import Any

Path = tuple[str | int, ...]  # ("experiments", 1, "rows", 2, "lam"): items of a list are counted from 0
Places = dict[Path, int]

LINE, _KEY = "\0", '"\\u0000"'  # as Python and as TOML has it
_TOKEN = re.compile(
    r'(?P<skipped>#[^\n]*|[^\S\n]+)|"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|\{[^\S\n]*\}'
    r'|"(?:\\.|[^"\\])*"|\'[^\']*\'|[][{}=,\n]|(?:\d{4}-\d\d-\d\d )?[^][{}=,\n#"\'\s]+',
    re.DOTALL,
)


def places(text: str) -> Places:
    """Return the lines, from 1 on, of a document that tomllib has accepted; RecursionError if it nests too deeply."""
    found = Places()

    def note(path: Path, value: Any) -> int:
        line, inner = None, dict[Any, Any]()
        if isinstance(value, int):
            line = value
        elif isinstance(value, dict):
            line, inner = value.pop(LINE, None), value
        elif isinstance(value[0], int):
            line, inner = value[0], dict(enumerate(value[1:]))
        else:  # tables with headers
            inner = dict(enumerate(value))
        lines = [note((*path, key), one) for key, one in inner.items()]
        found[path] = min(lines) if line is None else line
        return found[path]

    for key, value in tomllib.loads(_with_lines(text)).items():
        note((key,), value)
    return found


def _with_lines(text: str) -> str:
    line, parts = 1, list[str]()
    opened = list[str]()  # brackets of values
    is_header = is_value = False  # whether the next token belongs to a header, and whether it follows an equals sign
    for found in _TOKEN.finditer(f"{text}\n"):
        word = found[0]
        if not found["skipped"]:
            if word in ("]", "}") and opened:
                opened.pop()
            elif is_value or (opened[-1:] == ["["] and word not in (",", "\n")):
                opened += [word] if word in ("[", "{") else []
                word = {"[": f"[{line}, ", "{": f"{{{_KEY} = {line}, "}.get(word, str(line))
            elif word == "[" and not opened:
                is_header = True
            elif word == "\n" and is_header:
                word, is_header = f"\n{_KEY} = {line}\n", False
            is_value = word == "="
        parts.append(word)
        line += found[0].count("\n")
    return "".join(parts)
