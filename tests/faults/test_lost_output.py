"""Output that is lost, and terminals that are hung up, at random moments: no training fails by it."""

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from stored import OF_THE_MOMENT, SHORT, is_whole, outcome, rows, run_of
from trials import KLCLI, TIMEOUT, Trials

TRAIN = ("train", *SHORT, "--step-epochs", "6")
SEARCH = ("search-lambda", *SHORT, "--trials", "8", "--jobs", "2", "--step-epochs", "4")
LONG = 120  # seconds
Row = Callable[[str, str], Trials]

pytestmark = [
    pytest.mark.timeout(TIMEOUT),
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="pipes and terminals as POSIX has them"),
]


@dataclass
class Usual:
    """What a command leaves when nothing happens to it, and how long that takes."""

    command: tuple[str, ...]
    bits: Any
    seconds: float  # from the record of its first run to the end of the process


def bits(db: Path, command: tuple[str, ...]) -> Any:
    """All that must be the same in the end."""
    if command[0] == "train":
        return outcome(db)
    found = rows(db, "SELECT * FROM runs ORDER BY study_id, member")
    return [{name: value for name, value in run.items() if name not in OF_THE_MOMENT} for run in found]


def start(cache: Path, command: tuple[str, ...], db: Path, **streams: Any) -> "subprocess.Popen[bytes]":
    arguments = [*KLCLI, *command, "--db", str(db)]
    environment = os.environ | {"KLCLI_CACHE": str(cache), "OPENBLAS_NUM_THREADS": "1", "TERM": "xterm"}
    return subprocess.Popen(arguments, env=environment, **streams)


def wait_for_a_run(db: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + LONG
    while process.poll() is None and time.monotonic() < deadline and not (db.exists() and run_of(db)):
        time.sleep(0.02)


@pytest.fixture(scope="module")
def usual(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Usual]:
    found = []
    for command in (TRAIN, SEARCH):
        db = tmp_path_factory.mktemp("usual") / "klcli.db"
        process = start(cache, command, db, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_a_run(db, process)
        began = time.monotonic()
        assert process.wait(LONG) == 0
        found.append(Usual(command, bits(db, command), time.monotonic() - began))
    return found


def close_at_random(rng: np.random.Generator, seconds: float) -> Callable[[Path, Any], int]:
    """Close the reading end of a pipe at a random moment."""

    def act(db: Path, process: "subprocess.Popen[bytes]") -> int:
        wait_for_a_run(db, process)
        time.sleep(float(rng.uniform(0, seconds / 2)))
        (process.stdout or process.stderr).close()  # type: ignore[union-attr]
        return process.wait(LONG)

    return act


def test_lost_streams(row: Row, usual: list[Usual], cache: Path, tmp_path: Path) -> None:
    lost = {
        "stdout closed": (">&-", 4),
        "stdout full": (">/dev/full", 4),
        "stdout | head -1": ("2>&1 | head -1", 4),
        "stderr closed": ("2>&-", 0),
        "stderr full": ("2>/dev/full", 0),
        "both closed": (">&- 2>&-", 4),
        "stdout, a pipe closed at a random moment": ("", 4),
        "stderr, a pipe closed at a random moment": ("", 0),
    }
    trials = row(
        "closed and full stdout and stderr, `| head -1` and pipes closed at random moments: `train`, `search-lambda`",
        "complete, the same bits; exit 4 where the results were lost, 0 where it was progress alone",
    ).planned(2 * len(lost), 80)

    def trial(number: int, rng: np.random.Generator) -> None:
        one = usual[number // len(lost) % 2]
        kind, (to, expected) = list(lost.items())[number % len(lost)]
        name, db = f"trial {number} ({one.command[0]}, {kind})", tmp_path / str(number) / "klcli.db"
        db.parent.mkdir()
        if to:
            first, pipe, last = to.partition(" | ")
            line = f'("$0" "$@" {first}; echo $? >"$CODE"){pipe}{last}'
            code = db.parent / "code"
            environment = os.environ | {"KLCLI_CACHE": str(cache), "OPENBLAS_NUM_THREADS": "1", "CODE": str(code)}
            arguments = ["bash", "-c", line, *KLCLI, *one.command, "--db", str(db)]
            subprocess.run(arguments, env=environment, capture_output=True, timeout=LONG, check=False)
            found = int(code.read_text())
        else:
            which = kind.partition(",")[0]
            streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, which: subprocess.PIPE}
            process = start(cache, one.command, db, **streams)
            found = close_at_random(rng, one.seconds)(db, process)
        trials.tried[f"{kind}: exit {found}"] += 1
        trials.expect(found == expected, f"{name}: exit {found} instead of {expected}")
        trials.expect(is_whole(db), f"{name}: the database is damaged")
        states = {run["state"] for run in rows(db, "SELECT state FROM runs")}
        trials.expect(states == {"complete"}, f"{name}: {states}")
        trials.expect(bits(db, one.command) == one.bits, f"{name}: other bits")

    trials.two_at_a_time(trial)
    assert trials.lost == []


def on_a_terminal(cache: Path, one: Usual, db: Path, ignored: bool) -> tuple["subprocess.Popen[bytes]", int]:
    """Start a command as the leader of a session on a terminal of its own; return the other end, too."""
    ours, theirs = pty.openpty()

    def prepare() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)

    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True, "preexec_fn": prepare}
    process = start(cache, one.command, db, **streams)
    os.close(theirs)
    return process, ours


