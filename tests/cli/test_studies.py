"""Studies as whole processes: the same table with any workers, and no stack is trained twice after an interruption."""

import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from command import Klcli, change, read, succeeded
from dask_cluster import Cluster, cluster
from light import COMPILED, LIGHT

from klcli.training.environment import Environment, environment

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them"),
    pytest.mark.usefixtures("unrendered"),
]

Start = Callable[..., "subprocess.Popen[str]"]

# 12 runs in four stacks: half of the lambdas with one of the two seeds.
SEARCH = (
    *("search-lambda", "--data", "synthetic", "--subset", "300", "--hidden", "20", "--trials", "6", "--repeats", "2"),
    *("--step-size", "120", "--cycles", "1", "--evaluations-per-cycle", "2"),
)
CLOCK = {"started_at", "finished_at", "pid", "owner", "identity", "seconds", "command", "host"}


@pytest.fixture(scope="module")
def dask(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("dask"), os.environ | {"KLCLI_CACHE": str(shared_cache)}) as running:
        yield running


def stored(folder: Path) -> list[list[dict[str, Any]]]:
    """Everything a study leaves in the database except the clock and the process."""
    assert read(folder, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    return [
        [{name: value for name, value in row.items() if name not in CLOCK} for row in read(folder, sql)]
        for sql in ("SELECT * FROM runs ORDER BY id", "SELECT * FROM epochs ORDER BY run_id, step")
    ]


def printed(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def undisturbed(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Any]]:
    """What the search prints and stores in one process that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(
        [*LIGHT, *SEARCH, "--jobs", "1"],
        cwd=folder,
        env=os.environ | COMPILED | {"KLCLI_CACHE": str(shared_cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    return printed(done), stored(folder)


@pytest.mark.slow
def test_one_job_two_jobs_and_dask_store_the_same_to_the_last_digit(
    klcli: Klcli, dask: Cluster, undisturbed: tuple[str, list[Any]], tmp_path: Path
) -> None:
    table, tables = undisturbed
    assert [len(rows) for rows in tables] == [12, 36]
    assert len({row["validation_loss"] for row in tables[0]}) == 12
    for how in (["--jobs", "2"], ["--executor", dask.address]):
        assert printed(klcli(*SEARCH, *how)) == table
        assert stored(tmp_path) == tables
        shutil.rmtree(tmp_path / "results")


def test_a_complete_study_is_resumed_without_training(here: Klcli, tmp_path: Path) -> None:
    quick = ("search-lambda", "--data", "synthetic", "--subset", "300", "--hidden", "20", "--trials", "3")
    command = (*quick, "--step-size", "3", "--coarse", "--fine", "--final", "--jobs", "1")
    first = here(*command)
    before = (tmp_path / "results/klcli.db").read_bytes()
    again = here(*command, "--resume")
    assert printed(again) == printed(first)
    assert (tmp_path / "results/klcli.db").read_bytes() == before  # which may be read-only
    assert (again.stderr.count("all 3 runs exist already"), again.stderr.count("its only run exists already")) == (2, 1)
    assert "a new one begins" not in again.stderr
    # A study whose process died between its last group and its last word is completed by asking again.
    change(tmp_path, "UPDATE studies SET state = 'running' WHERE id = 1")
    assert printed(here(*command, "--resume")) == printed(first)
    assert {study["state"] for study in read(tmp_path, "SELECT state FROM studies")} == {"complete"}
    assert printed(here(*command)) != printed(first)  # without --resume a study is a new one
    assert len(read(tmp_path, "SELECT * FROM studies")) == 6
    assert here(*quick, "--coarse", "--epochs", "3", "--resume").stderr.count("a new one begins") == 1


@pytest.mark.parametrize("completed", ["id = 2", "1"])
def test_what_another_process_completed_meanwhile_is_not_trained_again(
    here: Klcli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, completed: str
) -> None:
    """A network in the middle of that training took the place of the one that was complete."""
    command = (
        "train",
        "--data",
        "synthetic",
        "--subset",
        "300",
        "--hidden",
        "10",
        "--step-epochs",
        "1",
        "--epochs",
        "2",
    )
    command += ("--repeats", "2", "--jobs", "1")
    printed(here(*command))
    change(tmp_path, "UPDATE runs SET state = 'interrupted'")
    change(tmp_path, "UPDATE studies SET state = 'interrupted'")
    theirs = tmp_path / "results/checkpoints/run-000002.npz"
    theirs.write_bytes(b"of the other process")
    monkeypatch.setattr("klcli.studies.execution.RESULT_SECONDS", 0.0)

    def now() -> Environment:
        change(tmp_path, f"UPDATE runs SET state = 'complete' WHERE {completed}")
        return environment()

    monkeypatch.setattr("klcli.procedures.study_runner.environment", now)
    printed(here(*command, "--resume", "last"))
    assert theirs.read_bytes() == b"of the other process"
    assert {run["state"] for run in read(tmp_path, "SELECT state FROM runs")} == {"complete"}
    assert read(tmp_path, "SELECT state FROM studies") == [{"state": "complete"}]


def wait_for_groups(process: "subprocess.Popen[str]", count: int) -> list[str]:
    """Read stderr until this many groups are done."""
    lines: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if sum(" done (" in line for line in lines) == count:
            return lines
    pytest.fail(f"the study ended before: {lines}")


def processes_of(parent: int) -> list[int]:
    return [child.pid for child in psutil.Process(parent).children(recursive=True)]


def assert_gone(pids: list[int], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_keeps_finished_groups_and_prints_the_command_that_continues(
    start: Start, light: Klcli, undisturbed: tuple[str, list[Any]], tmp_path: Path, jobs: str
) -> None:
    process = start(*SEARCH, "--jobs", jobs, **COMPILED)
    wait_for_groups(process, 1)
    children, sent = processes_of(process.pid), time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does, to everybody
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 10
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert_gone(children)

    runs = read(tmp_path, "SELECT * FROM runs")
    done = [run for run in runs if run["state"] == "complete"]
    assert {run["state"] for run in runs} == {"complete", "interrupted"}
    assert len(done) in (3, 6, 9)
    assert {epoch["run_id"] for epoch in read(tmp_path, "SELECT run_id FROM epochs")} == {run["id"] for run in done}
    [study] = read(tmp_path, "SELECT * FROM studies")
    assert study["state"] == "interrupted"

    line = err.splitlines()[-1]
    assert line.startswith(f"klcli: interrupted: {len(done)} run")
    assert " of study 1 " in line and "complete, continue with `klcli " in line
    command = shlex.split(line[line.index("`") + 1 : line.rindex("`")])
    assert command == ["klcli", *SEARCH, "--jobs", jobs, "--resume"]
    table, tables = undisturbed
    assert printed(light(*command[1:], **COMPILED)) == table
    assert stored(tmp_path) == tables
    after = {run["id"]: run for run in read(tmp_path, "SELECT * FROM runs")}
    assert all(after[run["id"]] == run for run in done)  # not trained again, nor touched


@pytest.mark.slow
def test_a_killed_parent_takes_its_workers_along_and_is_resumed(
    start: Start, light: Klcli, undisturbed: tuple[str, list[Any]], tmp_path: Path
) -> None:
    process = start(*SEARCH, "--jobs", "2", **COMPILED)
    wait_for_groups(process, 1)
    children = processes_of(process.pid)
    assert len(children) >= 2
    process.kill()
    process.wait()
    assert_gone(children)
    done = [run for run in read(tmp_path, "SELECT * FROM runs") if run["state"] == "complete"]
    assert len(done) >= 3
    table, tables = undisturbed
    resumed = light(*SEARCH, "--jobs", "2", "--resume", **COMPILED)
    assert printed(resumed) == table
    assert stored(tmp_path) == tables
    assert [study["state"] for study in read(tmp_path, "SELECT state FROM studies")] == ["complete"]
    after = {run["id"]: run for run in read(tmp_path, "SELECT * FROM runs")}
    assert all(after[run["id"]] == run for run in done)
    assert resumed.stderr.count(" done (") == (12 - len(done)) // 3


@pytest.mark.slow
def test_repeats_continue_from_their_checkpoints_after_a_kill(start: Start, light: Klcli, tmp_path: Path) -> None:
    """Two trainings of some seconds in two processes; the bits at the end are those of a single training."""
    how = (
        *("train", "--data", "synthetic", "--subset", "3000", "--hidden", "100", "--bn", "--flip", "--dropout", "0.2"),
        *("--optimizer", "adam", "--eta-max", "1e-3", "--weight-average", "0.9", "--epochs", "30"),
    )
    process = start(*how, "--repeats", "2", "--jobs", "2")
    deadline = time.monotonic() + 100
    while len(begun := [run for run in _so_far(tmp_path, "runs") if run["epochs_done"]]) < 2:
        assert process.poll() is None and time.monotonic() < deadline, begun
        time.sleep(0.05)
    process.kill()
    process.wait()
    done = {run["id"]: run["epochs_done"] for run in read(tmp_path, "SELECT * FROM runs")}
    assert all(0 < epochs < 30 for epochs in done.values())
    resumed = succeeded(light(*how, "--repeats", "2", "--jobs", "2", "--resume", "last"))
    for run, epochs in done.items():
        assert f"run {run} continues after epoch {epochs:g}" in resumed.stderr
    assert light(*how, "--seed", "1").returncode == 0
    alone, of_study = (
        [{k: v for k, v in row.items() if k not in ("run_id", "seconds")} for row in epochs]
        for epochs in (read(tmp_path, f"SELECT * FROM epochs WHERE run_id = {run} ORDER BY step") for run in (3, 2))
    )
    assert len(alone) == 31 and alone == of_study
    names = [name.name for name in (tmp_path / "results/checkpoints").iterdir()]
    assert sorted(names) == [f"run-00000{run}.npz" for run in (1, 2, 3)]
    one, other = (np.load(tmp_path / f"results/checkpoints/run-00000{run}.npz") for run in (2, 3))
    for key in set(one) - {"config", "sha256"}:
        np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(start: Start, undisturbed: tuple[str, list[Any]], tmp_path: Path) -> None:
    process = start(*SEARCH, "--jobs", "2", **COMPILED)
    wait_for_groups(process, 1)
    workers = [
        child
        for child in psutil.Process(process.pid).children()
        if "spawn_main" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE
    ]
    assert len(workers) == 2
    workers[0].kill()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    table, tables = undisturbed
    assert out == table
    assert stored(tmp_path) == tables


@pytest.mark.slow
def test_a_study_in_the_hands_of_another_process_is_left_to_it(start: Start, light: Klcli, tmp_path: Path) -> None:
    endless = [*SEARCH, "--jobs", "1", "--cycles", "100000", "--evaluations-per-cycle", "1"]
    process = start(*endless)
    deadline = time.monotonic() + 30
    while not (tmp_path / "results/klcli.db").exists() or not _so_far(tmp_path, "studies"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = light(*endless, "--resume")
    assert second.returncode == 4
    assert f"process {process.pid}" in second.stderr
    assert {run["state"] for run in read(tmp_path, "SELECT state FROM runs")} == {"running"}
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "terminated: 0 runs of study 1 are complete" in err


def _so_far(folder: Path, table: str) -> list[dict[str, Any]]:
    try:
        return read(folder, f"SELECT * FROM {table}")
    except sqlite3.OperationalError:  # the tables are not there yet
        return []


def test_other_threads_are_another_study(here: Klcli, tmp_path: Path) -> None:
    """Two BLAS threads differ from one in the last bits: a study has either."""
    quick = (
        "sigma-sweep",
        *("--data", "synthetic", "--subset", "300", "--hidden", "20", "--step-size", "3", "--sigmas", "0.1"),
        *("--jobs", "1"),
    )
    assert here(*quick).returncode == 0
    assert here(*quick, "--resume", "--threads", "2").returncode == 0
    assert [run["threads"] for run in read(tmp_path, "SELECT threads FROM runs")] == [1, 1, 2, 2]


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_line_and_the_study_can_go_on(start: Start, here: Klcli, tmp_path: Path) -> None:
    folder = tmp_path / "dask"
    folder.mkdir()
    command = [*SEARCH, "--cycles", "3"]
    with cluster(folder, os.environ, workers=1) as running:
        process = start(*command, "--executor", running.address)
        wait_for_groups(process, 1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in err
    *groups, line = [line for line in err.splitlines() if not line.startswith("SYNTHETIC")]
    assert all(" done (" in group for group in groups)
    assert "the Dask scheduler has ended" in line
    assert f"continue with `klcli {shlex.join(command)}" in line
    assert {run["state"] for run in read(tmp_path, "SELECT state FROM runs")} == {"complete", "failed"}
    assert here(*command, "--jobs", "1", "--resume").returncode == 0
    assert {run["state"] for run in read(tmp_path, "SELECT state FROM runs")} == {"complete"}
    assert [study["state"] for study in read(tmp_path, "SELECT state FROM studies")] == ["complete"]
