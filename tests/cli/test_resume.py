"""`klcli train --resume`: what is refused and why, and the command that an interruption prints."""

import errno
import fcntl
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Klcli, Refused, Rows, succeeded
from light import LIGHT
from PIL import Image
from thinning import mostly_slow

from klcli import Lab, SplitConfig, TrainConfig
from klcli.data.dataset import Dataset
from klcli.errors import Interrupted
from klcli.procedures.observer import Observer
from klcli.procedures.setup import Setup
from klcli.store.locks import Locks
from tests.raw_sql import execute

pytestmark = pytest.mark.usefixtures("unrendered")

TINY = ("--data", "synthetic", "--subset", "300", "--hidden", "10", "--bn")
TRAIN = ("train", *TINY, "--step-epochs", "3")  # 12 epochs
CONFIG = TrainConfig(split=SplitConfig(subset=300), hidden=(10,), batch_norm=True, step_epochs=3)  # the same


@pytest.fixture
def change(tmp_path: Path) -> Callable[..., None]:
    """Change columns of all runs behind klcli's back."""

    def execute(**columns: object) -> None:
        connection = sqlite3.connect(tmp_path / "results/klcli.db")
        with connection:
            settings = ", ".join(f"{name} = ?" for name in columns)
            connection.execute(f"UPDATE runs SET {settings}", [*columns.values()])
        connection.close()

    return execute


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, where nothing can tell that a process has ended."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture(scope="module")
def one_run(fill: Callable[..., list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database of one run."""
    folder = tmp_path_factory.mktemp("one-run")
    assert fill(folder, [(*TRAIN, "--epochs", "2")]) == [0]
    return folder / "results"


@pytest.fixture
def interrupted(one_run: Path, tmp_path: Path, change: Callable[..., None]) -> None:
    """A database whose only run did not end."""
    shutil.copytree(one_run, tmp_path / "results")
    change(state="interrupted")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--hidden", "30"], ["hidden", "(10,)", "(30,)"]),
        (["--lambda", "0.25"], ["--lambda", "0.005", "0.25"]),
        (["--epochs", "3"], ["epochs", "2", "3"]),
        (["--subset", "400"], ["subset", "300", "400"]),
        (["--no-bn"], ["--bn", "True", "False"]),
        (["--seed", "1"], ["seed", "0", "1"]),
        (["--threads", "2"], ["--threads 1", "2"]),
    ],
    ids=" ".join,
)
def test_another_configuration_is_refused_by_its_difference(
    interrupted: None, here: Klcli, refused: Refused, options: list[str], named: list[str]
) -> None:
    refused(here("train", "--resume", "1", *options), 2, "--resume 1", *named)


def test_the_same_options_may_be_typed_again(interrupted: None, here: Klcli, rows: Rows) -> None:
    succeeded(here(*TRAIN, "--epochs", "2", "--threads", "1", "--resume", "1"))
    [run] = rows("runs")
    assert (run["state"], run["epochs_done"], len(rows("epochs"))) == ("complete", 2, 3)


class Interrupting(Observer):
    """Sends Ctrl-C to a training that has said where it continues, before its first update."""

    def say(self, message: str) -> None:
        if " continues after epoch " in message:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("lost", "left", "words"),
    [("run-*", [0], "has no epoch yet"), ("run-000001.npz", [0, 1], "keeps its 1 epoch, continue")],
    ids=["both", "the latest"],
)
def test_a_run_that_lost_a_checkpoint_has_no_epochs_after_the_one_that_is_left(
    here: Klcli, rows: Rows, tmp_path: Path, lost: str, left: list[int], words: str
) -> None:
    lab = Lab(data="synthetic", observer=Interrupting())
    with pytest.raises(Interrupted):
        lab.train(CONFIG, on_evaluation=lambda one: os.kill(os.getpid(), signal.SIGINT) if one.epoch == 2 else None)
    before = rows("epochs")
    assert [row["epoch"] for row in before] == [0, 1, 2]
    execute(tmp_path / "results/klcli.db", "UPDATE runs SET best_validation_accuracy = 0.99")  # of epoch 2
    for file in (tmp_path / "results/checkpoints").glob(lost):
        file.unlink()
    with pytest.raises(Interrupted, match=f"run 1 {words}"):
        lab.resume(1)
    [run] = rows("runs")
    measured = [{**row, "seconds": 0} for row in rows("epochs")]
    assert measured == [{**row, "seconds": 0} for row in before if row["epoch"] in left]
    assert (run["state"], run["epochs_done"]) == ("interrupted", max(left))
    assert run["best_validation_accuracy"] == max(row["validation_accuracy"] for row in rows("epochs"))
    succeeded(here("train", "--resume", "1"))
    assert [row["epoch"] for row in rows("epochs")] == [*range(13)]


class Failing(Observer):
    """Ends a training that has said where it continues, before it evaluates anything."""

    def say(self, message: str) -> None:
        if " continues after epoch " in message:
            raise OSError("killed")


def test_a_run_that_begins_again_and_ends_at_once_keeps_the_evaluation_of_the_untrained_network(
    here: Klcli, rows: Rows, tmp_path: Path
) -> None:
    """Its seed gives that network again, and the evaluation was told."""
    with pytest.raises(Interrupted):
        Lab(data="synthetic").train(CONFIG, on_evaluation=lambda _: os.kill(os.getpid(), signal.SIGINT))
    for file in (tmp_path / "results/checkpoints").glob("*"):
        file.unlink()
    told = [row for row in rows("epochs") if row["epoch"] == 0]
    for _ in range(2):
        with pytest.raises(OSError, match="killed"):
            Lab(data="synthetic", observer=Failing()).resume(1)
        assert rows("epochs") == told != []


def test_other_images_are_refused_by_their_sha256(
    interrupted: None, here: Klcli, refused: Refused, change: Callable[..., None]
) -> None:
    change(dataset_sha256="abcdef01" * 8)
    refused(here("train", "--resume", "last"), 3, "abcdef01", "c58c0cbf", "--data")


@pytest.mark.parametrize(
    ("which", "columns", "named"),
    [
        ("1", {"state": "complete"}, "complete"),
        ("1", {"state": "diverged"}, "--eta-max"),
        ("last", {"state": "complete"}, "nothing to continue"),
        ("last", {"state": "diverged"}, "nothing to continue"),
        ("first", {}, "`last`"),
        ("-2", {}, "there is no run -2"),
        ("", {}, "`last`"),
    ],
)
def test_a_run_that_cannot_go_on_is_refused(
    interrupted: None,
    here: Klcli,
    refused: Refused,
    change: Callable[..., None],
    which: str,
    columns: dict[str, str],
    named: str,
) -> None:
    if columns:
        change(**columns)
    refused(here("train", "--resume", which), 4 if which == "-2" else 2, named)


@pytest.mark.parametrize("which", ["99", "9223372036854775807"])
def test_a_run_that_does_not_exist_is_refused(interrupted: None, here: Klcli, refused: Refused, which: str) -> None:
    refused(here("train", "--resume", which), 4, "there is no", "results/klcli.db")


def test_a_run_of_a_living_process_is_refused(
    interrupted: None, here: Klcli, change: Callable[..., None], tmp_path: Path
) -> None:
    locks = Locks(tmp_path / "results" / "locks")
    owner = locks.take()
    change(state="running", host="here", pid=4711, owner=owner)
    done = here("train", "--resume", "1")
    assert done.returncode == 2
    assert "process 4711 on here is training it" in done.stderr
    last = here("train", "--resume", "last")
    assert last.returncode == 2
    assert "run 1 is running, process 4711 on here is training it" in last.stderr
    locks.release(owner)
    assert here("train", "--resume", "last").returncode == 0


def test_a_run_that_went_on_while_the_images_were_read_continues_from_there(
    here: Klcli, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither checkpoint of the row that was read first is there any more: it began again, and lost its epochs."""

    def until(epoch: int) -> dict[str, Any]:
        return {"on_evaluation": lambda one: os.kill(os.getpid(), signal.SIGINT) if one.epoch == epoch else None}

    with pytest.raises(Interrupted):
        Lab(data="synthetic").train(CONFIG, **until(1))
    read_images = Setup.images

    def images(*arguments: Any) -> Dataset:
        monkeypatch.setattr(Setup, "images", read_images)
        with pytest.raises(Interrupted):
            Lab(data="synthetic").resume(1, **until(4))
        return read_images(*arguments)

    monkeypatch.setattr(Setup, "images", images)
    said = succeeded(here("train", "--resume", "1")).stderr
    assert "run 1 continues after epoch 4" in said
    assert "begins again" not in said
    assert [row["epoch"] for row in rows("epochs")] == [*range(13)]


@pytest.mark.parametrize("repeats", [(), ("--repeats", "2", "--jobs", "1")], ids=["a run", "a study"])
@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), 4, "this checkpoint cannot be read (Permission"),
        (MemoryError(), 1, "the memory is too small"),
    ],
    ids=["permission", "memory"],
)
def test_a_checkpoint_that_cannot_be_read_now_costs_no_epoch(
    here: Klcli, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeats: tuple[str, ...],
    error: Exception, code: int, words: str,
) -> None:  # fmt: skip
    command = (*TRAIN, "--epochs", "2", *repeats)
    succeeded(here(*command))
    for table in ("runs", *["studies"] * bool(repeats)):
        execute(tmp_path / "results/klcli.db", f"UPDATE {table} SET state = 'interrupted'")
    kept = ("epochs_done", "checkpoint", "checkpoint_sha256", "validation_accuracy")
    files = [*(tmp_path / "results/checkpoints").iterdir()]
    before = [{name: run[name] for name in kept} for run in rows("runs")], rows("epochs"), [one.stat() for one in files]
    seconds = [run["seconds"] for run in rows("runs")]

    def refused(path: Path) -> str | None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("klcli.store.checkpoints.irregular", refused)
        done = here(*command, "--resume", "last")
    assert (done.returncode, "begins again" in done.stderr) == (code, False)
    assert words in done.stderr.splitlines()[-1]
    after = [{name: run[name] for name in kept} for run in rows("runs")], rows("epochs"), [one.stat() for one in files]
    assert after == before
    assert repeats or rows("runs")[0]["seconds"] == pytest.approx(seconds[0], abs=5)
    said = succeeded(here(*command, "--resume", "last")).stderr
    assert "run 1 continues after epoch 2" in said


