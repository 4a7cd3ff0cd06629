"""`--help` and `--help-all` of every command at 80 columns: no word cut or broken, and the common options first."""

import re
from typing import Any

import pytest
import typer.main
from command import Klcli

from klcli.cli.app import app
from klcli.cli.help_screen import COMMON, SHORT


def commands(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command and group below this one, by its words."""
    found = {path: command}
    for name, child in getattr(command, "commands", {}).items():
        found |= commands(child, (*path, name))
    return found


COMMANDS = commands(typer.main.get_command(app))


def words(screen: str) -> list[str]:
    """The words of a screen without its frames, in a fixed order: an entry may begin on the line of its option."""
    return sorted(re.sub("[─│╭╮╰╯•]", " ", screen).split())


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "klcli")
def test_help_fits_into_80_columns(here: Klcli, path: tuple[str, ...]) -> None:
    """The words of a wide screen and of a narrow one are the same: none is cut or broken at the edge."""
    narrow = here(*path, "--help-all", COLUMNS="80").stdout
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow
    assert "<bool>" not in narrow
    assert words(narrow) == words(here(*path, "--help-all", COLUMNS="2000").stdout)
    for param in COMMANDS[path].params:
        values = "" if param.param_type_name == "argument" or param.is_flag or param.count else f" {param.metavar}"
        for name in (*param.opts, *param.secondary_opts) if param.param_type_name == "option" else ():
            assert re.search(rf"[ /]{re.escape(name)}\b", narrow), name
        assert values in narrow


def test_a_command_with_many_options_shows_the_common_ones_first(here: Klcli) -> None:
    short, whole = here("train", "--help", COLUMNS="80").stdout, here("train", "--help-all", COLUMNS="80").stdout
    assert len(re.findall("^│ --", short, re.MULTILINE)) <= 24
    assert {"--hidden", "--bn", "--lambda", "--cycles", "--seed", "--help-all"} <= set(words(short))
    assert not {"--bn-eps", "--mixup", "--executor"} & set(words(short))
    assert {"--bn-eps", "--mixup", "--executor"} <= set(words(whole))
    few = here("evaluate", "--help", COLUMNS="80").stdout
    assert "--help-all" not in few
    assert "--bn-samples N" in few


def test_a_usage_says_what_may_be_omitted_and_a_default_can_be_pasted(here: Klcli) -> None:
    assert "Usage: klcli help [OPTIONS] [TOPIC]" in here("help", "--help").stdout
    assert "Usage: klcli runs tag [OPTIONS] RUN... TAG" in here("runs", "tag", "--help").stdout
    assert "Usage: klcli runs export [OPTIONS] [RUN] [FILE]" in here("runs", "export", "--help").stdout
    assert re.search(r"default:\W+50,50\]", here("train", "--help", COLUMNS="80").stdout)
    assert "default: 0]" not in here("search-lambda", "--help", COLUMNS="200").stdout.partition("--fine")[2][:200]


def test_every_common_option_exists() -> None:
    long = [command for command in COMMANDS.values() if len(command.params) > SHORT]
    assert {param.name for command in long for param in command.params} >= COMMON
