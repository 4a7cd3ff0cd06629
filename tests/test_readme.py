"""README.md and the pages agree with the program: commands, outputs, options, schema, messages, exit codes, files."""

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
from PIL import Image

from klcli.cli.app import app, main
from klcli.cli.commands.help import PAGES_OF_COMMANDS
from klcli.errors import ExitCode
from klcli.settings.presets import presets
from tests import documents
from tests.benchmarks.networks import races
from tests.documents import ALL, PAGES, README, ROOT, blocks, commands, examples, first_column, section, shape
from tests.published.documentation import example
from tests.settings.documentation import settings_page
from tests.store import documentation as schema

IMAGES = "klcli data info --data synthetic"
FIRST, RANGE_TEST = "klcli train --hidden 50 30 20 --bn", "klcli train --bn --lr-range-test --quiet"
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]

SMALL, FEW = ("--data", "synthetic", "--subset"), "200"
TWO_RUNS = ("train", *SMALL, FEW, "--epochs", "1", "--bn", "--repeats", "2")


@pytest.fixture(scope="module")
def machine(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty machine around it, without images and home, and what any of the commands needs."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "cache").symlink_to(shared_cache)
    (folder / "hand-ins/ada").mkdir(parents=True)
    (folder / "hand-ins/ada/results").symlink_to(folder / "results")
    for name in ("ship.jpg", "airplane.png", "cat.png"):
        Image.new("RGB", (40, 32), "navy").save(folder / name)
    (folder / "my-report.toml").write_text(example(), encoding="utf-8")
    merge = ("runs", "merge", "hand-ins/ada/results/klcli.db", "--db")
    for args in (
        TWO_RUNS,
        ("gradcheck", "--hidden", "5", *SMALL[:2], "--images", "5", "--dims", "5"),
        (*merge, "all.db"),
        (*merge, "course.db"),
    ):
        done = _run(folder, *LIGHT, *args)
        assert done.returncode == 0, done.stderr
    return folder


def _run(machine: Path, *args: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("KLCLI_") and name != "FORCE_COLOR"
    }
    own = {"HOME": str(machine), "KLCLI_CACHE": str(machine / "cache"), "COLUMNS": "200"}
    return subprocess.run(args, cwd=machine, env=kept | own, capture_output=True, text=True, check=False)


def on_few_images(command: str) -> list[str]:
    """The arguments of a command, with others that end it in seconds. What cannot be so is only parsed."""
    args, is_shown = shlex.split(command.replace("/*/", "/ada/"))[1:], command in examples()
    if args[0] == "train" and "--resume" not in args:
        few = "10000" if command == RANGE_TEST else "500" if "--preset" in args else FEW
        return [*args, *SMALL, few, *(() if is_shown else ("--epochs", "1"))]
    if args[0] == "gradcheck" and "--against" not in args:
        return [*args, *SMALL[:2], "--images", "5", "--dims", "5"]
    if args[0] in ("search-lambda", "sigma-sweep") and not {"--from", "--executor"} & {*args}:
        return [*args, *SMALL, FEW, "--jobs", "1"]
    if args[0] == "assignment" and "--editions" not in args:
        return [*args, *SMALL, FEW, "--epochs", "1", "--trials", "2", "--jobs", "1"]
    if args[0] == "reproduce" and is_shown:
        return [*args, *SMALL, FEW, "--jobs", "1", "--quick"]
    is_quick = args[0] in ("report", "runs", "evaluate", "predict") or {"info", "--check", "--list"} & {*args}
    return args if is_quick and "delete" not in args else [*args, "--help"]


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 40
    assert FIRST in examples()


@pytest.mark.parametrize("command", [one for one in commands() if one not in examples()])
@pytest.mark.slow
def test_every_command_does_what_it_says(
    machine: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = on_few_images(command)
    if args[0] == "report" or "--help" in args:  # in this process, which has imported everything
        monkeypatch.chdir(machine)
        monkeypatch.setattr(sys, "argv", ["klcli", *args])
        with pytest.raises(SystemExit) as ended:
            main(args)
        assert not ended.value.code, capsys.readouterr().err
    else:
        done = _run(machine, *LIGHT, *args)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [one for one in examples() if one != IMAGES])
@pytest.mark.slow
def test_every_output_is_like_a_real_one(machine: Path, command: str) -> None:
    """Line by line, without numbers and verdicts: those of the pages are of CIFAR-10."""
    usual = command in (FIRST, RANGE_TEST)  # most are light; these draw and use compiled code
    done = _run(machine, *(KLCLI if usual else LIGHT), *on_few_images(command))
    assert done.returncode == 0, done.stderr
    real = [shape(line) for line in f"{done.stderr}\n{done.stdout}".splitlines()]
    for line in examples()[command]:
        assert line == "..." or any(one.startswith(shape(line.removesuffix("..."))) for one in real), (
            shape(line),
            real,
        )


def options(command: Any) -> set[str]:
    """The long options of a command and of all commands below it."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(options(child) for child in getattr(command, "commands", {}).values()))


def test_every_option_exists() -> None:
    of_klcli = "\n".join(line for line in ALL.splitlines() if "-m pytest" not in line)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", of_klcli))
    known = options(typer.main.get_command(app)) | {"--help", "--help-all", "--install-completion"}
    assert named <= known, named - known


def test_every_command_exists_and_is_in_the_map() -> None:
    named = {*re.findall(r"`klcli\s([a-z][a-z-]*)", ALL), *(one.split()[1] for one in (*commands(), *examples()))}
    assert named <= {*COMMANDS}, named - {*COMMANDS}
    rows = [line.split("|") for line in section("Commands").splitlines() if line.startswith("| `")]
    pages = {row[1].split("`")[1].split()[1]: re.findall(r"docs/(\w+)\.md", row[3]) for row in rows}
    assert {*pages} == {*COMMANDS}
    for command, of_command in pages.items():
        assert not of_command or of_command[0] == PAGES_OF_COMMANDS.get(command, command)


def test_every_page_is_linked_from_the_readme() -> None:
    assert {*re.findall(r"klcli/docs/(\w+)\.md", README)} == {*PAGES}


def test_every_message_is_one_of_klcli() -> None:
    cells = [cell for cell in first_column(PAGES["troubleshooting"]) if cell.startswith("`")]
    messages = [one for cell in cells for one in cell.split(" / ")]
    assert len(messages) >= 35
    parts = {part.strip(" ,:()`") for message in messages for part in message.split("…")}
    unknown = [one for one in parts if len(one) > 3 and not any(one in text for text in documents.texts_of_klcli())]
    assert not unknown


@pytest.mark.slow
def test_the_built_in_images_are_the_ones_shown(machine: Path) -> None:
    real = _run(machine, *KLCLI, *IMAGES.split()[1:]).stdout
    expected = [line.rstrip() for line in real.splitlines() if "prepared copy" not in line]
    assert [line.rstrip() for line in examples()[IMAGES] if "prepared copy" not in line] == expected


def test_the_tables_of_the_database_are_those_of_the_schema() -> None:
    page = PAGES["database"]
    assert schema.page(page) == page, "`python -m tests.store.documentation` writes the columns"
    assert not re.findall(r"^\|.*\|\s*\|$", page, re.MULTILINE), "a column without a meaning"
    assert {*re.findall(r"^## (.*)$", page, re.MULTILINE)} == {*schema.schema()}


def test_the_page_of_settings_is_that_of_the_code() -> None:
    assert PAGES["settings"] == settings_page()


@pytest.mark.parametrize("code", [one for one in blocks("python") if "Lab(" in one])
@pytest.mark.slow
def test_the_lines_of_python_work(machine: Path, code: str) -> None:
    """On few images, and for an epoch."""
    short = code.replace("TrainConfig(hidden", "TrainConfig(split=SplitConfig(subset=200), epochs=1, hidden")
    short = short.replace("import Lab", "import SplitConfig, Lab")
    short = short.replace('"results/klcli.db"', '"results/python.db", data="synthetic"')
    done = _run(machine, sys.executable, "-c", short)
    assert done.returncode == 0, done.stderr


def test_the_query_works(tmp_path: Path) -> None:
    [query] = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("sqlite3 ")]
    _, path, sql = shlex.split(query)
    assert path == "results/klcli.db"
    schema.Store(tmp_path / "klcli.db").close()
    with closing(sqlite3.connect(tmp_path / "klcli.db")) as connection:
        assert connection.execute(sql).fetchall() == []


def test_exit_codes() -> None:
    assert [int(code) for code in first_column(section("Exit codes"))] == sorted(map(int, ExitCode))


def test_the_accuracies_are_those_of_the_presets() -> None:
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in section("Accuracy").splitlines()[-4:] if line
    ]
    measured = [one for one in presets().values() if one.minutes]
    assert rows == [[one.name, str(one.minutes), f"{one.test} %", f"{one.test_over_views} %"] for one in measured]


def test_the_times_are_those_of_the_benchmark() -> None:
    page = (ROOT / "results/benchmarks.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2:-1] for line in section("Performance").splitlines() if line.startswith("|")][2:]
    names = ("3-layer BN", "3-layer", "9-layer BN", "[512, 256] BN", "search of 8 lambdas, per network")
    for name, row in zip(names, rows, strict=True):
        measured = {line.split("|")[2].strip() for line in section(name, page).splitlines() if line.startswith("|")}
        assert {cell.split()[0] for cell in row if cell.strip()} <= measured
    updates = sorted(race.updates for race in races() if race.name in names)
    assert f"interleaved rounds of {updates[0]} to {updates[-1]} updates" in " ".join(section("Performance").split())


def test_the_two_commands_do_all_the_set_up() -> None:
    install, test = blocks("sh", README)[:2]
    for block in (install, test):
        [line] = block.splitlines()
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert install.endswith(".venv/bin/klcli train --hidden 50 30 20 --bn\n")
    assert test.strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    [windows] = blocks("powershell", README)
    of_windows = install.strip().replace("python3 ", "py ").replace(".venv/bin/", ".venv\\Scripts\\")
    assert of_windows.split(" && ") == windows.splitlines()


def test_every_file_that_is_linked_is_there() -> None:
    for folder, text in ((ROOT, README), *((ROOT / "klcli/docs", page) for page in PAGES.values())):
        for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", text):
            if target.startswith("https://"):
                continue
            assert (folder / target).is_file() or not target, target
            if anchor:
                linked = (folder / target).read_text(encoding="utf-8") if target else text
                titles = re.findall(r"^#+ (.*)$", linked, re.MULTILINE)
                assert anchor in {title.lower().replace(" ", "-") for title in titles}, anchor


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 250


def test_no_sentence_stands_twice() -> None:
    prose = re.sub(r"^```.*?^```$", "", ALL, flags=re.MULTILINE | re.DOTALL)
    prose = "\n".join(line for line in prose.splitlines() if not line.startswith(("|", "#")))
    sentences = [one for one in re.split(r"(?<=[.:])\s", " ".join(prose.split())) if len(one) > 50]
    assert len(sentences) > 100
    assert sorted(sentences) == sorted({*sentences})


def test_the_folders_of_the_readme_exist() -> None:
    folders = [cell.strip("`") for cell in first_column(section("Developing"))]
    assert all((ROOT / folder).is_dir() for folder in folders)
    rooms = {f"klcli/{path.name}" for path in (ROOT / "klcli").iterdir() if path.is_dir() and path.name[0] != "_"}
    assert rooms <= set(folders)


@pytest.mark.skipif(os.name != "posix", reason="a file mode as POSIX has it")
def test_ci_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
