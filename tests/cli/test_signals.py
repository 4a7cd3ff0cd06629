"""SIGINT, SIGTERM and SIGHUP at any moment: one line, the exit code, the run in a state, and nothing left behind."""

import contextlib
import hashlib
import io
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from command import Klcli, Rows
from light import COMPILED, KLCLI, LIGHT

from klcli.termination import PATIENCE_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")]

ENDING = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
FINITE = ("train", "--data", "synthetic", "--subset", "300", "--hidden", "20", "--epochs", "3")
STUDY = (
    *("search-lambda", "--data", "synthetic", "--subset", "300", "--hidden", "20", "--trials", "6", "--jobs", "2"),
    *("--step-size", "60", "--cycles", "10000"),
)
ENDLESS = ("train", "--data", "synthetic", "--subset", "500", "--hidden", "20", "--cycles", "10000")

Start = Callable[..., "subprocess.Popen[str]"]


def _wait_for_epoch(process: "subprocess.Popen[str]", epoch: int) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"epoch {epoch}/"):
            return
    pytest.fail("the training ended before it was interrupted")


def test_debug_keeps_the_exit_code_of_a_signal(start: Start) -> None:
    process = start(*ENDLESS, "--debug", program=KLCLI)
    _wait_for_epoch(process, 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("klcli: interrupted: run 1 keeps its ")


@pytest.mark.parametrize(
    ("signum", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "hung up")],
)
def test_a_signal_ends_the_run_interrupted(
    start: Start, klcli: Klcli, rows: Rows, signum: signal.Signals, code: int, word: str
) -> None:
    process = start(*ENDLESS, program=KLCLI)
    _wait_for_epoch(process, 3)
    process.send_signal(signum)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert out == ""
    *epochs, line = err.splitlines()
    assert all(epoch.startswith("epoch ") for epoch in epochs)
    assert line.startswith(f"klcli: {word}")
    assert "Traceback" not in err
    [run] = rows("runs")
    assert run["state"] == "interrupted"
    assert run["finished_at"] is not None
    assert run["epochs_done"] == len(rows("epochs")) - 1 >= 3
    assert f"run 1 keeps its {run['epochs_done']:g} epoch" in line
    assert run["validation_accuracy"] == rows("epochs")[-1]["validation_accuracy"]
    assert "no complete run" in klcli("report").stdout  # an interrupted run is never ranked


def test_a_signal_before_the_first_epoch(start: Start, rows: Rows, tmp_path: Path) -> None:
    process = start(*ENDLESS, "--evaluations-per-cycle", "0")
    _wait_for_run(tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    [line] = [line for line in err.splitlines() if line.startswith("klcli: ")]
    assert "run 1 has no epoch yet, continue with `" in line
    [run] = rows("runs")
    assert (run["state"], run["epochs_done"]) == ("interrupted", 0)


def _open_files(pid: int) -> set[str]:
    with contextlib.suppress(psutil.Error):
        return {file.path for file in psutil.Process(pid).open_files()}
    return set()


@pytest.mark.parametrize("signum", ENDING, ids=lambda signum: signum.name)
def test_a_signal_before_the_run_begins(start: Start, tmp_path: Path, signum: signal.Signals) -> None:
    """While images are read there is nothing to record, and no reason for a traceback."""
    images, large = tmp_path / "cifar-10-python.tar.bz2", tarfile.TarInfo("large")  # takes a second to unpack
    large.size = 2**26
    with tarfile.open(images, "w:bz2", compresslevel=1) as archive:
        archive.addfile(large, io.BytesIO(random.Random(0).randbytes(2**24) * 4))
    process = start("train", "--data", str(images))
    _wait_until(lambda: str(images) in _open_files(process.pid), process)
    process.send_signal(signum)
    assert _ended(process, signum)[-1] == f"klcli: {ENDING[signum]}"
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("signum", "command"),
    list(zip(ENDING, ["train", "gradcheck", "data info"], strict=True)),
    ids=["INT", "TERM", "HUP"],
)
def test_a_signal_while_images_are_prepared(start: Start, tmp_path: Path, signum: signal.Signals, command: str) -> None:
    cache = tmp_path / "cache"
    process = start(*command.split(), "--data", "synthetic", program=KLCLI, KLCLI_CACHE=str(cache))

    def has_begun() -> bool:
        with contextlib.suppress(FileNotFoundError):  # a file that is complete gets its final name
            return any(file.stat().st_size for file in cache.rglob(".*"))
        return False

    _wait_until(has_begun, process)
    process.send_signal(signum)
    assert _ended(process, signum)[-1].startswith(f"klcli: {ENDING[signum]}")  # a fast one is in the next step by now
    assert [file for file in cache.rglob("*") if file.name.startswith(".")] == []
    for copy in cache.rglob("*.images"):  # it was done before the signal
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == copy.stem


