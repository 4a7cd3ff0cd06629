"""Text that is stored or shown: names, notes, tags, paths, commands and errors from outside, made harmless; times."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# C0, C1, direction marks and overrides, line and paragraph separators, the byte order mark, and lone surrogates, which
# stand for the bytes of a name that is not UTF-8.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# What neither cmd nor PowerShell changes outside of quotes: options, numbers, names and paths.
_PLAIN = re.compile(r"--?[\w-]+|[\w\\/][\w.:\\/+-]*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan|infinity)", re.ASCII | re.IGNORECASE)
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # also the full-width forms, which spreadsheets accept


def visible(text: str, *, keep: str = "") -> str:
    r"""Return a text whose control characters are visible, as `\x1b`, `\n` or `\u202e`; those in `keep` stay.

    Such characters move the cursor of a terminal, change its title, or hide and reorder words.
    """
    return _INVISIBLE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def storable(text: str) -> str:
    r"""Return a text that UTF-8 can encode: the bytes of a name in another encoding become `\xe9`."""
    return _SURROGATE.sub(lambda found: _escape(found[0]), text)


def csv_cell(value: Any) -> Any:
    """Return a value for a cell of CSV: a text that a spreadsheet would compute as a formula begins with an apostrophe.

    Line breaks and tabs stay, because quotes enclose them; a text that is a number, as -0.5, stays one.
    """
    if not isinstance(value, str):
        return value
    shown = visible(value, keep="\n\t")
    is_formula = value.lstrip(" ").startswith(_FORMULA) and value != "-"
    return f"'{shown}" if is_formula and not _NUMBER.fullmatch(value) else shown


def _escape(character: str) -> str:
    if 0xDC80 <= (code := ord(character)) <= 0xDCFF:  # a byte that Python could not decode (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line, or the name of its type if it has none."""
    return joined_lines(str(error)) or type(error).__name__


def joined_lines(text: str) -> str:
    """Return a text on one line; blanks within a line stay, as in the name of a file."""
    return " ".join(filter(None, map(str.strip, text.splitlines())))


def path_text(path: str | os.PathLike[str]) -> str:
    r"""Return a path, or a text with paths in it, as printable text; `path_of` restores the path.

    Bytes that are no text in the encoding of the file system, and control characters, become `\xNN`.
    """
    return re.sub(r"\\(?=x[0-9a-f]{2})|[^ -~]", _in_bytes, os.fspath(path))


def path_of(text: str) -> Path:
    """Return the path that `path_text` has written."""
    unescaped = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), os.fsencode(text))
    return Path(os.fsdecode(unescaped))


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with `~` expanded, which a shell does not do in `--data=~/cifar`, and Python nowhere."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # without a home, "~" is an ordinary name


def command_text(words: Sequence[str]) -> str:
    """Return a command line as printable text that a shell (bash, zsh) reads as exactly these words.

    On Windows, cmd and PowerShell do, except that cmd replaces `%NAME%`, and PowerShell `$name` and backticks.
    """
    if sys.platform == "win32":
        return " ".join(map(_quoted_for_windows, words))
    special = r"[\\']|[^ -~]"
    return " ".join(
        shlex.quote(word) if word.isprintable() else f"$'{re.sub(special, _in_bytes, word)}'" for word in words
    )


def _quoted_for_windows(word: str) -> str:
    from subprocess import list2cmdline  # slow to import

    if _PLAIN.fullmatch(word):
        return word
    spaced = list2cmdline([f" {visible(word)}"])  # in quotes, as `<` and `,` have to be for a shell
    return f'"{spaced[2:]}'


def _in_bytes(found: re.Match[str]) -> str:
    r"""Return a character as the bytes `\xc3\xa9`; one that is printable, and no backslash or quote, as it is."""
    if found[0].isprintable() and found[0] not in "\\'":
        return found[0]
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(found[0]))


def now() -> str:
    """The time as the database stores it: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
