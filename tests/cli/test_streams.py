"""Output that cannot be written: the command goes on to its end, everything is stored, and the exit code tells."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from command import read
from light import KLCLI, LIGHT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="a shell as POSIX has it")]

SETTINGS = "--data synthetic --subset 200 --hidden 10"
TRAIN = f"train {SETTINGS} --epochs 6"
RECORDING = {
    "train": TRAIN,
    "train --json": f"{TRAIN} --json",
    "repeats": f"train {SETTINGS} --epochs 1 --repeats 2 --jobs 1",
    "search-lambda": f"search-lambda {SETTINGS} --trials 2 --step-size 3 --jobs 1",
    "sigma-sweep": f"sigma-sweep {SETTINGS} --sigmas 0.1 --step-size 3 --jobs 1",
    "gradcheck": "gradcheck --data synthetic --hidden 10",
    "evaluate": "evaluate 3",
}
READING = (
    *("report", "report --json", "report --format csv", "--help", "train --help", "--version", "data info -q"),
    *("train --list-presets", "train --list-presets --json", "reproduce --list", "assignment --dry-run -q"),
)
COLOUR = re.compile(r"\x1b\[(\d+;)*[349][0-8][;m]")
BAR = "\x1b[2K"  # erases the line, as a live bar does before it is drawn again

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shell(trained: Path) -> Shell:
    """Run a line of a shell, in which `klcli` is the command, in a folder with a database of three runs."""

    def run(line: str, program: Sequence[str] = LIGHT, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", f'klcli() {{ {shlex.join(program)} "$@"; }}; {line}'],
            cwd=trained,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def states(folder: Path) -> list[tuple[str, float]]:
    return [(run["state"], run["epochs_done"]) for run in read(folder, "SELECT * FROM runs WHERE id > 3")]


@pytest.mark.parametrize("command", RECORDING.values(), ids=RECORDING)
@pytest.mark.parametrize(
    ("to", "reason"),
    [(">&-", "it is closed"), (">/dev/full", "No space left on device"), ("| true", "Broken pipe")],
    ids=["closed", "full", "pipe"],
)
def test_lost_results_are_stored_and_the_line_says_where(
    shell: Shell, trained: Path, command: str, to: str, reason: str
) -> None:
    # The reader of the pipe is gone before klcli has started.
    done = shell(f"(sleep 0.2; klcli {command}; echo $? >code) {to}", KLCLI if command == TRAIN else LIGHT)
    line = done.stderr.splitlines()[-1]
    assert line == f"klcli: the result could not be written to stdout ({reason}), it is stored in results/klcli.db"
    assert done.stderr.count("klcli: ") == 1
    assert (trained / "code").read_text() == "4\n"
    assert {state for state, _ in states(trained)} <= {"complete"}
    kinds = {"gradcheck": "gradient_checks", "evaluate": "evaluations"}
    table = kinds.get(command.partition(" ")[0], "runs WHERE id > 3")
    assert read(trained, f"SELECT * FROM {table}")


@pytest.mark.parametrize("command", ["note 1 x", "tag 1 x", "untag 1 x", "delete 1 --yes"])
@pytest.mark.parametrize("to", [">&-", ">/dev/full", "| true"], ids=["closed", "full", "pipe"])
def test_a_change_stands_whose_output_is_lost(shell: Shell, trained: Path, command: str, to: str) -> None:
    before = read(trained, "SELECT * FROM runs")
    done = shell(f"(sleep 0.2; klcli runs tag 1 x >/dev/null; klcli runs {command}; echo $? >code) {to}")
    line = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"klcli: the result .*\(.*\), it is stored in results/klcli\.db", line)
    assert (trained / "code").read_text() == "4\n"
    assert (read(trained, "SELECT * FROM runs") == before) == command.startswith("untag")


@pytest.mark.parametrize("to", ["2>&-", "2>/dev/full", "2> >(true)"], ids=["closed", "full", "pipe"])
def test_lost_progress_changes_nothing(shell: Shell, trained: Path, to: str) -> None:
    usual = shell(f"klcli {TRAIN} 2>/dev/null").stdout.splitlines()
    done = shell(f"klcli {TRAIN} {to}")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    rows = [line for line in usual if line.lstrip().startswith(("loss", "train", "validation", "test"))]
    assert [line for line in lines if line in rows] == rows != []
    assert len(lines) == len(usual) > 5
    assert states(trained) == [("complete", 6), ("complete", 6)]


@pytest.mark.parametrize("to", [">&- 2>&-", ">/dev/full 2>&1", "<&- >&- 2>&-"])
def test_both_streams_lost(shell: Shell, trained: Path, to: str) -> None:
    done = shell(f"klcli {TRAIN} {to}")
    assert (done.returncode, done.stdout, done.stderr) == (4, "", "")
    assert states(trained) == [("complete", 6)]
    # The database has not got the number of a stream.
    assert read(trained, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


@pytest.mark.parametrize("lines", [0, 1, 3])
def test_head_lets_a_training_end(shell: Shell, trained: Path, lines: int) -> None:
    done = shell(f"(klcli {TRAIN} 2>&1; echo $? >code) | head -{lines}")
    assert len(done.stdout.splitlines()) == lines
    assert done.stderr == ""
    assert states(trained) == [("complete", 6)]
    assert (trained / "code").read_text() == "4\n"


@pytest.mark.parametrize("command", READING)
def test_a_reading_command(shell: Shell, trained: Path, command: str) -> None:
    """A reader of a pipe that has seen enough is no failure; a full disk and a closed stream are."""
    done = shell(f"(sleep 0.2; klcli {command}; echo $? >code) | true", KLCLI)
    assert ((trained / "code").read_text(), done.stderr) == ("0\n", "")
    for to, reason in ((">/dev/full", "No space left on device"), (">&-", "it is closed")):
        done = shell(f"klcli {command} {to}")
        assert done.returncode == 4
        assert done.stderr == f"klcli: the output could not be written to stdout ({reason})\n"


def test_a_failure_keeps_its_exit_code_without_any_stream(shell: Shell) -> None:
    assert shell("klcli trian >&- 2>&-").returncode == 2
    assert shell("klcli train --data /no/such/folder >/dev/full 2>/dev/full").returncode == 3


def test_a_pipe_that_does_not_block_loses_nothing(trained: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen([sys.executable, "-m", "klcli", "train", "--help"], cwd=trained, stdout=writer)
    os.close(writer)
    time.sleep(2)  # the pipe is full by now if it is small
    with os.fdopen(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    assert process.wait(30) == 0
    assert "Usage: klcli train" in text
    assert text.rstrip().endswith("╯")


def on_terminal(folder: Path, *args: str, hold: bool = True, **environment: str) -> tuple[int, str]:
    """Run klcli on a terminal of its own, which closes after the first output unless it is held."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*LIGHT, *args],
        cwd=folder,
        env=os.environ | {"TERM": "xterm"} | environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # noqa: PLW1509
    )
    os.close(slave)
    text = os.read(master, 1)
    while hold:
        try:
            text += os.read(master, 1024)
        except OSError:  # klcli has ended
            break
    os.close(master)
    return process.wait(60), text.decode(errors="replace")