def test_hung_up_terminals(row: Row, usual: list[Usual], cache: Path, tmp_path: Path) -> None:
    trials = row(
        "a terminal closed at a random moment of `train` and `search-lambda`, SIGHUP at its default and ignored",
        "exit 129, interrupted, the same bits after `--resume`; ignored: complete, the same bits, "
        "exit 4, or 0 if all was printed before; no process is left",
    ).planned(4, 40)

    def trial(number: int, rng: np.random.Generator) -> None:
        one, ignored = usual[number % 2], number // 2 % 2 == 1
        kind = f"{one.command[0]}, {'ignored' if ignored else 'default'}"
        name, db = f"trial {number} ({kind})", tmp_path / str(number) / "klcli.db"
        process, ours = on_a_terminal(cache, one, db, ignored)
        os.set_blocking(ours, False)
        deadline, printed = None, b""
        while process.poll() is None and (deadline is None or time.monotonic() < deadline):
            with contextlib.suppress(OSError):
                printed += os.read(ours, 65536)
            if deadline is None and db.exists() and run_of(db):
                deadline = time.monotonic() + float(rng.uniform(0, one.seconds / 2))
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        with contextlib.suppress(OSError):
            printed += os.read(ours, 65536)
        os.close(ours)
        code = process.wait(LONG)
        _, living = psutil.wait_procs(children, timeout=10)
        trials.expect(not living, f"{name}: processes {[child.pid for child in living]} are left")
        states = {run["state"] for run in rows(db, "SELECT state FROM runs")}
        trials.tried[f"{kind}: exit {code}, {', '.join(sorted(states))}"] += 1
        trials.expect(is_whole(db), f"{name}: the database is damaged")
        if ignored:
            expected = (4, 0) if b"database" in printed else (4,)  # it names the database below the results
            trials.expect(code in expected and states == {"complete"}, f"{name}: exit {code}, {states}")
        elif states != {"complete"}:
            trials.expect(code == 129, f"{name}: exit {code}, {states}")
            trials.expect("running" not in states, f"{name}: {states}")
            again = ("train", "--resume", "1") if one.command[0] == "train" else (*one.command, "--resume")
            resumed = start(cache, again, db, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            _, said = resumed.communicate(timeout=LONG)
            trials.expect(resumed.returncode == 0, f"{name}: resumed: exit {resumed.returncode}: {said[-300:]!r}")
        trials.expect(bits(db, one.command) == one.bits, f"{name}: other bits")

    trials.two_at_a_time(trial)
    assert trials.lost == []
