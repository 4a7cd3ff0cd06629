"""A training whose process on the second core is killed: it ends with the same digits, now or after `--resume`."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from klcli import second_core

# Two seconds of work, enough for a process of its own.
TRAIN = ("train", "--data", "synthetic", "--subset", "5000", "--bn", "--step-epochs", "10", "--cycles", "2", "--json")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL"),
    pytest.mark.skipif(second_core.cores() < 2, reason="there is one core"),
]


def metrics(folder: Path) -> list[tuple[float, ...]]:
    """Return what the last run has measured."""
    connection = sqlite3.connect(folder / "results/klcli.db")
    rows = connection.execute(
        "SELECT epoch, train_cost, validation_cost FROM epochs WHERE run_id = (SELECT max(id) FROM runs) ORDER BY epoch"
    ).fetchall()
    connection.close()
    return rows


def partner_of(process: "subprocess.Popen[str]") -> psutil.Process:
    """Return the other process once it works."""
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children():
                if "spawn_main" in " ".join(child.cmdline()) and child.cpu_times().user > 0.3:
                    return child
        time.sleep(0.01)
    raise AssertionError(process.communicate())


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[float, ...]]:
    """What a training measures that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(
        [sys.executable, "-m", "klcli", *TRAIN], cwd=folder, stdout=subprocess.DEVNULL, timeout=60, check=True
    )
    return metrics(folder)


@pytest.mark.parametrize("wait", [0.0, 0.2, 0.4])
def test_the_digits_survive_the_other_process(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path, expected: list[tuple[float, ...]], wait: float
) -> None:
    disturbed = start(*TRAIN)
    partner = partner_of(disturbed)
    time.sleep(wait)
    partner.kill()
    _, errors = disturbed.communicate(timeout=60)
    if disturbed.returncode != 0:  # it was changing W
        assert disturbed.returncode == 1
        assert "second core ended in the middle of an update" in errors
        assert "continue with `klcli train --resume 1`" in errors
        assert "Traceback" not in errors
        resumed = start("train", "--resume", "last", "--json")
        assert resumed.wait(timeout=60) == 0
    assert metrics(tmp_path) == expected


def test_ctrl_c_ends_both(start: Callable[..., "subprocess.Popen[str]"]) -> None:
    training = start(*TRAIN)
    partner = partner_of(training)
    os.killpg(training.pid, signal.SIGINT)
    _, errors = training.communicate(timeout=30)
    assert training.returncode == 130
    assert "--resume" in errors
    assert not partner.is_running() or partner.status() == psutil.STATUS_ZOMBIE