def test_a_terminal_that_is_gone(trained: Path) -> None:
    """`nohup` lets klcli ignore SIGHUP; what it writes then fails with EIO."""
    code, _ = on_terminal(trained, *TRAIN.split(), hold=False)
    assert states(trained) == [("complete", 6)]
    assert code == 4


def test_a_working_folder_that_was_removed(shell: Shell, trained: Path) -> None:
    gone = f"mkdir gone; cd gone; rmdir ../gone; db={shlex.quote(str(trained / 'results/klcli.db'))}; klcli"
    refused = shell(f"{gone} report --html x.html --db $db")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert refused.stderr.startswith("klcli: the working folder has been removed: change to another one")
    swept = shell(f"{gone} sigma-sweep {SETTINGS} --sigmas 0.1 --step-size 3 --jobs 2 --db $db")
    assert swept.returncode == 0, swept.stderr
    assert "no processes beside this one ([Errno 2] No such file or directory)" in swept.stderr
    assert [state for state, _ in states(trained)] == ["complete"] * 2


def test_bars_on_a_terminal_alone(shell: Shell, trained: Path) -> None:
    code, text = on_terminal(trained, *TRAIN.split(), COLUMNS="200")
    assert code == 0
    assert BAR in text and "updates/s" in text
    assert COLOUR.search(text)
    assert "\x1b[?25l" not in text  # a hidden cursor would stay so in the shell after Ctrl-Z or SIGKILL
    for forced in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        done = shell(f"klcli {TRAIN}", **{forced: "1"}, TERM="xterm")
        assert done.returncode == 0
        for sequence in (BAR, "\x1b[1A", "\r"):
            assert sequence not in done.stderr + done.stdout, forced
        assert done.stderr.count("epoch ") == 7, forced


@pytest.mark.parametrize(
    "environment", [{"TERM": "dumb", "COLUMNS": "0"}, {"TTY_INTERACTIVE": "0"}, {"TERM": "unknown"}]
)
def test_a_terminal_without_bars_gets_lines(trained: Path, environment: dict[str, str]) -> None:
    code, text = on_terminal(trained, *TRAIN.split(), **environment)
    assert code == 0
    assert BAR not in text
    assert text.count("epoch ") == 7


def test_no_color(trained: Path) -> None:
    _, text = on_terminal(trained, *TRAIN.split(), NO_COLOR="1")
    assert not COLOUR.search(text)
    assert BAR not in text
    assert text.count("epoch ") == 7