@pytest.mark.parametrize("signum", ENDING, ids=lambda signum: signum.name)
def test_a_signal_while_a_download_connects(start: Start, light: Klcli, tmp_path: Path, signum: signal.Signals) -> None:
    """Nothing of it stays, and another one in the meantime is refused."""
    cache = tmp_path / "cache"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts the connection, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.tar.gz"
        command, environment = ("data", "fetch", "--no-verify", "--url", url), {"KLCLI_CACHE": str(cache)}
        process = start(*command, **environment)
        connection, _ = silent.accept()
        assert [file.name for file in cache.iterdir()] == ["x.tar.gz.part"]
        second = light(*command, "-q", **environment)
        assert second.returncode == 4
        words = "another `klcli data fetch` downloads it, wait for its end"
        assert second.stderr == f"klcli: {cache}/x.tar.gz.part: {words}\n"
        process.send_signal(signum)
        # Without its --url, `klcli data fetch` would begin another download.
        kept = "the partial download is kept, run the same command again to continue"
        assert _ended(process, signum)[-1] == f"klcli: {ENDING[signum]}: {kept}"
        connection.close()
    assert [*cache.iterdir()] == []


@pytest.mark.parametrize(
    ("signum", "lock"),
    list(zip(ENDING, ["EXCLUSIVE", "IMMEDIATE", "EXCLUSIVE"], strict=True)),
    ids=["INT opening", "TERM writing", "HUP opening"],
)
def test_a_signal_while_the_database_is_locked(
    start: Start, light: Klcli, tmp_path: Path, signum: signal.Signals, lock: str
) -> None:
    """SQLite waits for up to a minute, and Python runs no signal handler meanwhile."""
    assert light(*FINITE).returncode == 0
    connection = sqlite3.connect(tmp_path / "results/klcli.db", isolation_level=None)
    connection.execute(f"BEGIN {lock}")
    process = start(*ENDLESS)
    time.sleep(3)
    process.send_signal(signum)
    lines = _ended(process, signum, PATIENCE_SECONDS + 5)
    assert [line for line in lines if line.startswith("klcli: ")] == [f"klcli: {ENDING[signum]}"]
    connection.close()
    assert "interrupted" not in light("report").stdout
    assert _states(tmp_path / "results/klcli.db") == ["complete"]


@pytest.mark.parametrize(
    ("signum", "lock"),
    list(zip(ENDING, ["IMMEDIATE", "EXCLUSIVE", "DEFERRED"], strict=True)),
    ids=["INT", "TERM reading too", "HUP committing"],
)
def test_a_write_that_waits_for_a_locked_database_obeys_at_once(
    start: Start, klcli: Klcli, rows: Rows, tmp_path: Path, signum: signal.Signals, lock: str
) -> None:
    process = start(*ENDLESS)
    _wait_for_epoch(process, 3)
    connection = sqlite3.connect(tmp_path / "results/klcli.db", isolation_level=None, timeout=60)
    connection.execute(f"BEGIN {lock}")
    connection.execute("SELECT count(*) FROM runs").fetchall()  # a reader keeps others from committing
    time.sleep(2)  # the training meets the lock
    process.send_signal(signum)
    sent = time.monotonic()
    *_, last = _ended(process, signum)
    assert time.monotonic() - sent < PATIENCE_SECONDS / 2  # within 1 s where a core is free
    assert last == f"klcli: {ENDING[signum]}"
    connection.close()
    assert klcli("report", "--list").returncode == 0
    assert [run["state"] for run in rows("runs")] == ["interrupted"]
    assert klcli("runs", "check").returncode == 0


