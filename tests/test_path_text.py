"""Paths as text: printable, valid for SQLite and JSON, and reversible, whatever bytes a path has."""

import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from klcli.text import command_text, path_of, path_text

posix = pytest.mark.skipif(os.name != "posix", reason="only POSIX has paths of any bytes")


@pytest.mark.parametrize("path", ["/home/you/data", "Größe/数据/🎉.png", r"C:\Users\you\data", "a b", "~/x", ""])
def test_an_ordinary_path_is_itself(path: str) -> None:
    assert path_text(path) == path
    assert str(path_of(path)) == str(Path(path))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"caf\xe9/real", r"caf\xe9/real"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"red\x1b[31m", r"red\x1b[31m"),
        (b"two\nlines\r", r"two\x0alines\x0d"),
        (b"c1 \xc2\x9b31m", r"c1 \xc2\x9b31m"),  # a control character beyond ASCII
        ("right\u202eleft".encode(), r"right\xe2\x80\xaeleft"),
        (rb"a\xe9", r"a\x5cxe9"),  # a backslash that is one
        (rb"a\b\x", r"a\b\x"),
    ],
)
@posix
def test_any_other_is_escaped_and_restored(path: bytes, text: str) -> None:
    assert path_text(os.fsdecode(path)) == text
    assert os.fsencode(path_of(text)) == path


@given(st.binary().filter(lambda path: b"\0" not in path))
@posix
def test_every_path_is_valid_text_and_comes_back(path: bytes) -> None:
    text = path_text(os.fsdecode(path))
    assert text == "" or text.isprintable()
    assert json.loads(json.dumps(text, ensure_ascii=False).encode()) == text
    assert sqlite3.connect(":memory:").execute("SELECT ?", (text,)).fetchone() == (text,)
    assert path_of(text) == Path(os.fsdecode(path))


@posix
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@given(st.lists(st.binary(min_size=0, max_size=12).filter(lambda word: 0 not in word), min_size=1, max_size=4))
@example([b"it's", b"a\\b", b"caf\xe9", b"two\nlines", b"-0.5", b"$HOME"])
def test_a_shell_reads_a_command_as_the_same_words(words: list[bytes]) -> None:
    text = command_text([os.fsdecode(word) for word in words])
    assert text.isprintable()
    assert json.loads(json.dumps(text)) == text
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {text}"], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == words
