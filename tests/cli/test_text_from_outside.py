"""Names, notes, tags and paths of any bytes: stored as text, shown without control, written under these bytes."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import Klcli, change, succeeded
from PIL import Image

pytestmark = pytest.mark.slow

EVIL = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m <b>&</b> |a| $x$ _y_ \\input{z} \u2028`q`"
HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
BYTES = b"caf\xe9"


def run(folder: Path, *args: str | bytes) -> subprocess.CompletedProcess[bytes]:
    command = [os.fsencode(sys.executable), b"-m", b"klcli", *map(os.fsencode, args)]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False)


@pytest.fixture
def evil(trained: Path) -> Path:
    """Run 2 has hostile text wherever text can come from outside."""
    formula = '=HYPERLINK("http://example.org","x")'
    change(
        trained,
        "UPDATE runs SET note = ?, tags = ?, error = ?, command = ?, host = ?, dataset = ?, dataset_source = ?",
        values=[formula, EVIL.replace(" ", "_"), EVIL, f"klcli {EVIL}", EVIL, EVIL, EVIL],
    )
    return trained


FORMATS = ("table", "markdown", "latex", "csv", "csv-semicolon", "json")
VIEWS = (
    [], ["--list"], ["--run", "1", "2"], ["--group-by", "lambda"], ["--tagged", "\x1b"],
)  # fmt: skip
OTHERS = (
    ["--run", "1", "2", "--plot", "curves"], ["--dataset", "no such \x1b[31m"], ["--where", "'\x1b' = nothing"],
    ["--db", "\x1b[2J.db"], ["--to", "\x1b.gif", "--plot", "curves"], ["--html", "p\x1b.html"],
)  # fmt: skip
CHANGES = (
    ["note", "2", EVIL], ["tag", "2", "a\x1bb"], ["untag", "2", "\x1b[31m"], ["export", "--tables", "out\x1b[2J"],
    ["check"],
)  # fmt: skip


def test_nothing_from_outside_controls_a_terminal(here: Klcli, evil: Path) -> None:
    shown = [*([*view, "--format", form] for view in VIEWS for form in FORMATS), *OTHERS]
    for args in [*(["report", *view] for view in shown), *(["runs", *words] for words in CHANGES)]:
        done = here(*args)
        assert done.returncode in (0, 2, 4), (args, done.stderr)
        for text in (done.stdout.removeprefix("\ufeff"), done.stderr):
            assert not HIDDEN.search(text), (args, HIDDEN.search(text))
            assert "Traceback" not in text and "unexpected" not in text


def test_no_text_is_markup_or_a_formula(here: Klcli, evil: Path) -> None:
    assert here("report", "--html", "page.html").returncode == 0
    html = (evil / "page.html").read_text()
    assert "<b>" not in html and "&lt;b&gt;" in html
    assert not HIDDEN.search(html)
    assert re.search(r"(?<!\\)[<`$]", here("report", "--run", "2", "--format", "markdown").stdout) is None
    assert r"\input" not in here("report", "--run", "2", "--format", "latex").stdout
    for form, delimiter in (("csv", ","), ("csv-semicolon", ";")):
        text = here("report", "--list", "--format", form).stdout.removeprefix("\ufeff")
        for row in csv.DictReader(io.StringIO(text), delimiter=delimiter):
            assert row["note"].startswith("'=HYPERLINK")
    succeeded(here("report", "--run", "1", "2", "--plot", "curves", "--to", "x.svg"))
    svg = (evil / "x.svg").read_text()
    assert "<b>" not in svg and not HIDDEN.search(svg)


def test_names_of_any_bytes(here: Klcli, trained: Path) -> None:
    def ask(*args: str | bytes) -> subprocess.CompletedProcess[str]:
        """In this process, with the words as Python gives them to a process."""
        return here(*map(os.fsdecode, args))

    note, tag = b"note " + BYTES, b"tag-" + BYTES
    assert run(trained, "runs", "note", "2", note).returncode == 0
    assert ask("runs", "tag", "2", tag).returncode == 0
    shown = ask("report", "--tagged", tag, "--format", "csv")
    [row] = csv.DictReader(io.StringIO(shown.stdout))
    assert (row["id"], row["note"], row["tags"]) == ("2", "note caf\\xe9", "tag-caf\\xe9")
    assert ask("runs", "untag", "2", tag).returncode == 0
    for args, suffix in (
        (["report", "--run", "2", "--plot", "curves", "--to"], b".png"),
        (["report", "--html"], b".html"),
        (["runs", "export", "--tables"], b"-folder"),
    ):
        done = succeeded(run(trained, *args, BYTES + suffix))
        assert "caf\\xe9" in done.stdout.decode()
        assert BYTES + suffix in [os.fsencode(path.name) for path in trained.iterdir()]
    document = json.loads(ask("report", "--run", "2", "--plot", "rate", "--to", BYTES + b".svg", "--json").stdout)
    assert os.fsencode(document["pictures"][0]) == BYTES + b".svg"
    Image.new("RGB", (40, 40), "red").save(os.fsdecode(os.fsencode(trained) + b"/" + BYTES + b".jpg"), "JPEG")
    done = succeeded(run(trained, "predict", "--run", "2", "--data", "synthetic", BYTES + b".jpg"))
    assert "caf\\xe9.jpg" in done.stdout.decode()
    refused = ask("predict", "--run", "2", BYTES + b"-missing.jpg")
    assert refused.returncode == 3 and refused.stderr.count("\n") == 1
    for option in ("--where", "--format", "--group-by"):
        refused = ask("report", option, BYTES)
        assert refused.returncode == 2, (option, refused.stderr)
        assert refused.stderr.count("\n") == 1 and "unexpected" not in refused.stderr
