"""Other host names, containers and copies: a run is alive where its process is, and nowhere else."""

import ctypes
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from light import COMPILED
from stored import TRAIN, is_whole, outcome, rows, run_of
from test_kills_of_studies import LONG, table, wait_for
from test_kills_of_studies import start as start_search
from trials import KLCLI, TIMEOUT, Trials
from warm import Laboratory

from klcli.store.store import Store

NEW_HOST_NAME = 0x04000000  # of unshare
LONGER = (*TRAIN, "--cycles", "6")  # 36 epochs
Row = Callable[[str, str], Trials]

pytestmark = [pytest.mark.timeout(TIMEOUT), pytest.mark.slow]
needs_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="only the superuser makes namespaces",
)


def elsewhere(name: str) -> None:
    """Give this process a host name of its own."""
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_HOST_NAME):
        raise OSError(ctypes.get_errno(), "unshare")
    socket.sethostname(name)


def states(db: Path) -> dict[int, str]:
    """The runs as this process sees them."""
    with closing(Store(db)) as store:
        return {run.id: run.state for run in store.runs.where("1")}


def pause(db: Path, send: Callable[[int], None]) -> None:
    """Stop a training when SQLite has no lock of it, not even a reader's, so that it stays alive for a look."""
    for _ in range(1000):
        send(signal.SIGSTOP)
        try:
            with closing(sqlite3.connect(db, timeout=0)) as connection:
                connection.execute("BEGIN EXCLUSIVE")
                return
        except sqlite3.OperationalError:
            send(signal.SIGCONT)
            time.sleep(0.003)
    raise TimeoutError(f"{db} is always locked")


@needs_root
def test_another_host_name(lab: Laboratory, row: Row, whole: Path, tmp_path: Path) -> None:
    trials = row(
        "SIGKILL at a random moment of `train` under another host name, resumed under this one, and the reverse",
        "running until the kill and interrupted after it, no other state, the same bits after `--resume`",
    ).planned(6, 60)
    expected = outcome(whole)
    usual = run_of(whole)
    assert usual is not None

    def trial(number: int, rng: np.random.Generator) -> None:
        name, db = f"trial {number}", tmp_path / str(number) / "klcli.db"
        there = (elsewhere, f"host-{number}")
        process = lab.start(*TRAIN, "--db", str(db), prepare=there if number % 2 else None)
        if not process.wait_for("epoch 1/"):
            trials.expect(False, f"{name}: {process.stderr[-300:]}")
            return
        process.join(float(rng.uniform(0, usual["seconds"])))
        pause(db, lambda signum, process=process: process.signal_after(0, signum))
        seen = states(db) if number % 2 else _states_there(lab, db, there)
        trials.expect(seen[1] in ("running", "complete"), f"{name}: before the kill: {seen}")
        killed = process.kill_after(0)
        seen = states(db) if number % 2 else _states_there(lab, db, there)
        trials.expect(seen[1] in ("interrupted", "complete"), f"{name}: after the kill: {seen}")
        trials.tried["interrupted" if seen[1] == "interrupted" else "complete before"] += killed
        if seen[1] != "complete":
            again = None if number % 2 else there
            resumed = lab.run("train", "--resume", "last", "--db", str(db), prepare=again)
            trials.expect(resumed.code == 0, f"{name}: exit {resumed.code}: {resumed.stderr[-300:]}")
        trials.expect(outcome(db) == expected, f"{name}: other bits")

    trials.two_at_a_time(trial)
    assert trials.lost == []


def _states_there(lab: Laboratory, db: Path, there: tuple[Callable[[str], None], str]) -> dict[int, str]:
    """The runs as a process under another host name sees them."""
    listed = lab.run("report", "--list", "--format", "json", "--db", str(db), prepare=there)
    return _states_in(listed.stdout)


def _states_in(document: str) -> dict[int, str]:
    found: dict[int, str] = {}

    def visit(part: Any) -> None:
        if isinstance(part, dict) and {"run", "state"} <= part.keys():
            found[part["run"]] = part["state"]
        elif isinstance(part, dict) and {"id", "state"} <= part.keys():
            found[part["id"]] = part["state"]
        for below in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            visit(below)

    visit(json.loads(document))
    return found


