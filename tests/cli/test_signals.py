"""Ctrl-C and SIGTERM at any moment of a training: the run ends in a state, with its epochs so far."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")]

ENDLESS = ("train", "--data", "synthetic", "--subset", "500", "--hidden", "20", "--cycles", "10000")

Klcli = Callable[..., "subprocess.CompletedProcess[str]"]
Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., "subprocess.Popen[str]"]


def _wait_for_epoch(process: "subprocess.Popen[str]", epoch: int) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"epoch {epoch}/"):
            return
    pytest.fail("the training ended before it was interrupted")


@pytest.mark.parametrize(
    ("signum", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_the_run_interrupted(
    start: Start, klcli: Klcli, rows: Rows, signum: signal.Signals, code: int, word: str
) -> None:
    process = start(*ENDLESS)
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
    assert run["epochs_done"] == len(rows("epochs")) >= 3
    assert f"run 1 keeps its {run['epochs_done']:g} epochs" in line
    assert run["validation_accuracy"] == rows("epochs")[-1]["validation_accuracy"]
    assert "no complete run" in klcli("report").stdout  # an interrupted run is never ranked


def test_a_signal_before_the_first_epoch(start: Start, rows: Rows, tmp_path: Path) -> None:
    process = start(*ENDLESS, "--evaluations-per-cycle", "0")
    _wait_for_run(tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    [line] = [line for line in err.splitlines() if line.startswith("klcli: ")]
    assert "keeps its 0 epochs" in line
    [run] = rows("runs")
    assert (run["state"], run["epochs_done"]) == ("interrupted", 0)


def test_a_signal_before_the_run_begins(start: Start, tmp_path: Path) -> None:
    """While images are read there is nothing to record, and no reason for a traceback."""
    pipe = tmp_path / "cifar-10-python.tar.gz"
    os.mkfifo(pipe)
    process = start("train", "--data", str(pipe))
    with pipe.open("wb"):  # waits until klcli opens the other end, and leaves it reading
        for _ in range(30):  # Python drops a signal that meets it in a finalizer: a person would press again
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert (out, err) == ("", "klcli: interrupted\n")
    assert not (tmp_path / "results").exists()


def test_a_reader_that_has_seen_enough_interrupts(start: Start, rows: Rows) -> None:
    """As in `klcli train 2>&1 | head -1`."""
    process = start(*ENDLESS)
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    process.wait(120)
    [run] = rows("runs")
    assert (run["state"], run["error"]) == ("interrupted", "the output pipe was closed")


def test_the_second_signal_ends_at_once(start: Start, klcli: Klcli, rows: Rows, tmp_path: Path) -> None:
    """An evaluation of 45 000 images by a wide network takes seconds, and only between updates is the first obeyed."""
    process = start(
        *("train", "--data", "synthetic", "--hidden", "2000", "2000", "--step-size", "1", "--batch-size", "10"),
        *("--evaluations-per-cycle", "2"),
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
    assert run["epochs_done"] == len(rows("epochs")) >= 2


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
    assert len(rows("epochs")) == 24


def _wait_for_run(folder: Path) -> None:
    """Wait until a run is recorded."""
    database = folder / "results/klcli.db"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if database.exists() and _states(database) == ["running"]:
            return
        time.sleep(0.02)
    pytest.fail("no run was recorded")


def _states(database: Path) -> list[str]:
    connection = sqlite3.connect(database)
    try:
        return [state for (state,) in connection.execute("SELECT state FROM runs")]
    except sqlite3.OperationalError:  # the tables are not there yet
        return []
    finally:
        connection.close()
