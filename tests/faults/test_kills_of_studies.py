"""SIGKILL of a worker and of the parent in `search-lambda --jobs 2`, then `--resume`: no run is trained twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from stored import OF_THE_MOMENT, SHORT, is_whole, rows
from trials import KLCLI, TIMEOUT, Trials

SEARCH = ("search-lambda", *SHORT, "--trials", "8", "--jobs", "2", "--step-epochs", "6")
LONG = 120  # seconds

pytestmark = [
    pytest.mark.timeout(TIMEOUT),
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them"),
]


def start(folder: Path, cache: Path, *more: str) -> "subprocess.Popen[str]":
    """A search in a real process, with workers of its own."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*KLCLI, *SEARCH, *more],
        cwd=folder,
        env=os.environ | {"KLCLI_CACHE": str(cache), "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def members(folder: Path) -> list[dict[str, Any]]:
    """The runs of the study, as far as there is one."""
    db = folder / "results" / "klcli.db"
    if not db.exists() or not rows(db, "SELECT 1 FROM sqlite_master WHERE name = 'runs'"):
        return []
    return rows(db, "SELECT * FROM runs ORDER BY study_id, member")


def table(folder: Path) -> list[dict[str, Any]]:
    """What the study has found, without times and places."""
    return [{name: value for name, value in run.items() if name not in OF_THE_MOMENT} for run in members(folder)]


def workers(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The processes that train; the one that looks after shared resources is none of them."""
    try:
        children = psutil.Process(process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + LONG
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def test_kills(row: Callable[[str, str], Trials], tmp_path: Path, cache: Path) -> None:
    trials = row(
        "SIGKILL of a worker, then of the parent in `search-lambda --jobs 2` at random moments, then `--resume`",
        "same table, no complete run trained again, no process left",
    ).planned(3, 30)
    subprocess.run(
        [sys.executable, "-m", "klcli", "data", "info", "--data", "synthetic"], capture_output=True, check=True
    )
    whole = start(tmp_path / "whole", cache)
    wait_for(lambda: members(tmp_path / "whole"), whole)
    recorded = time.monotonic()
    _, err = whole.communicate(timeout=LONG)
    assert whole.returncode == 0, err
    seconds = time.monotonic() - recorded
    expected = table(tmp_path / "whole")
    assert len(expected) == 8

    for number, rng in trials:
        name, folder = f"trial {number}", tmp_path / f"trial {number}"
        process = start(folder, cache)
        wait_for(lambda folder=folder: members(folder), process)
        began = time.monotonic()
        wait_for(lambda process=process: workers(process), process)
        time.sleep(float(rng.uniform(0, seconds / 3)))
        alive = workers(process)
        if alive:
            victim = alive[int(rng.integers(len(alive)))]
            victim.kill()
            trials.tried["workers killed"] += 1
        time.sleep(max(0.0, began + float(rng.uniform(seconds / 3, seconds * 1.2)) - time.monotonic()))
        children = workers(process)
        trials.tried["parents killed"] += process.poll() is None
        process.send_signal(signal.SIGKILL)
        _, living = psutil.wait_procs(children, timeout=10)
        trials.expect(not living, f"{name}: workers {[child.pid for child in living]} outlive their parent")
        for child in living:
            child.kill()  # they hold the pipes open
        process.communicate(timeout=LONG)
        db = folder / "results" / "klcli.db"
        trials.expect(is_whole(db), f"{name}: the database is damaged")
        before = {run["id"]: run for run in members(folder) if run["state"] == "complete"}
        trials.tried["runs complete at the kill"] += len(before)
        resumed = start(folder, cache, "--resume")
        _, err = resumed.communicate(timeout=LONG)
        trials.expect(resumed.returncode == 0, f"{name}: exit {resumed.returncode}: {err[-300:]}")
        differing = [(old, new) for old, new in zip(expected, table(folder), strict=True) if old != new]
        fields = sorted({key for old, new in differing for key in old if old[key] != new[key]})
        trials.expect(not differing, f"{name}: another table in {fields}")
        after = {run["id"]: run for run in members(folder)}
        again = [run_id for run_id, run in before.items() if after.get(run_id) != run]
        trials.expect(not again, f"{name}: runs {again} were complete and have been trained again")
    assert trials.lost == []