class Container:
    """`klcli` with process numbers of its own, under a host name that all containers share."""

    def __init__(self, cache: Path, *command: str) -> None:
        inside = ["sh", "-c", 'hostname container && exec "$@"', "-", *KLCLI, *command]
        self.outer = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", *inside],
            env=os.environ | COMPILED | {"KLCLI_CACHE": str(cache), "OPENBLAS_NUM_THREADS": "1"},  # as that of `lab`
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def inside(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.outer.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def signal(self, number: int) -> None:
        for process in self.inside():
            process.send_signal(number)

    def kill(self) -> bool:
        """Kill what runs inside; return whether it still ran."""
        inside = self.inside()
        self.signal(signal.SIGKILL)
        psutil.wait_procs(inside, timeout=10)
        return bool(inside)

    def end(self) -> tuple[int, str, str]:
        out, err = self.outer.communicate(timeout=LONG)
        return self.outer.returncode, out, err


@pytest.fixture
def container(cache: Path) -> Iterator[Callable[..., Container]]:
    started: list[Container] = []

    def start(*command: str) -> Container:
        started.append(Container(cache, *command))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.outer.kill()
        one.outer.communicate()


@needs_root
def test_two_containers(
    lab: Laboratory, row: Row, tmp_path: Path, cache: Path, container: Callable[..., Container]
) -> None:
    trials = row(
        "two containers with one host name and process numbers of their own train in one database; one is killed",
        "each sees the other's living run as running and the dead one as interrupted; both complete, the same bits",
    ).planned(1, 15)
    expected = {}
    for seed in (1, 2):
        db = tmp_path / f"whole {seed}" / "klcli.db"
        done = lab.run(*LONGER, "--seed", str(seed), "--db", str(db))
        assert done.code == 0, done.stderr
        expected[seed] = outcome(db)
    usual = run_of(db)
    assert usual is not None
    probe = container("--version")
    code, _, err = probe.end()
    if code:
        pytest.skip(f"no container is possible here: {err}")

    for number, rng in trials:
        name, db = f"trial {number}", tmp_path / str(number) / "klcli.db"
        both = {seed: container(*LONGER, "--seed", str(seed), "--db", str(db)) for seed in (1, 2)}
        numbers: dict[int, int] = {}
        deadline = time.monotonic() + LONG
        while len(numbers) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
            if run_of(db) is not None or db.exists():
                numbers = _numbers(db)
        time.sleep(float(rng.uniform(0, usual["seconds"] / 2)))
        before = states(db)
        killed = both[1].kill()
        pause(db, both[2].signal)
        report = container("report", "--list", "--format", "json", "--db", str(db))
        code, out, err = report.end()
        both[2].signal(signal.SIGCONT)
        trials.expect(code == 0, f"{name}: report: {err[-300:]}")
        seen = _states_in(out) if code == 0 else {}
        trials.expect("interrupted" not in before.values(), f"{name}: before the kill: {before}")
        dead, living = seen.get(numbers[1]), seen.get(numbers[2])
        trials.expect(dead in (("interrupted", "complete") if killed else ("complete",)), f"{name}: the dead: {dead}")
        trials.expect(living in ("running", "complete"), f"{name}: the living: {living}")
        trials.tried[f"killed: {dead}, other: {living}"] += 1
        if dead != "complete":
            code, _, err = container("train", "--resume", str(numbers[1]), "--db", str(db)).end()
            trials.expect(code == 0, f"{name}: resumed: exit {code}: {err[-300:]}")
        code, _, err = both[2].end()
        trials.expect(code == 0, f"{name}: the other: exit {code}: {err[-300:]}")
        for seed, run in numbers.items():
            trials.expect(outcome(db, run) == expected[seed], f"{name}: seed {seed}: other bits")
    assert trials.lost == []


def _numbers(db: Path) -> dict[int, int]:
    """The number of the run of each seed."""
    if not rows(db, "SELECT 1 FROM sqlite_master WHERE name = 'runs'"):
        return {}
    return {run["seed"]: run["id"] for run in rows(db, "SELECT id, seed FROM runs")}


def test_copies_of_train(lab: Laboratory, row: Row, whole: Path, tmp_path: Path) -> None:
    trials = row(
        "results/ copied at a random moment of `train`, file by file, and resumed in the copy",
        "interrupted in the copy, complete in the end in the original, the same bits in both, "
        "or a copy that is torn is refused with exit 4 and one line",
    ).planned(6, 80)
    expected = outcome(whole)
    usual = run_of(whole)
    assert usual is not None

    def trial(number: int, rng: np.random.Generator) -> None:
        name, db, copy = f"trial {number}", tmp_path / str(number) / "klcli.db", tmp_path / f"copy {number}"
        process = lab.start(*TRAIN, "--db", str(db))
        process.wait_for("epoch 1/")
        process.join(float(rng.uniform(0, usual["seconds"])))
        before = run_of(db)
        _copy(db.parent, copy)
        if is_whole_copy(copy / "klcli.db"):
            there = states(copy / "klcli.db")
            trials.expect(there.get(1) in ("interrupted", "complete"), f"{name}: {there} in the copy of {before}")
            if there.get(1) == "interrupted":
                resumed = lab.run("train", "--resume", "1", "--db", str(copy / "klcli.db"))
                trials.expect(resumed.code == 0, f"{name}: exit {resumed.code}: {resumed.stderr[-300:]}")
                trials.tried["begins again" if "begins again" in resumed.stderr else "resumed"] += 1
            if there:
                trials.expect(outcome(copy / "klcli.db") == expected, f"{name}: other bits in the copy")
        else:
            trials.tried["torn"] += 1
            report = lab.run("report", "--db", str(copy / "klcli.db"))
            trials.expect(report.code == 4 and bool(report.message), f"{name}: torn: {report.code} {report.stderr}")
        trials.expect(process.wait() == 0, f"{name}: the original: {process.stderr[-300:]}")
        trials.expect(outcome(db) == expected, f"{name}: other bits in the original")

    trials.two_at_a_time(trial)
    assert trials.lost == []


def test_copies_of_a_study(row: Row, tmp_path: Path, cache: Path) -> None:
    trials = row(
        "results/ copied at a random moment of `search-lambda --jobs 2`, and the search resumed in the copy",
        "no run is running in the copy, the same table in copy and original",
    ).planned(2, 20)
    subprocess.run(
        [sys.executable, "-m", "klcli", "data", "info", "--data", "synthetic"], capture_output=True, check=True
    )
    started = time.monotonic()
    search = start_search(tmp_path / "whole", cache)
    wait_for((tmp_path / "whole" / "results" / "klcli.db").exists, search)
    began = time.monotonic() - started
    _, err = search.communicate(timeout=LONG)
    assert search.returncode == 0, err
    seconds = time.monotonic() - started - began
    expected = table(tmp_path / "whole")

    for number, rng in trials:
        name, folder, copy = f"trial {number}", tmp_path / str(number), tmp_path / f"copy {number}"
        process = start_search(folder, cache)
        db = folder / "results" / "klcli.db"
        wait_for(lambda db=db: db.exists() and run_of(db), process)
        time.sleep(float(rng.uniform(0, seconds / 4)))  # the rest is the picture
        copy.mkdir()
        _copy(folder / "results", copy / "results")
        there = copy / "results" / "klcli.db"
        if is_whole_copy(there):
            seen = states(there)
            trials.expect("running" not in seen.values(), f"{name}: {seen} in the copy")
            for state in seen.values():
                trials.tried[f"{state} in the copy"] += 1
            resumed = start_search(copy, cache, "--jobs", "1", "--resume")
            _, err = resumed.communicate(timeout=LONG)
            trials.expect(resumed.returncode == 0, f"{name}: exit {resumed.returncode}: {err[-300:]}")
            trials.expect(table(copy) == expected, f"{name}: another table in the copy")
            trials.tried["resumed"] += 1
        else:
            trials.tried["torn"] += 1
        _, err = process.communicate(timeout=LONG)
        trials.expect(process.returncode == 0, f"{name}: the original: {err[-300:]}")
        trials.expect(table(folder) == expected, f"{name}: another table in the original")
    assert trials.lost == []


def _copy(folder: Path, copy: Path) -> None:
    """Copy file by file, as `cp -r`: a file that goes meanwhile is left out."""
    copy.mkdir()
    for path in sorted(folder.rglob("*")):
        target = copy / path.relative_to(folder)
        try:
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                shutil.copyfile(path, target)
        except FileNotFoundError:
            continue


def is_whole_copy(db: Path) -> bool:
    """Whether SQLite finds the copy sound: one that is made during a write may be torn."""
    try:
        return is_whole(db)
    except sqlite3.DatabaseError:
        return False
