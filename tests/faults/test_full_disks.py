"""Real disks without space, and read-only ones: one line, exit 4, old files intact, then the run continues."""

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stored import TRAIN, epochs_of, is_whole, outcome, printed_epochs, run_of
from trials import TIMEOUT, Trials
from warm import Laboratory, Warm

from klcli.errors import StoreError
from klcli.store.store import Store

MB = 2**20
LONG = (*TRAIN, "--cycles", "20")  # 120 epochs

pytestmark = [pytest.mark.timeout(TIMEOUT), pytest.mark.slow]


@pytest.fixture
def whole(lab: Laboratory, tmp_path: Path) -> Path:
    """The database of an uninterrupted training."""
    done = lab.run(*LONG, "--db", str(tmp_path / "whole" / "klcli.db"))
    assert done.code == 0, done.stderr
    return tmp_path / "whole" / "klcli.db"


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def fill(folder: Path, room: int = 0) -> Path:
    """Fill the disk but for `room` bytes."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    os.truncate(ballast, max(0, ballast.stat().st_size - room))
    return ballast


def refused(trials: Trials, name: str, process: Warm) -> None:
    trials.expect(process.code == 4, f"{name}: exit {process.code}: {process.stderr[-300:]}")
    trials.expect(process.stdout == "" and "Traceback" not in process.stderr, f"{name}: {process.stderr[-300:]}")
    last = process.stderr.splitlines()[-1:]
    trials.expect(last == [process.message], f"{name}: {process.stderr[-300:]}")


def test_full_disk_while_training(
    lab: Laboratory, row: Callable[[str, str], Trials], small_disk: Callable[[int], Path], whole: Path
) -> None:
    trials = row(
        "a real disk (tmpfs) that fills up at a random moment of `train`, with 0 to 64 kB left; then freed, `--resume`",
        "exit 4 and one line, no told epoch lost, the same bits at the end",
    ).planned(4, 40)
    expected = outcome(whole)
    usual = run_of(whole)
    assert usual is not None
    folder = small_disk(64 * MB)
    for number, rng in trials:
        name = f"trial {number}"
        db = folder / str(number) / "klcli.db"
        process = lab.start(*LONG, "--db", str(db))
        process.wait_for("SYNTHETIC")
        time.sleep(float(rng.uniform(0, usual["seconds"] * 0.7)))
        ballast = fill(folder, int(rng.integers(0, 17)) * 4096)
        process.wait()
        if process.code == 0:
            trials.tried["had room enough"] += 1
        else:
            trials.tried["failed in the middle"] += 1
            refused(trials, name, process)
        full = lab.run("train", "--resume", "1", "--db", str(db))  # still full
        trials.expect(full.code in (0, 2, 4), f"{name}: on the full disk: exit {full.code}: {full.stderr[-300:]}")
        trials.tried["had room enough for the rest"] += full.code == 0  # what the failure has removed left some
        ballast.unlink()
        trials.expect(is_whole(db), f"{name}: damaged")
        told = set(printed_epochs(process.stderr))
        trials.expect(told <= set(epochs_of(db)), f"{name}: of {told} only {epochs_of(db)} are stored")
        found = run_of(db)
        if found is not None and found["state"] != "complete":
            resumed = lab.run("train", "--resume", "1", "--db", str(db))
            trials.expect(resumed.code == 0, f"{name}: {resumed.stderr[-300:]}")
        trials.expect(outcome(db) == expected, f"{name}: other bits")
    assert trials.lost == []


def test_read_only_disk(
    lab: Laboratory, row: Callable[[str, str], Trials], small_disk: Callable[[int], Path], whole: Path
) -> None:
    trials = row(
        "a results folder that is read-only: `train` in it, `train` below it, `--resume`, `report`",
        "exit 4 and one line, but `report` reads; old files intact, the same bits after `--resume`",
    ).all(["train", "train below", "resume", "report"])
    folder = small_disk(64 * MB)
    db = folder / "klcli.db"
    process = lab.start(*LONG, "--db", str(db))
    process.wait_for("epoch 2/")
    process.signal_after(0, signal.SIGINT)
    process.wait()
    assert process.code == 130, process.stderr  # a disk with an open database cannot be made read-only
    before = _content(folder)
    remount(folder, "ro")
    try:
        for name, command in (
            ("train", (*TRAIN, "--db", str(db))),
            ("train below", (*TRAIN, "--db", str(folder / "new" / "klcli.db"))),
            ("resume", ("train", "--resume", "1", "--db", str(db))),
        ):
            refused(trials, name, lab.run(*command))
        report = lab.run("report", "--db", str(db))
        trials.expect(report.code == 0, f"report: {report.stderr[-300:]}")
        trials.tried["trials"] = 4
        trials.expect(_content(folder) == before, "a file has changed")
    finally:
        remount(folder, "rw")
    resumed = lab.run("train", "--resume", "1", "--db", str(db))
    trials.expect(resumed.code == 0, f"resume: {resumed.stderr[-300:]}")
    trials.expect(outcome(db) == outcome(whole), "other bits")
    assert trials.lost == []


def test_full_disk_for_exports_and_downloads(
    lab: Laboratory, row: Callable[[str, str], Trials], small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    trials = row(
        "a full disk while tables are exported, and for `data fetch`", "exit 4 and one line, old files intact"
    ).all(["export", "fetch", "fetch again"])
    folder = small_disk(24 * MB)
    db = folder / "klcli.db"
    first = lab.run(*TRAIN, "--db", str(db))
    assert first.code == 0, first.stderr
    before = _content(folder)
    ballast = fill(folder)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(np.random.default_rng(1).bytes(2 * MB))
    lab.environment["KLCLI_CACHE"] = str(folder / "cache")
    store = Store(db)
    with pytest.raises(StoreError, match="space"):
        store.upkeep.export(folder / "export")
    store.close()
    trials.expect(not [file for file in (folder / "export").rglob("*") if file.is_file()], "half an export stays")
    fetched = lab.run("data", "fetch", "--url", archive.as_uri(), "--no-verify")
    refused(trials, "fetch", fetched)
    ballast.unlink()
    now = {name: content for name, content in _content(folder).items() if not name.startswith(("cache", "export"))}
    trials.expect(now == before, "a file has changed")
    again = lab.run("data", "fetch", "--url", archive.as_uri(), "--no-verify")
    trials.expect(again.code == 3, f"with space: {again.stderr[-300:]}")  # it is no archive, which now can be told
    trials.tried["trials"] = 3
    assert trials.lost == []


def _content(folder: Path) -> dict[str, str]:
    """The files of a folder and what is in them."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "ballast")
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