def test_the_run_of_a_study_names_the_command_of_the_study(
    here: Klcli, refused: Refused, rows: Rows, change: Callable[..., None]
) -> None:
    command = ("train", *TINY, "--epochs", "1", "--repeats", "2", "--jobs", "1")
    assert here(*command).returncode == 0
    change(state="interrupted")
    line = refused(here("train", "--resume", "1"), 2, "study 1")
    hint = re.search(r"continue that with `klcli (.*)`", line)
    assert hint is not None
    succeeded(here(*hint[1].split()))
    assert [run["state"] for run in rows("runs")] == ["complete", "complete"]


@pytest.mark.usefixtures("without_locks")
def test_a_study_that_was_killed_where_there_are_no_locks_continues(
    here: Klcli, rows: Rows, change: Callable[..., None]
) -> None:
    """As the warning says."""
    command = ("train", *TINY, "--epochs", "1", "--repeats", "2", "--jobs", "1")
    assert "a run that is killed here stays `running` until it is resumed" in succeeded(here(*command)).stderr
    before = [run["checkpoint_sha256"] for run in rows("runs")]
    change(state="running")
    said = succeeded(here(*command, "--resume", "last")).stderr
    assert [f"run {number} continues after epoch 1" in said for number in (1, 2)] == [True, True]
    assert [(run["state"], run["checkpoint_sha256"]) for run in rows("runs")] == [("complete", one) for one in before]


