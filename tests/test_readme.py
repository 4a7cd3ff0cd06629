"""The README agrees with the program: commands, options, schema, exit codes, files."""

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer.main
from light import KLCLI, LIGHT

from klcli.cli.app import app
from klcli.errors import ExitCode
from klcli.settings.sameness import SETTINGS
from klcli.store.store import Store
from tests.settings.documentation import settings_page

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST = "klcli train --hidden 50 30 20 --bn"
TABLES = ("studies", "runs", "epochs", "gradient_checks", "gradient_errors", "evaluations", "evaluation_runs")


def blocks(language: str) -> list[str]:
    """The fenced blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every call of klcli in the fenced blocks, from `klcli` on."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    lines += [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines() if line[:2] == "$ "]
    calls = [part.strip().removeprefix(".venv/bin/") for line in lines for part in line.split("&&")]
    return list(dict.fromkeys(call for call in calls if call.startswith("klcli ")))


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", README, flags=re.MULTILINE | re.DOTALL)
    assert found, f"README has no section {title!r}"
    return found[1]


def first_column(text: str) -> list[str]:
    """The first cell of every row of the Markdown tables in `text`, without their heads."""
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows[2:] if row]


@pytest.fixture(scope="module")
def machine(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty machine around it: no images and no home."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "cache").symlink_to(shared_cache)
    return folder


def call(machine: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run klcli there."""
    return _run(machine, *KLCLI, *args)


def run_python(machine: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run lines of Python there."""
    return _run(machine, sys.executable, "-c", code)


def _run(machine: Path, *args: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("KLCLI_") and name != "FORCE_COLOR"
    }
    own = {"HOME": str(machine), "KLCLI_CACHE": str(machine / "cache"), "COLUMNS": "200"}
    return subprocess.run(args, cwd=machine, env=kept | own, capture_output=True, text=True, check=False)


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 8
    assert FIRST in commands()


@pytest.mark.parametrize("command", commands())
@pytest.mark.slow
def test_every_command_does_what_it_says(machine: Path, command: str) -> None:
    """On the synthetic set and few images. What would touch the network or take minutes is only parsed."""
    args = shlex.split(command)[1:]
    if args[0] == "train":
        args += ["--data", "synthetic", "--subset", "500", "--epochs", "1"]
    elif args[0] == "gradcheck":
        args += ["--data", "synthetic", "--images", "5", "--dims", "5"]
    elif args[0] in ("report", "evaluate"):
        if not (machine / "results/checkpoints/run-000002.npz").exists():  # where this test runs alone
            few = ("--data", "synthetic", "--subset", "100", "--epochs", "1", "--bn", "--repeats", "2")
            assert call(machine, "train", *few).returncode == 0
    elif args[:2] != ["data", "info"]:
        args += ["--help"]
    # Most trainings are light; one with a half cycle, and one of a range test, draw and use compiled code.
    usual = args[0] != "train" or command in (FIRST, "klcli train --bn --lr-range-test --quiet")
    done = _run(machine, *(KLCLI if usual else LIGHT), *args)
    assert done.returncode == 0, done.stderr


def options(command: Any) -> set[str]:
    """The long options of a command and of all commands below it."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(options(child) for child in getattr(command, "commands", {}).values()))


def test_every_option_exists() -> None:
    of_klcli = "\n".join(line for line in README.splitlines() if "-m pytest" not in line)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", of_klcli))
    known = options(typer.main.get_command(app)) | {"--help", "--help-all"}
    assert named <= known, named - known


@pytest.mark.slow
def test_the_built_in_images_are_the_ones_shown(machine: Path) -> None:
    shown = next(block for block in blocks("console") if block.startswith("$ klcli data info"))
    real = call(machine, "data", "info", "--data", "synthetic").stdout
    expected = [line.rstrip() for line in real.splitlines() if "prepared copy" not in line]
    assert [line.rstrip() for line in shown.splitlines()[1:] if "prepared copy" not in line] == expected


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database."""
    path = tmp_path_factory.mktemp("schema") / "klcli.db"
    Store(path).close()
    return path


def test_every_table_is_described(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        found = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert sorted(name for name in found if not name.startswith(("_", "sqlite_"))) == sorted(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_described(database: Path, table: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_xinfo({table})")]
    described = [name for cell in first_column(section(f"Table `{table}`")) for name in re.findall(r"`(\w+)`", cell)]
    settings = {one.column for one in SETTINGS.values()} if table == "runs" else set()
    assert set(described) | settings == set(columns)
    assert len(described) == len(set(described))


def test_the_page_of_settings_is_that_of_the_code() -> None:
    assert (ROOT / "klcli/docs/settings.md").read_text(encoding="utf-8") == settings_page()


@pytest.mark.slow
def test_the_lines_of_python_work(machine: Path) -> None:
    """On few images; what is trained longer in the README ends after an epoch here."""
    [block] = blocks("python")
    short = "split=SplitConfig(subset=200), epochs=1, "
    code = block.replace("TrainConfig(hidden", f"TrainConfig({short}hidden").replace(
        "import Lab", "import SplitConfig, Lab"
    )
    done = run_python(machine, code.replace('"results/klcli.db"', '"results/python.db", data="synthetic"'))
    assert done.returncode == 0, done.stderr


def test_the_query_of_the_readme_works(database: Path) -> None:
    [query] = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("sqlite3 ")]
    _, path, sql = shlex.split(query)
    assert path == "results/klcli.db"
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute(sql).fetchall() == []


def test_exit_codes() -> None:
    assert [int(code) for code in first_column(section("Exit codes"))] == sorted(map(int, ExitCode))


def test_the_two_commands_do_all_the_set_up() -> None:
    install, test = blocks("sh")[:2]
    for block in (install, test):
        [line] = block.splitlines()
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert install.endswith(".venv/bin/klcli train --hidden 50 30 20 --bn\n")
    assert test.strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_file_that_is_linked_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("https://"):
            assert (ROOT / target).is_file(), target
    for anchor in re.findall(r"\]\(#([^)]+)\)", README):
        assert anchor in {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)}


def test_the_folders_of_the_readme_exist() -> None:
    folders = [cell.strip("`") for cell in first_column(section("Developing"))]
    assert all((ROOT / folder).is_dir() for folder in folders)
    rooms = {f"klcli/{path.name}" for path in (ROOT / "klcli").iterdir() if path.is_dir() and path.name[0] != "_"}
    assert rooms <= set(folders)


@pytest.mark.skipif(os.name != "posix", reason="a file mode as POSIX has it")
def test_ci_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
