"""Merging hostile and damaged databases, and failures in the middle: nothing is lost and nothing stays behind."""

import errno
import os
import re
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from raw_sql import execute, execute_all

from klcli import termination
from klcli.errors import StoreError
from klcli.store import checkpoints, connection, merging, reading
from klcli.store.merging import Merged
from klcli.store.store import Store


@pytest.fixture
def other(three_runs_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of three complete runs; temporary files go to an empty folder `tmp`."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return three_runs_here / "klcli.db"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "all" / "klcli.db"


def merge(here: Path, other: Path) -> Merged:
    store = Store(here)
    try:
        return store.upkeep.merge(other)
    finally:
        store.close()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".db"}


@pytest.mark.timeout(60)
@pytest.mark.skipif(os.name != "posix", reason="pipes are POSIX's")
def test_a_pipe_or_a_folder_is_named_and_not_opened(here: Path, other: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.db")
    os.mkfifo(f"{other}-journal")
    for path, words in ((tmp_path / "pipe.db", "a pipe"), (other, "a pipe"), (other.parent, "a folder")):
        with pytest.raises(StoreError, match=f"this is {words}"):
            merge(here, path)


def test_a_full_disk_is_that_of_the_database_that_grows(here: Path, other: Path) -> None:
    """It was said of the other one, which is only read."""
    store = Store(here)
    with store.upkeep._db.write() as db:
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(StoreError, match=f"^{re.escape(str(here))}: the disk is full"):
        store.upkeep.merge(other)
    store.close()
    assert merge(here, other).runs == 3


def test_a_locked_database_is_not_copied_while_it_changes(
    here: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(other)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="another program has locked this database"):
            merge(here, other)
    assert merge(here, other).runs == 3
    assert [*(tmp_path / "tmp").iterdir()] == []


def test_a_database_that_cannot_be_written_is_named_not_the_one_to_copy(here: Path, other: Path) -> None:
    merge(here, other)
    store = Store(here)
    database = store.upkeep._db._db
    database.conn.close()
    database.conn = sqlite3.connect(f"{here.as_uri()}?mode=ro", uri=True, isolation_level=None)
    database.conn.row_factory = sqlite3.Row
    with pytest.raises(StoreError, match=f"^{re.escape(str(here))}: this database cannot be written"):
        store.upkeep.merge(other)
    store.close()


def test_rows_of_a_hostile_database(here: Path, other: Path, tmp_path: Path) -> None:
    """A study that is not there, and the name of another file as the owner of a lock, which probing would empty."""
    (victim := tmp_path / "three-runs" / "uv.lock").write_text("precious")
    execute_all(other, "UPDATE runs SET study_id = 99, member = 0 WHERE id = 1",
            "UPDATE runs SET state = 'running', owner = '../uv' WHERE id = 2",
            "UPDATE runs SET identity = NULL WHERE id = 3")  # fmt: skip
    (other.parent / "locks").mkdir(exist_ok=True)
    assert merge(here, other).runs == 3
    assert execute(here, "SELECT study_id, state FROM runs ORDER BY id") == [
        (None, "complete"), (None, "interrupted"), (None, "complete"),
    ]  # fmt: skip
    assert victim.read_text() == "precious"
    copy = shutil.copytree(here.parent, tmp_path / "copy") / here.name
    for path in (here, copy):
        execute(path, "UPDATE runs SET identity = NULL")
    assert merge(here, copy).known == 3
    execute_all(other, "DROP INDEX runs_by_identity", "UPDATE runs SET identity = 'x'")
    with pytest.raises(StoreError, match=r"three-runs.*a row of its table runs is not one of klcli"):
        merge(here, other)


@pytest.mark.parametrize("folder", ["here", "there"])
def test_a_network_that_cannot_be_read_now_is_not_missing(
    here: Path, other: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Run 1 was merged when it was interrupted, and has been continued there."""
    execute_all(other, "UPDATE runs SET state = 'interrupted', epochs_done = 0.5 WHERE id = 1")
    merge(here, other)
    execute_all(other, "UPDATE runs SET epochs_done = 1 WHERE id = 1")
    before, irregular = files(here.parent), checkpoints.irregular
    unreadable = (here if folder == "here" else other).parent / "checkpoints/run-000001.npz"

    def refused(path: Path) -> str | None:
        if path == unreadable:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return irregular(path)

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="this checkpoint cannot be read"):
        patch.setattr(checkpoints, "irregular", refused)
        merge(here, other)
    assert files(here.parent) == before
    assert execute(here, "SELECT epochs_done FROM runs WHERE id = 1") == [(0.5,)]


@pytest.mark.parametrize("at", range(6))
def test_a_failure_at_any_file_leaves_no_new_one_and_loses_none(
    here: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Run 1 was merged when it was interrupted: its checkpoint from then must survive the update."""
    latest = (file := other.parent / "checkpoints/run-000001.npz").read_bytes()
    file.write_bytes(b"earlier")
    execute(other, "UPDATE runs SET state = 'interrupted', epochs_done = 0 WHERE id = 1")
    merge(here, other)
    execute_all(here, "PRAGMA foreign_keys = ON", "DELETE FROM runs WHERE id > 1")
    for path in [*here.parent.rglob("run-00000[23].*")]:
        path.unlink()
    file.write_bytes(latest)
    execute(other, "UPDATE runs SET state = 'complete', epochs_done = 1 WHERE id = 1")
    before, copy, copied = files(here.parent), merging._copy, []

    def failing(source: Path, temporary: Path) -> None:
        copied.append(source)
        if len(copied) > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        copy(source, temporary)

    monkeypatch.setattr(merging, "PORTION", 1)
    with monkeypatch.context() as patch, pytest.raises(StoreError, match="free some space"):
        patch.setattr(merging, "_copy", failing)
        merge(here, other)
    after = files(here.parent)
    assert b"earlier" in after.values()
    assert {name.replace(".previous", "") for name in after} == before.keys()
    assert merge(here, other).changes == 3
    assert files(here.parent)["run-000001.npz"] == latest
    store = Store(here)
    assert store.upkeep.check() == ([], [])
    store.close()


def test_a_checkpoint_that_was_missing_is_copied_later(here: Path, other: Path) -> None:
    file = other.parent / "checkpoints/run-000002.npz"
    away = file.rename(other.parent / "away")
    assert "missing, merge again when it is there" in merge(here, other).remarks[0]
    assert merge(here, other).changes == 0
    away.rename(file)
    merged = merge(here, other)
    assert (merged.updated, merged.known, merged.files) == (1, 2, 1)
    assert (here.parent / "checkpoints/run-000002.npz").read_bytes() == file.read_bytes()
    assert merge(here, other).changes == 0


def test_the_network_of_a_run_that_went_on_is_copied_later(here: Path, other: Path) -> None:
    """In its place is the one with which the run is here already."""
    checkpoint = other.parent / "checkpoints/run-000001.npz"
    [[sha256]] = execute(other, "SELECT checkpoint_sha256 FROM runs WHERE id = 1")
    shutil.copyfile(checkpoint, latest := other.parent / "latest")
    shutil.copyfile(checkpoint.with_name("run-000002.npz"), checkpoint)
    [[earlier]] = execute(other, "SELECT checkpoint_sha256 FROM runs WHERE id = 2")
    set_to = "UPDATE runs SET state = ?, epochs_done = ?, checkpoint_sha256 = ? WHERE id = 1"
    execute(other, set_to, "interrupted", 0, earlier)
    merge(here, other)
    execute(other, set_to, "complete", 1, sha256)
    checkpoint.unlink()
    assert "missing, merge again when it is there" in merge(here, other).remarks[0]
    latest.rename(checkpoint)
    assert merge(here, other).changes == 1
    assert (here.parent / "checkpoints/run-000001.npz").read_bytes() == checkpoint.read_bytes()


@pytest.mark.parametrize("is_lost_here", [False, True])
def test_an_unfinished_run_without_its_network_replaces_none_that_is_here(
    here: Path, other: Path, is_lost_here: bool
) -> None:
    """Its file was left behind when the database was handed in again: the training would begin again."""
    checkpoint = other.parent / "checkpoints/run-000001.npz"
    execute(other, "UPDATE runs SET state = 'interrupted', epochs_done = 0 WHERE id = 1")
    merge(here, other)
    mine = here.parent / "checkpoints/run-000001.npz"
    if is_lost_here:
        mine.unlink()
    latest = checkpoint.with_name("run-000002.npz")
    [[sha256]] = execute(other, "SELECT checkpoint_sha256 FROM runs WHERE id = 2")
    execute(other, f"UPDATE runs SET epochs_done = 1, checkpoint_sha256 = '{sha256}' WHERE id = 1")
    checkpoint.unlink()
    merged = merge(here, other)
    assert (merged.updated, merged.known) == ((1, 2) if is_lost_here else (0, 3))
    assert "run 1: its checkpoint" in merged.remarks[0] and "merge again when it is there" in merged.remarks[0]
    if not is_lost_here:
        assert merged.left_out and not merged.without_checkpoint  # `runs check` of the database here names no other
        with closing(Store(here)) as store:
            assert store.runs.get(1).epochs_done == 0
            assert store.runs.checkpoint(store.runs.get(1)).sha256 != sha256
    shutil.copyfile(latest, checkpoint)
    assert merge(here, other).updated == 1
    assert mine.read_bytes() == latest.read_bytes()


def test_the_network_is_the_previous_one_if_a_killed_process_did_not_record_its_last(here: Path, other: Path) -> None:
    """The file is written before its row."""
    execute(other, "UPDATE runs SET state = 'interrupted', epochs_done = 0 WHERE id = 1")
    checkpoint = other.parent / "checkpoints/run-000001.npz"
    merge(here, other)
    recorded, unrecorded = (checkpoint.with_name(f"run-00000{number}.npz").read_bytes() for number in (2, 3))
    checkpoint.with_name("run-000001.previous.npz").write_bytes(recorded)
    checkpoint.write_bytes(unrecorded)
    [[sha256]] = execute(other, "SELECT checkpoint_sha256 FROM runs WHERE id = 2")
    execute(other, f"UPDATE runs SET epochs_done = 1, checkpoint_sha256 = '{sha256}' WHERE id = 1")
    assert merge(here, other).updated == 1
    assert (here.parent / "checkpoints/run-000001.npz").read_bytes() == recorded
    assert merge(here, other).changes == 0


@pytest.mark.parametrize("name", ["klcli.db", "renamed.db"])
def test_a_damaged_network_replaces_no_sound_one_and_is_replaced_by_one(here: Path, other: Path, name: str) -> None:
    merge(here, other)
    place = here.parent / ("checkpoints" if name == "klcli.db" else "renamed-checkpoints")
    here, _ = here.rename(here.with_name(name)), (here.parent / "checkpoints").rename(place)
    theirs, mine = other.parent / "checkpoints/run-000001.npz", place / "run-000001.npz"
    sound = theirs.read_bytes()
    theirs.write_bytes(b"damaged")
    assert merge(here, other).changes == 0
    assert mine.read_bytes() == sound
    mine.write_bytes(b"damaged")
    assert merge(here, other).changes == 0
    theirs.write_bytes(sound)
    assert merge(here, other).changes == 1
    assert mine.read_bytes() == sound


def test_the_copy_of_a_killed_process_is_removed_by_the_next_one(other: Path) -> None:
    folder = Path(tempfile.gettempdir())
    # An older klcli named the first one, the cache of a user without a home folder is named as the last one.
    lost, young, cache = (folder / name for name in ("klcli-copy-lost", "klcli-0123", "klcli-1000"))
    for own in (lost, young, cache / "compiled"):
        own.mkdir(parents=True)
        (own / "in-use").touch()
    living = reading.TemporaryCopy(other)
    for own in (lost, cache / "compiled", living.file.parent):
        os.utime(own / "in-use", (0, 0))
    latest = reading.TemporaryCopy(other)
    assert {*folder.iterdir()} == {young, cache, living.file.parent, latest.file.parent}
    for copy in (living, latest):
        assert copy.file.read_bytes() == other.read_bytes()
        copy.remove()
    assert {*folder.iterdir()} == {young, cache}


def test_a_copy_is_removed_by_a_signal_and_without_space(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, folder = reading.TemporaryCopy(other), Path(tempfile.gettempdir())
    assert copy.file.read_bytes() == other.read_bytes()
    for action in reversed(termination._actions):  # as a signal calls them
        action()
    assert [*folder.iterdir()] == []
    copy.remove()

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(StoreError, match=r"no space for a copy .*TMPDIR"):
        reading.TemporaryCopy(other)
    assert [*folder.iterdir()] == []