@pytest.mark.parametrize(
    ("signum", "lock"),
    list(zip(ENDING, ["IMMEDIATE", "DEFERRED", "IMMEDIATE"], strict=True)),
    ids=["INT", "TERM committing", "HUP"],
)
def test_a_signal_while_a_deletion_waits_deletes_nothing(
    start: Start, light: Klcli, tmp_path: Path, signum: signal.Signals, lock: str
) -> None:
    """Neither the row nor one of its files, which are then not left under another name either."""
    assert light(*FINITE).returncode == 0
    results = tmp_path / "results"
    before = {file: file.read_bytes() for kind in ("checkpoints", "plots") for file in (results / kind).iterdir()}
    assert any(file.suffix == ".npz" for file in before)
    connection = sqlite3.connect(results / "klcli.db", isolation_level=None)
    connection.execute(f"BEGIN {lock}")
    connection.execute("SELECT count(*) FROM runs").fetchall()
    process = start("runs", "delete", "1", "--yes")
    time.sleep(3)
    process.send_signal(signum)
    assert _ended(process, signum, PATIENCE_SECONDS + 5)[-1] == f"klcli: {ENDING[signum]}"
    connection.close()
    after = {file: file.read_bytes() for kind in ("checkpoints", "plots") for file in (results / kind).iterdir()}
    assert after == before
    assert light("runs", "check").returncode == 0
    assert _states(results / "klcli.db") == ["complete"]
    assert light("runs", "delete", "1", "--yes").returncode == 0
    assert [file for file in before if file.exists()] == []


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(start: Start, rows: Rows) -> None:
    """As `nohup` starts klcli."""
    process = start(*FINITE, ignored=(signal.SIGHUP,))
    _wait_for_epoch(process, 1)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert [run["state"] for run in rows("runs")] == ["complete"]


@pytest.mark.parametrize("signum", ENDING, ids=lambda signum: signum.name)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="counts the semaphores of Linux")
def test_a_study_leaves_nothing_behind(
    start: Start, rows: Rows, klcli: Klcli, tmp_path: Path, signum: signal.Signals, times: int
) -> None:
    """A terminal that closes sends its signal to all of its processes."""
    (temporary := tmp_path / "tmp").mkdir()
    process = start(*STUDY, TMPDIR=str(temporary), **(COMPILED if times == 1 and signum == signal.SIGINT else {}))
    _wait_until(lambda: any(temporary.glob("klcli-*/0")), process)  # the first worker trains
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    assert len(family) > 2
    semaphores = _semaphores_of(process.pid)
    assert semaphores
    for _ in range(times):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        time.sleep(0.05)
    lines = _ended(process, signum)
    [planned] = [number for number, line in enumerate(lines) if line.endswith(", 2400000 updates")]
    said = [line for line in lines[planned + 1 :] if " of 2400000 updates" not in line]  # that is the progress
    assert [line.partition(": ")[2].partition(":")[0] for line in said] == [ENDING[signum]]
    _wait_until(lambda: not any(psutil.pid_exists(pid) for pid in family))
    assert list(temporary.iterdir()) == []
    _wait_until(lambda: not any(semaphore.exists() for semaphore in semaphores))
    assert klcli("report").returncode == 0
    assert {run["state"] for run in rows("runs")} == {"interrupted"}
    assert {study["state"] for study in rows("studies")} == {"interrupted"}


def test_handlers_are_installed_before_the_slow_imports() -> None:
    """Until then, Ctrl-C shows the traceback of an import."""
    code = "import klcli.__main__, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "klcli.termination" in loaded
    assert not {"typer", "rich", "numpy", "inspect", "typing", "pathlib", "re", "klcli.cli.app"} & set(loaded)


@pytest.mark.timeout(600)
def test_signals_at_any_moment(start: Start, klcli: Klcli, tmp_path: Path, shared_cache: Path) -> None:
    """From the first line of Python to the end of the process."""
    (temporary := tmp_path / "tmp").mkdir()
    assert klcli(*FINITE).returncode == 0
    rng = random.Random(16)
    check = ("gradcheck", "--data", "synthetic", "--hidden", "20")
    reached: set[int] = set()
    for command in (FINITE, STUDY[:-2], check, ("evaluate", "1"), ("report",)):
        program = KLCLI if command is FINITE else LIGHT  # which loads numba and draws, and is interrupted there
        started = time.monotonic()
        assert start(*command, program=program).wait(60) == 0
        usual = time.monotonic() - started
        for _ in range(6 if command is FINITE else 3):
            signum, times = rng.choice(list(ENDING)), rng.choice([1, 1, 2])
            process = start(*command, program=program, TMPDIR=str(temporary))
            _wait_until(lambda one=process: _catches_signals(one.pid) or one.poll() is not None)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, usual))
            for _ in range(times):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signum)
                time.sleep(rng.uniform(0, 0.02))
            _, err = process.communicate(timeout=60)
            assert process.returncode in (0, 128 + signum), (command, signum, err)
            assert "Traceback" not in err, (command, signum, err)
            assert "Warning" not in err, (command, signum, err)
            assert sum(line.startswith("klcli: ") for line in err.splitlines()) == (process.returncode != 0), err
            assert list(temporary.iterdir()) == []
            hidden = [file for folder in (shared_cache, tmp_path / "results") for file in folder.rglob(".*")]
            assert [file for file in hidden if file.is_file()] == []
            reached.add(process.returncode)
    assert reached >= {130, 143, 129}
    assert klcli("report").returncode == 0
    assert "running" not in _states(tmp_path / "results/klcli.db")


