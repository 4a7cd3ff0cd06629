"""`klcli help`: the list of pages, a page in a pipe and in a terminal."""

import json
import re
from importlib.resources import files
from pathlib import Path

from command import Klcli, Refused
from terminal import in_terminal

from klcli.cli.commands.help import PAGES_OF_COMMANDS

PAGES = files("klcli").joinpath("docs")


def test_the_pages_are_listed(here: Klcli, refused: Refused) -> None:
    listed = here("help").stdout.splitlines()
    assert "reproduce        Reproduce published reports, and your own" in listed
    assert len(listed) == len(list(PAGES.iterdir()))
    assert max(map(len, listed)) <= 80
    assert json.loads(here("help", "--json").stdout)["topics"]["settings"] == "The settings of a training"
    refused(here("help", "setings"), 2, "the nearest is settings, `klcli help` lists all")


def test_a_command_is_a_topic_too(here: Klcli) -> None:
    for command, topic in PAGES_OF_COMMANDS.items():
        assert here("help", command).stdout == here("help", topic).stdout


def test_a_page_in_a_pipe_is_the_file(here: Klcli) -> None:
    for page in PAGES.iterdir():
        topic = page.name.removesuffix(".md")
        assert here("help", topic).stdout == page.read_text(encoding="utf-8")
        assert json.loads(here("help", topic, "--json").stdout)["text"] == page.read_text(encoding="utf-8")


def test_code_fits_a_terminal_of_80_columns() -> None:
    for page in PAGES.iterdir():
        for code in re.findall(r"^```(?!console)\w+\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            assert max(map(len, code.splitlines())) <= 78, code


def test_a_page_in_a_terminal_is_laid_out(tmp_path: Path) -> None:
    seen = "\n".join(in_terminal(tmp_path, 80, "help", "settings"))
    assert "The settings of a training" in seen
    assert "|---|" not in seen
    assert "values before, after; default before; field" in seen  # a wide table is a list, and no name is cut
    assert "…" not in seen
