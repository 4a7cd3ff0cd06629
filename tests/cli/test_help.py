"""`klcli help`: the list of pages, a page in a pipe and in a terminal."""

import json
import os
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from light import KLCLI

Klcli = Callable[..., "CompletedProcess[str]"]
Refused = Callable[..., str]
PAGES = files("klcli").joinpath("docs")


def test_the_pages_are_listed(here: Klcli, refused: Refused) -> None:
    listed = here("help").stdout.splitlines()
    assert "reproduce   Reproduce a report of your own" in listed
    assert len(listed) == len(list(PAGES.iterdir()))
    assert json.loads(here("help", "--json").stdout)["topics"]["settings"] == "The settings of a training"
    refused(here("help", "setings"), 2, "choose one of gradients, reproduce, settings")


def test_a_page_in_a_pipe_is_the_file(here: Klcli) -> None:
    for page in PAGES.iterdir():
        topic = page.name.removesuffix(".md")
        assert here("help", topic).stdout == page.read_text(encoding="utf-8")
        assert json.loads(here("help", topic, "--json").stdout)["text"] == page.read_text(encoding="utf-8")


def test_a_page_in_a_terminal_is_laid_out(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    seen = b""
    with subprocess.Popen(
        [*KLCLI, "help", "settings"], stdout=theirs, env=os.environ | {"COLUMNS": "80", "TERM": "xterm"}, cwd=tmp_path
    ) as process:
        os.close(theirs)
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
        except OSError:  # Linux ends a terminal so
            pass
    os.close(ours)
    assert process.returncode == 0
    assert b"The settings of a training" in seen
    assert b"|---|" not in seen
