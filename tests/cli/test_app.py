"""The command `klcli` itself: help, version, failures as one line, and invalid arguments of all kinds."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
import threadpoolctl
from command import Klcli, Refused, succeeded
from hypothesis import HealthCheck, given, settings
from test_help_screen import COMMANDS

import klcli as package
from klcli.cli.app import main
from klcli.errors import ExitCode

ROOT = Path(__file__).parents[2]
TINY = ("--data", "synthetic", "--subset", "200", "--epochs", "0")


def test_the_commands_are_found() -> None:
    assert {(), ("train",), ("report",), ("data",), ("data", "info"), ("data", "fetch")} <= COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "klcli")
def test_help_of_every_command(here: Klcli, command: tuple[str, ...]) -> None:
    done = here(*command, "-h" if len(command) % 2 else "--help", COLUMNS="200")
    assert done.returncode == 0
    assert done.stderr == ""
    assert f"Usage: {' '.join(('klcli', *command))}" in done.stdout


def test_a_width_of_0_is_an_unknown_one(here: Klcli) -> None:
    """As a serial line has it: the help was empty."""
    assert here("train", "--help", COLUMNS="0", LINES="0").stdout == here("train", "--help", COLUMNS="80").stdout


def test_version(klcli: Klcli) -> None:
    done = klcli("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"klcli {package.__version__}\n", "")


def test_every_command_offers_the_options_of_a_session(here: Klcli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for command in COMMANDS:
        if command in ((), ("data",), ("runs",)):
            continue
        text = here(*command, "--help").stdout
        for option in ("--json", "--quiet", "--debug", "--help"):
            assert option in text, (command, option)


def test_the_installed_command_is_the_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"klcli": "klcli.__main__:main"}


@pytest.mark.parametrize("command", [(), ("data",)], ids=["klcli", "klcli data"])
def test_without_a_command_the_help_is_shown(here: Klcli, command: tuple[str, ...]) -> None:
    done = here(*command)
    assert done.returncode == 2
    assert "Commands" in done.stdout + done.stderr
    for line in done.stderr.splitlines():
        assert not line.startswith("klcli: (")  # a message without a message


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["trian"], ["'trian'", "'train'"]),
        (["no-such-command"], ["'no-such-command'"]),
        (["data", "inf"], ["'inf'", "'info'"]),
        (["--verson"], ["--verson", "--version"]),
        (["report", "--bets", "3"], ["--bets", "nearest: --best"]),
        (["report", "--plt", "curves"], ["--plt", "nearest: --plot, --split, --list"]),
        # The parser takes each letter for an option: no such option -i, or --jobs 'son'.
        (["train", "-hidden", "50", "30"], ["No such option: -hidden (nearest: --hidden)"]),
        (["train", "-lambda=0.1"], ["No such option: -lambda (nearest: --lambda)"]),
        (["train", "--bn", "-json"], ["No such option: -json (nearest: --json)"]),
        (["train", "-H", "50", "-no-bn"], ["No such option: -no-bn (nearest: --no-bn)"]),
        (["runs", "delete", "1", "-db", "x.db"], ["No such option: -db (nearest: --db)"]),
        (["--json", "report"], ["--json comes behind the command, as `klcli COMMAND --json`"]),
        (["--db=x.db", "report"], ["--db comes behind the command, as `klcli COMMAND --db`"]),
        (["-q", "report"], ["-q comes behind the command, as `klcli COMMAND -q`"]),
        (["--no-bn", "train"], ["--no-bn comes behind the command, as `klcli COMMAND --no-bn`"]),
        (["runs", "--db", "x.db", "note", "7", "t"], ["--db comes behind the command, as `klcli runs COMMAND --db`"]),
        (["runs", "--hidden", "5"], ["No such option: --hidden"]),  # of no command of the group
    ],
    ids=" ".join,
)
def test_unknown_words_get_a_suggestion(here: Klcli, refused: Refused, args: list[str], named: list[str]) -> None:
    refused(here(*args), 2, *named)


@pytest.mark.parametrize(
    "short", [["-H50"], ["-j4", "--repeats", "2"], ["-qj", "4", "--repeats", "2"], ["-q"]], ids=" ".join
)
def test_short_options_are_joined(here: Klcli, short: list[str]) -> None:
    succeeded(here("train", *TINY, *short))


@pytest.mark.parametrize(
    ("options", "code", "kind"),
    [
        (["--data", "/no/such/folder"], 3, "DataError"),
        (["--subset", "0"], 2, "ConfigError"),
        (["--no-such-option"], 2, "NoSuchOption"),
        pytest.param([*TINY[:-2], "--epochs", "1", "--eta-max", "1e30"], 6, "Diverged", marks=pytest.mark.slow),
    ],
)
def test_debug_shows_the_traceback(here: Klcli, klcli: Klcli, options: list[str], code: int, kind: str) -> None:
    """And keeps the exit code and the line, for scripts that read them; one of them as a process."""
    run = klcli if kind == "Diverged" else here
    quiet, debug = run("train", *options, "--db", "a.db"), run("train", *options, "--db", "b.db", "--debug")
    assert (quiet.returncode, debug.returncode) == (code, code)
    assert "Traceback" in debug.stderr
    assert kind in debug.stderr
    assert debug.stderr.splitlines()[-1] == quiet.stderr.splitlines()[-1]
    assert debug.stderr.splitlines()[-1].startswith("klcli: ")


def test_nothing_slow_is_imported_for_the_version() -> None:
    slow = ["numpy", "matplotlib", "sqlite_utils", "rich"]
    code = (
        "import sys\nfrom klcli.cli.app import main\ntry:\n    main(['--version'])\nexcept SystemExit:\n"
        f"    print([name for name in {slow!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def _into_closed_pipe(folder: Path, *args: str) -> tuple[int, str]:
    """Run klcli with a stdout whose reader has gone, as `| head` leaves it."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "klcli", *args],
            cwd=folder,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("args", [("report",), ("report", "--json"), ("--help",), ("--version",)], ids=" ".join)