@pytest.mark.usefixtures("without_locks")
def test_a_search_that_was_killed_where_there_are_no_locks_is_not_waited_for(here: Klcli, tmp_path: Path) -> None:
    """The refusal says how it ends: its process may have ended long ago."""
    network = ("--data", "synthetic", "--subset", "300", "--hidden", "10", "--step-size", "3", "--cycles", "1")
    search = ("search-lambda", *network, "--trials", "2", "--jobs", "1")
    succeeded(here(*search, "--coarse"))
    for table in ("runs", "studies"):
        execute(tmp_path / "results/klcli.db", f"UPDATE {table} SET state = 'running'")
    done = here(*search, "--fine", "--from", "1")
    cure = "wait for its end or, if its process has ended, repeat its command with --resume first"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"klcli: --from 1: this study is running, {cure}")
    succeeded(here(*search, "--coarse", "--resume"))
    succeeded(here(*search, "--fine", "--from", "1"))


def test_the_run_of_a_merged_study_names_the_database_that_has_it(
    here: Klcli, refused: Refused, rows: Rows, tmp_path: Path
) -> None:
    """The command of the study names no database, for it began in the usual one."""
    succeeded(here("search-lambda", *TINY, "--cycles", "1", "--values", "0.01", "0.1", "--jobs", "1"))
    execute(tmp_path / "results/klcli.db", "UPDATE runs SET state = 'interrupted'")
    succeeded(here("runs", "merge", "results/klcli.db", "--db", "course/all.db"))
    line = refused(here("train", "--resume", "1", "--db", "course/all.db"), 2, "study 1")
    last = here("train", "--resume", "last", "--db", "course/all.db").stderr
    hint = re.search(r"continue that with `klcli (.*)`", line)
    assert hint is not None and hint[0] in last
    succeeded(here(*shlex.split(hint[1])))
    assert [run["state"] for run in rows("runs", "course/all.db")] == ["complete", "complete"]
    assert [run["state"] for run in rows("runs")] == ["interrupted", "interrupted"]