def _semaphores_of(pid: int) -> list[Path]:
    """The named semaphores that a process uses; its memory shows them by another name."""
    mapped = {line.split()[4] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/sem." in line}
    found = []
    for semaphore in Path("/dev/shm").glob("sem.*"):
        with contextlib.suppress(FileNotFoundError):  # of another program
            if str(semaphore.stat().st_ino) in mapped:
                found.append(semaphore)
    return found


def _catches_signals(pid: int) -> bool:
    """Whether the process handles SIGTERM, which Python by itself does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def _ended(process: "subprocess.Popen[str]", signum: signal.Signals, seconds: float = 20) -> list[str]:
    """Wait for the end by a signal and return the lines of stderr."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 128 + signum, err
    assert out == ""
    assert "Traceback" not in err
    return err.splitlines()


def _wait_until(condition: Callable[[], object], process: "subprocess.Popen[str] | None" = None) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()[1]
        time.sleep(0.002)


def test_the_second_signal_ends_at_once(start: Start, klcli: Klcli, rows: Rows, tmp_path: Path) -> None:
    """An evaluation of 45 000 images by a wide network takes seconds, and only between updates is the first obeyed."""
    process = start(
        *("train", "--data", "synthetic", "--hidden", "2000", "2000", "--step-size", "1", "--batch-size", "10"),
        *("--evaluations-per-cycle", "2"),
        **COMPILED,
    )
    _wait_for_run(tmp_path)
    time.sleep(1.5)  # the first update is over: the evaluation runs
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=5)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert _states(tmp_path / "results/klcli.db") == ["running"]  # nobody was left to mark it
    assert klcli("report").returncode == 0
    [run] = rows("runs")
    assert run["state"] == "interrupted"
    assert run["error"]


def test_a_kill_leaves_a_run_that_the_next_command_marks(start: Start, klcli: Klcli, rows: Rows) -> None:
    process = start(*ENDLESS)
    _wait_for_epoch(process, 2)
    process.kill()
    process.communicate()
    assert klcli("report").returncode == 0
    [run] = rows("runs")
    assert run["state"] == "interrupted"
    assert run["epochs_done"] == len(rows("epochs")) - 1 >= 2


def test_a_living_run_is_not_marked_by_others(start: Start, klcli: Klcli, rows: Rows) -> None:
    process = start(*ENDLESS)
    _wait_for_epoch(process, 1)
    assert klcli("report").returncode == 0
    assert [run["state"] for run in rows("runs")] == ["running"]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert [run["state"] for run in rows("runs")] == ["interrupted"]


def test_two_trainings_share_a_database(start: Start, rows: Rows) -> None:
    finite = (*ENDLESS[:-1], "2", "--step-epochs", "3")
    both = [start(*finite, "--seed", seed) for seed in "01"]
    for process in both:
        assert process.communicate(timeout=60)[1]
        assert process.returncode == 0
    assert [run["state"] for run in rows("runs")] == ["complete", "complete"]
    assert len(rows("epochs")) == 2 * (1 + 12)


def _wait_for_run(folder: Path) -> None:
    """Wait until a run is recorded."""
    database = folder / "results/klcli.db"
    _wait_until(lambda: database.exists() and _states(database) == ["running"])


def _states(database: Path) -> list[str]:
    connection = sqlite3.connect(database)
    try:
        return [state for (state,) in connection.execute("SELECT state FROM runs")]
    except sqlite3.OperationalError:  # the tables are not there yet
        return []
    finally:
        connection.close()
