"""Locks: a run is alive exactly while its process holds them, wherever that process is and whatever its name."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from raw_sql import execute

from klcli.errors import ConfigError, StoreError
from klcli.store.locks import Locks
from klcli.store.store import Store

HERE = Path(__file__).parent
TRAINER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import Recorder
recorder = Recorder(Path(sys.argv[1]))
recorder.begin()
print("begun", flush=True)
time.sleep(600)
"""
Trainer = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    """Start a process that has begun a run in klcli.db, behind a prefix such as `unshare`."""
    started: list[subprocess.Popen[str]] = []

    def start(*prefix: str) -> "subprocess.Popen[str]":
        arguments = [*prefix, sys.executable, "-c", TRAINER, str(tmp_path / "klcli.db"), str(HERE)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        if process.stdout.readline() != "begun\n":
            assert prefix, "the training did not begin"
            pytest.skip(f"{prefix} is not possible here")
        return process

    yield start
    for process in started:
        end(process)


def end(process: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def state(path: Path, run_id: int = 1) -> str:
    with closing(Store(path)) as store:
        return store.runs.get(run_id).state


def test_a_run_is_running_until_its_process_is_killed(trainer: Trainer, tmp_path: Path) -> None:
    process = trainer()
    assert state(tmp_path / "klcli.db") == "running"
    assert len(list((tmp_path / "locks").iterdir())) == 1
    end(process)
    with closing(Store(tmp_path / "klcli.db")) as store:
        run = store.runs.get(1)
    assert (run.state, run.error) == ("interrupted", "its process ended unexpectedly")
    assert list((tmp_path / "locks").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="this system keeps no dead process to be waited for")
def test_a_dead_process_that_nobody_has_waited_for_is_dead(trainer: Trainer, tmp_path: Path) -> None:
    process = trainer()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead now, and still in the table of processes
    assert state(tmp_path / "klcli.db") == "interrupted"


def test_neither_host_nor_pid_decide(trainer: Trainer, tmp_path: Path) -> None:
    process, path = trainer(), tmp_path / "klcli.db"
    [lock] = (tmp_path / "locks").iterdir()
    identities = "host = 'another-host'", "pid = 1", f"pid = {os.getpid()}", "pid = 2000000000"
    for identity in identities:
        execute(path, f"UPDATE runs SET {identity}")
        assert state(path) == "running", identity
    end(process)
    for identity in identities:
        lock.touch()  # as a process leaves it that is killed
        execute(path, f"UPDATE runs SET state = 'running', {identity}")
        assert state(path) == "interrupted", identity


@pytest.mark.parametrize(
    "prefix",
    [
        ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "-"),
    ],
    ids=["pid namespace", "host name"],
)
@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only the superuser makes namespaces")
def test_a_process_in_another_container_is_alive_until_it_ends(
    trainer: Trainer, tmp_path: Path, prefix: tuple[str, ...]
) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    process = trainer(*prefix)
    assert state(tmp_path / "klcli.db") == "running"
    end(process)
    end_of_patience = time.monotonic() + 60  # the process inside ends after the one outside
    while state(tmp_path / "klcli.db") == "running" and time.monotonic() < end_of_patience:
        time.sleep(0.05)
    assert state(tmp_path / "klcli.db") == "interrupted"


def test_a_copy_has_no_living_run_and_the_original_keeps_it(trainer: Trainer, tmp_path: Path) -> None:
    trainer()
    for copy in (tmp_path / "with locks", tmp_path / "without"):
        copy.mkdir()
        shutil.copy(tmp_path / "klcli.db", copy)
        if copy.name == "with locks":
            shutil.copytree(tmp_path / "locks", copy / "locks")
        assert state(copy / "klcli.db") == "interrupted", copy
        assert state(tmp_path / "klcli.db") == "running", copy


def test_a_living_run_cannot_be_claimed_or_deleted(trainer: Trainer, tmp_path: Path) -> None:
    process = trainer()
    with closing(Store(tmp_path / "klcli.db")) as store:
        with pytest.raises(StoreError, match="taken over by another process"):
            store.runs.claim(1)
        with pytest.raises(ConfigError, match=f"process {process.pid} .* is training it"):
            store.upkeep.delete([1])
        assert store.runs.get(1).state == "running"


def test_a_process_whose_run_was_taken_over_writes_no_more(recorder: Any, tmp_path: Path) -> None:
    run_id = recorder.begin()
    execute(recorder.path, "UPDATE runs SET owner = 'another', note = 'theirs'")
    for write in (
        lambda: recorder.store.runs.finish(run_id, "complete", None, 1.0),
        lambda: recorder.store.runs.finish(run_id, "interrupted", None, 1.0),
    ):
        with pytest.raises(StoreError, match=f"run {run_id} has been taken over"):
            write()
    assert execute(recorder.path, "SELECT state, note FROM runs") == [("running", "theirs")]


def test_a_run_of_an_earlier_klcli_has_no_lock_and_is_interrupted(recorder: Any) -> None:
    recorder.begin()
    execute(recorder.path, "UPDATE runs SET owner = NULL")
    assert state(recorder.path) == "interrupted"


def test_a_lock_goes_with_the_end_of_its_run_and_with_a_failed_record(recorder: Any) -> None:
    folder = recorder.store.locks.folder
    run_id = recorder.begin()
    with pytest.raises(StoreError):
        recorder.begin(command=None)
    assert len(list(folder.iterdir())) == 1
    recorder.store.runs.finish(run_id, "complete", None, 1.0)
    assert list(folder.iterdir()) == []


def test_a_lock_is_released_even_where_the_end_cannot_be_recorded(recorder: Any, tmp_path: Path) -> None:
    """As in a notebook whose disk is full: the process lives on, and no longer trains."""
    run_id = recorder.begin()
    execute(recorder.path, "CREATE TRIGGER full BEFORE UPDATE ON runs BEGIN SELECT raise(ABORT, 'no'); END")
    with pytest.raises(StoreError):
        recorder.store.runs.finish(run_id, "complete", None, 1.0)
    execute(recorder.path, "DROP TRIGGER full")
    assert state(recorder.path) == "interrupted"


def test_those_who_look_at_once_agree(tmp_path: Path) -> None:
    """A look takes the lock for a moment, which another look must not take for a living process."""
    locks = Locks(tmp_path / "locks")
    dead, living = "0" * 16, locks.take()
    (file := locks.folder / f"{dead}.lock").touch()
    script = (
        "import sys\nfrom pathlib import Path\nfrom klcli.store.locks import Locks\n"
        "locks = Locks(Path(sys.argv[1]))\n"
        "print([locks.is_held(owner) for owner in sys.argv[2:]])"
    )
    command = [sys.executable, "-c", script, str(locks.folder), dead, living]
    with locks._probing(file) as is_free:
        assert is_free
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[False, True]\n"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_without_locks_nothing_is_declared_dead_and_whoever_resumes_takes_over(
    recorder: Any, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    run_id = recorder.begin()
    assert recorder.store.locks.failure == os.strerror(code)
    with closing(Store(recorder.path)) as other:
        run = other.runs.get(run_id)
        assert (run.state, other.runs.is_alive(run)) == ("running", None)
        assert "no locks" in other.runs.training_words(run)
        with pytest.raises(ConfigError, match="no locks"):
            other.upkeep.delete([run_id])
        other.runs.claim(run_id)
        with pytest.raises(StoreError, match="taken over"):
            recorder.store.runs.finish(run_id, "complete", None, 1.0)
        other.runs.finish(run_id, "complete", None, 1.0)
    assert recorder.store.runs.get(run_id).state == "complete"


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (errno.ENOSPC, "free some space"), (errno.EDQUOT, "free some space"),
        (errno.EACCES, "remove what is in its place or choose another --db"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("made", ["touch", "mkdir"])
def test_a_lock_that_cannot_be_made_names_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, cure: str, made: str
) -> None:
    def refuse(path: Path, *how: object, **more: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, made, refuse)
    with pytest.raises(StoreError, match=rf"cannot be made \({os.strerror(code)}\), {cure}$"):
        Locks(tmp_path / "locks").take()


@pytest.mark.timeout(60)
def test_a_pipe_or_a_link_in_the_place_of_a_lock_is_neither_waited_for_nor_emptied(tmp_path: Path) -> None:
    """As in a hand-in that was unpacked from an archive."""
    (victim := tmp_path / "precious").write_text("precious")
    locks = Locks(tmp_path / "locks")
    locks.folder.mkdir()
    os.mkfifo(locks.folder / f"{'0' * 16}.lock")
    (locks.folder / f"{'1' * 16}.lock").symlink_to(victim)
    assert [locks.is_held(digit * 16) for digit in "01"] == [False, False]
    locks.remove_dead()
    assert [*locks.folder.iterdir()] == []
    assert victim.read_text() == "precious"


def test_a_lock_file_that_can_only_be_read_is_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Denied:
        def acquire(self, **how: float) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        def release(self) -> None:
            pass

    monkeypatch.setattr("klcli.store.locks._lock", lambda file: Denied())
    locks, file = Locks(tmp_path), tmp_path / f"{'0' * 16}.lock"
    file.touch()
    assert locks.is_held("0" * 16) is False
    with file.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert locks.is_held("0" * 16) is True