def test_a_database_that_is_held_for_long_is_one_line(
    interrupted: None, here: Klcli, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("klcli.store.connection.BUSY_SECONDS", 0.2)
    other = sqlite3.connect(tmp_path / "results/klcli.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        for command in (("train", "--resume", "1"), TRAIN, ("report",)):
            done = here(*command)
            assert (done.returncode, done.stdout) == (4, ""), done.stderr
            assert "another program" in done.stderr.splitlines()[-1]
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert here("train", "--resume", "1").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        "train --resume {}", "evaluate {}", "evaluate 1,{}", "predict {picture} --run {}", "report --run {}",
        "report --study {}", "report --images-of {}", "runs delete {}", "runs note {} text", "runs tag {} text",
        "search-lambda --fine --from {}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("number", mostly_slow(["9223372036854775808", "9" * 40], 2))
def test_a_number_that_is_too_large_for_any_run_is_wrong_usage(
    interrupted: None, here: Klcli, refused: Refused, tmp_path: Path, words: str, number: str
) -> None:
    picture = tmp_path / "x.png"
    Image.new("RGB", (32, 32)).save(picture)
    line = refused(here(*words.format(number, picture=picture).split()), 2, number)
    assert "SQLite" not in line
    cures = ("number is too large", "must be at most 9223372036854775807", "give the number of a study, as 3")
    assert any(cure in line for cure in cures)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals and a shell as POSIX has them")
def test_the_printed_command_works_in_a_shell_word_for_word(tmp_path: Path, rows: Rows) -> None:
    database = "Übung 3/it's mine & $HOME.db"
    process = subprocess.Popen(
        [*LIGHT, *TRAIN, "--cycles", "20", "--db", database],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while not process.stderr.readline().startswith("epoch 2/"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    hint = re.search(r"continue with `(.*)`$", err.splitlines()[-1])
    assert hint is not None
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        hint[1], shell=True, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [run] = rows("runs", database)
    assert (run["state"], run["epochs_done"]) == ("complete", 120)