def test_a_reader_that_has_seen_enough(trained: Path, args: tuple[str, ...]) -> None:
    assert _into_closed_pipe(trained, *args) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["table", "json"])
def test_output_on_a_full_disk(trained: Path, options: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "klcli", "report", *options],
            cwd=trained,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 4
    [line] = done.stderr.splitlines()
    assert line.startswith("klcli: ")
    assert "space" in line


@pytest.mark.slow
def test_a_terminal_of_ascii_only(klcli: Klcli) -> None:
    done = klcli("train", *TINY, "--db=ünïcödé/klcli.db", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr


# Junk: whatever is typed, the answer is one of the documented exit codes and never a traceback

WORDS = """
    train report data info --hidden -H --hidden=50,30 --hidden= --bn --no-bn --bn=1 --lambda --lambda=-1 --eta-min
    --eta-max --batch-size --cycles --step-size --step-epochs --seed --sigma --init normal he --schedule constant
    --dtype float64 --validation --train-batches --validation-batches --subset --data synthetic --data= --db --db=
    x.db --best --dataset --json --quiet -q --help -h --version --threads --evaluations-per-cycle -- - -5 0 1 2 50
    50,30 1e-3 1e400 nan -inf , ,, 0x10 ١ 1_000 ../ / ~ ~x [/] {} % \\ é '
"""
WORD = st.sampled_from([*WORDS.split(), "", " ", "\n", "a b", "\udcff"])
JUNK = st.lists(WORD | st.text(max_size=8).filter(lambda text: "\0" not in text), max_size=7)
STARTS = st.sampled_from([["train"], ["report"], ["data", "info"], ["data"], []])


@pytest.fixture(scope="module")
def junk_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that may fill with oddly named files, and the thread count as it was."""
    before = Path.cwd()
    folder = tmp_path_factory.mktemp("junk")
    os.chdir(folder)
    with threadpoolctl.threadpool_limits(1):
        yield folder
    os.chdir(before)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=STARTS, junk=JUNK)
def test_junk_never_gives_a_traceback(junk_folder: Path, start: list[str], junk: list[str]) -> None:
    args = [*start, *junk]
    if "train" in args:
        args += TINY  # where the junk means something after all, it shall not take long
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as exit_:
        main(args)
    code = exit_.value.code or 0
    assert code in {int(known) for known in ExitCode}, (args, err.getvalue())
    assert code != ExitCode.UNEXPECTED, (args, err.getvalue())
    assert "Traceback" not in err.getvalue(), args
    if code:
        assert sum(line.startswith("klcli: ") for line in err.getvalue().splitlines()) <= 1, args
    if code == 0 and "--json" in args and out.getvalue().startswith("{"):
        json.loads(out.getvalue())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")
def test_a_network_that_does_not_fit_into_memory(tmp_path: Path) -> None:
    script = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 * 10**10,) * 2); import klcli.cli.app as cli"
    command = ["gradcheck", "--data", "synthetic", "--hidden", "65536", "65536", "--db", str(tmp_path / "klcli.db")]
    python = [sys.executable, "-c", f"{script}; cli.main({command!r})"]
    done = subprocess.run(python, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.UNEXPECTED, done.stderr
    assert "klcli: the memory is too small, give fewer units" in done.stderr.splitlines()[-1]
