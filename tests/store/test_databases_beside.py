"""Databases in one folder: copies, renamed ones, those of one stem, foreign ones. None takes a file of another."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from raw_sql import execute, execute_all, opened

from klcli.errors import StoreError
from klcli.store import locks, upkeep
from klcli.store.reading import TABLES
from klcli.store.store import Store

OWN = Path(__file__).parent
BEGIN = """
import sys, time
from pathlib import Path
from conftest import Recorder
recorder, at = Recorder(Path(sys.argv[1])), float(sys.argv[2])
for number in range(20):
    time.sleep(max(0, at + number / 20 - time.time()))
    print(recorder.begin())
"""


@pytest.fixture
def backup(three_runs_here: Path) -> Path:
    """A copy of a database in its folder."""
    return Path(shutil.copyfile(three_runs_here / "klcli.db", three_runs_here / "backup.db"))


def network(folder: Path, run_id: int) -> Path:
    return folder / f"checkpoints/run-{run_id:06d}.npz"


def endless(path: Path, table: str) -> None:
    """Put a view in the place of a table: it has a row for every integer."""
    names = [row[1] for row in execute(path, f"PRAGMA table_xinfo({table})")]
    values = ", ".join(f'i AS "{name}"' for name in names)
    every = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    rename = f"ALTER TABLE {table} RENAME TO old_{table}"
    create = f"CREATE VIEW {table.upper()} AS {every} SELECT {values} FROM n"  # SQLite finds it in any case
    execute_all(path, "PRAGMA legacy_alter_table = ON", rename, create)


def test_the_tables_of_klcli_are_those_of_the_schema() -> None:
    steps = "".join(step.read_text() for step in files("klcli.store.schema").iterdir() if step.name.endswith(".sql"))
    assert {*TABLES} == {*re.findall(r"CREATE TABLE (\w+)", steps), "_sqlite_migrations"}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("table", TABLES)
def test_a_view_without_end_in_the_place_of_a_table_is_refused(backup: Path, table: str, answer: Any) -> None:
    endless(backup, table)
    before = backup.read_bytes()
    for command in ("report --list", "report --run 1", "runs check", "runs delete 1 --yes", "train --resume 1"):
        code, out, err = answer(*command.split(), "--db", str(backup))
        assert (code, out, err.count("\n")) == (4, "", 1)
        assert f"{backup}: its {table.upper()} is a view in the place of a table of klcli" in err
    code, _, err = answer("runs", "merge", str(backup), "--db", str(backup.with_name("all.db")))
    assert (code, err.count("\n")) == (4, 1) and f"its {table.upper()} is a view" in err
    assert backup.read_bytes() == before
    with closing(Store(backup.with_name("klcli.db"))) as store:
        assert store.upkeep.check() == ([], [])
        assert network(backup.parent, 1) in store.upkeep.delete([1])  # such a file names nothing


@pytest.mark.timeout(60)
@pytest.mark.skipif(os.name != "posix", reason="pipes are POSIX's")
@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_a_pipe_beside_another_database_is_not_opened(backup: Path, suffix: str) -> None:
    os.mkfifo(f"{backup}{suffix}")
    with closing(Store(backup.with_name("klcli.db"))) as store:
        assert store.upkeep.check() == ([], [])


@pytest.fixture(params=[pytest.param("locked", marks=pytest.mark.slow), "damaged", "a killed writer's", "not readable"])
def unreadable(request: pytest.FixtureRequest, backup: Path) -> Iterator[Path]:
    """A copy whose rows cannot be read, although they name the networks of the original."""
    with opened(backup) as connection:
        if request.param == "locked":
            connection.execute("BEGIN EXCLUSIVE")
        elif request.param == "damaged":
            content = bytearray(backup.read_bytes())
            [page] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'runs'").fetchone()
            content[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
            backup.write_bytes(content)
        elif request.param == "a killed writer's":
            script = (
                "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
                "c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN'); c.execute('CREATE TABLE x AS WITH RECURSIVE "
                "n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) SELECT randomblob(4000) FROM n'); "
                "os._exit(1)"
            )
            subprocess.run([sys.executable, "-c", script, backup], check=False)
            assert backup.with_name("backup.db-journal").exists()
        else:
            if os.name != "posix" or os.geteuid() == 0:
                pytest.skip("the superuser reads every file")
            backup.chmod(0)
        yield backup


def test_no_network_is_deleted_that_a_database_may_name_which_cannot_be_read(unreadable: Path) -> None:
    """It was deleted after a tenth of a second, in which another process wrote to the copy."""
    folder = unreadable.parent
    with closing(Store(folder / "klcli.db")) as store:
        store.upkeep.set_note([3], "")
        assert store.upkeep.check() == ([], [])
        with pytest.raises(StoreError, match=f"^{unreadable}: it can name the same files, and cannot be read") as error:
            store.upkeep.delete([1])
        assert "\n" not in str(error.value)
        assert network(folder, 1).exists() and store.runs.get(1).checkpoint
        unreadable.rename(folder / "away")
        (folder / "away").unlink()
        assert network(folder, 1) in store.upkeep.delete([1])


@contextmanager
def locked_for_a_moment(path: Path) -> Iterator[None]:
    """Let another process write to a database for half a second."""
    script = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN EXCLUSIVE'); print(flush=True); time.sleep(0.5)"
    )
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"\n"
        yield


def test_a_short_write_to_another_database_delays_a_deletion(backup: Path) -> None:
    with closing(Store(backup.with_name("klcli.db"))) as store, locked_for_a_moment(backup):
        assert network(backup.parent, 1) not in store.upkeep.delete([1])
    assert network(backup.parent, 1).exists()


def test_a_deletion_lets_others_write_while_it_reads_a_copy(backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many large networks, that can take longer than a training waits for the database."""
    here, written = backup.with_name("klcli.db"), []

    def read(path: Path, *query: Any, **how: Any) -> Any:
        with closing(sqlite3.connect(here, timeout=0, isolation_level=None)) as training:
            training.execute("BEGIN IMMEDIATE")
        written.append(path)
        return rows(path, *query, **how)

    rows = upkeep.rows
    monkeypatch.setattr(upkeep, "rows", read)
    with closing(Store(here)) as store:
        store.upkeep.delete([1])
    assert written == [backup]
    assert network(backup.parent, 1).exists()


def test_a_short_write_to_a_database_of_the_same_stem_delays_a_new_number(tmp_path: Path, new_recorder: Any) -> None:
    """After a tenth of a second, the number of a run without a checkpoint was given again."""
    one, two = new_recorder(tmp_path / "y.db"), new_recorder(tmp_path / "y.sqlite")
    assert one.begin() == 1
    with locked_for_a_moment(one.path):
        assert two.begin() == 2
    for recorder in (one, two):
        recorder.store.close()


@pytest.mark.parametrize("other", ["y.sqlite", "y"])
def test_databases_of_one_stem_number_their_runs_together(tmp_path: Path, new_recorder: Any, other: str) -> None:
    """Both have the same folder, and no run has a checkpoint yet: the later one replaced that of the other."""
    one, two = new_recorder(tmp_path / "y.db"), new_recorder(tmp_path / other)
    third = new_recorder(tmp_path / "yy.db")
    assert [one.begin(), two.begin(), one.begin(), two.begin(), third.begin()] == [1, 2, 3, 4, 1]
    for recorder in (one, two, third):
        recorder.store.close()


@pytest.mark.skipif(os.name != "posix", reason="folders are locked as POSIX does it")
def test_a_merge_waits_for_the_number_of_a_run_in_a_database_of_the_same_stem(
    backup: Path, tmp_path: Path, new_recorder: Any
) -> None:
    """Both could give one number, and write one file."""
    one = new_recorder(tmp_path / "y.db")

    def merge() -> None:
        with closing(Store(tmp_path / "y.sqlite")) as store:
            assert store.upkeep.merge(backup).runs == 3

    with ThreadPoolExecutor(1) as thread:
        with one.store.locks.numbering():
            merging = thread.submit(merge)
            with pytest.raises(TimeoutError):
                merging.result(0.5)
        merging.result(30)
    assert one.begin() == 4
    one.store.close()


@pytest.mark.skipif(os.name != "posix", reason="folders are locked as POSIX does it")
def test_a_number_that_another_program_keeps_from_being_given_is_one_line(
    tmp_path: Path, new_recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = new_recorder(tmp_path / "y.db"), new_recorder(tmp_path / "y.sqlite")
    monkeypatch.setattr(locks, "BUSY_SECONDS", 0.2)
    with one.store.locks.numbering(), pytest.raises(StoreError, match=r"has numbered runs here for 0.2 s, close it"):
        two.begin()
    assert two.begin() == 1
    for recorder in (one, two):
        recorder.store.close()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="folders are locked as POSIX does it")
def test_processes_that_begin_at_once_in_databases_of_one_stem_share_no_number(tmp_path: Path) -> None:
    command, at = [sys.executable, "-c", BEGIN], str(time.time() + 5)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(OWN), str(OWN.parent)])}
    processes = [
        subprocess.Popen([*command, tmp_path / name, at], env=environment, stdout=subprocess.PIPE)
        for name in ("y.db", "y.sqlite")
    ]
    numbers = [number for process in processes for number in process.communicate()[0].split()]
    assert len(numbers) == 40
    assert len({*numbers}) == 40


def test_a_database_that_disappears_while_the_folder_is_read_is_none(
    backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.samefile

    def samefile(self: Path, other: Path) -> bool:
        if self == backup:
            backup.unlink()
        return original(self, other)

    monkeypatch.setattr(Path, "samefile", samefile)
    with closing(Store(backup.with_name("klcli.db"))) as store:
        assert network(backup.parent, 1) in store.upkeep.delete([1])
    assert sqlite3.connect(backup.with_name("klcli.db")).execute("SELECT count(*) FROM runs").fetchone() == (2,)


def rename(folder: Path, old: str, new: str) -> None:
    """Rename a database with its folders."""
    for path in sorted(folder.iterdir()):
        if path.stem == old and path.is_file():
            path.rename(folder / f"{new}{path.suffix}")
    for kind in ("checkpoints", "plots"):
        named = [kind if stem == "klcli" else f"{stem}-{kind}" for stem in (old, new)]
        (folder / named[0]).rename(folder / named[1])


def contents(store: Store) -> list[dict[str, bytes]]:
    """Return the arrays of every network of a database."""
    states = [store.runs.checkpoint(run).state for run in store.runs.where("checkpoint IS NOT NULL ORDER BY id")]
    return [{name: array.tobytes() for name, array in state.items()} for state in states]


@pytest.fixture
def renamed(three_runs_here: Path) -> Path:
    """A folder in which `klcli.db` was renamed with its folders, and another `klcli.db` has come since: its networks
    are those of the first one in another order.
    """
    folder = three_runs_here
    shutil.copytree(folder / "checkpoints", folder / "new-checkpoints")
    new = Path(shutil.copyfile(folder / "klcli.db", folder / "new.db"))
    sums = dict(execute(new, "SELECT id, checkpoint_sha256 FROM runs"))
    for run_id, other in ((1, 2), (2, 3), (3, 1)):
        shutil.copyfile(network(folder, other), folder / f"new-checkpoints/run-{run_id:06d}.npz")
        changed = "UPDATE runs SET checkpoint = 'new-' || checkpoint, checkpoint_sha256 = ?, identity = id WHERE id = ?"
        execute(new, changed, sums[other], run_id)
    (folder / "new-plots").mkdir()
    rename(folder, "klcli", "thesis")
    rename(folder, "new", "klcli")
    return folder


def test_a_renamed_database_finds_its_networks_whoever_has_its_old_name(renamed: Path) -> None:
    """The rows of `thesis.db` name the folder `checkpoints`, which is now that of the other one."""
    with closing(Store(renamed / "klcli.db")) as new, closing(Store(renamed / "thesis.db")) as thesis:
        assert thesis.upkeep.check() == new.upkeep.check() == ([], [])
        [one, two, three], others = contents(thesis), contents(new)
        assert others == [two, three, one]
        thesis.upkeep.delete([1])
        assert contents(new) == others
        new.upkeep.delete([2])
        assert contents(thesis) == [two, three]
        assert thesis.upkeep.check() == new.upkeep.check() == ([], [])
        with closing(Store(renamed / "all.db")) as together:
            assert together.upkeep.merge(renamed / "thesis.db").remarks == []
            assert together.upkeep.merge(renamed / "klcli.db").remarks == []
            assert contents(together) == [two, three, two, one]


def test_a_renamed_database_without_its_networks_deletes_none_of_another(renamed: Path) -> None:
    shutil.rmtree(renamed / "thesis-checkpoints")
    with closing(Store(renamed / "klcli.db")) as new, closing(Store(renamed / "thesis.db")) as thesis:
        others = contents(new)
        assert len(thesis.upkeep.check()[0]) == 3
        thesis.upkeep.delete([1, 2, 3])
        assert contents(new) == others


def test_a_new_database_with_the_old_name_takes_nothing_from_a_renamed_one(
    three_runs_here: Path, new_recorder: Any
) -> None:
    rename(three_runs_here, "klcli", "thesis")
    with closing(Store(three_runs_here / "thesis.db")) as thesis:
        networks = contents(thesis)
        new_recorder(three_runs_here / "klcli.db").begin()
        (three_runs_here / "checkpoints").mkdir()
        assert contents(thesis) == networks
        assert thesis.upkeep.check() == ([], [])
        assert len(thesis.upkeep.delete([2])) == 2
        assert contents(thesis) == [networks[0], networks[2]]


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_database_that_was_renamed_again_without_its_folders_finds_its_networks(
    three_runs_here: Path, request: pytest.FixtureRequest, is_taken: bool
) -> None:
    """Its rows name the folder of its first name, its networks are in that of the second one."""
    with closing(Store(three_runs_here / "klcli.db")) as store:
        networks = contents(store)
    if is_taken:
        request.getfixturevalue("renamed")
    else:
        rename(three_runs_here, "klcli", "thesis")
    (three_runs_here / "thesis.db").rename(three_runs_here / "final.db")
    (three_runs_here / "final-checkpoints").mkdir()  # a process was killed before it wrote the row of this file
    (three_runs_here / "final-checkpoints/run-000001.npz").write_bytes(b"of the next epoch")
    with closing(Store(three_runs_here / "final.db")) as final:
        assert contents(final) == networks
        assert final.upkeep.check() == ([], [])
        with closing(Store(three_runs_here / "all/klcli.db")) as together:
            assert together.upkeep.merge(three_runs_here / "final.db").remarks == []
            assert contents(together) == networks
        deleted = final.upkeep.delete([2])
        assert deleted == [three_runs_here / "thesis-checkpoints/run-000002.npz"]
        shutil.rmtree(three_runs_here / "thesis-checkpoints")
        assert len(final.upkeep.check()[0]) == 2
    if is_taken:
        with closing(Store(three_runs_here / "klcli.db")) as new:
            assert new.upkeep.check() == ([], [])


def test_the_networks_of_a_database_that_was_renamed_twice_are_kept_for_it(
    three_runs_here: Path, new_recorder: Any
) -> None:
    """Neither its rows nor its name tell where they are: a copy of it, and one that has the folder now, keep them."""
    rename(three_runs_here, "klcli", "thesis")
    (three_runs_here / "thesis.db").rename(three_runs_here / "final.db")
    shutil.copyfile(three_runs_here / "final.db", three_runs_here / "copy.db")
    new_recorder(three_runs_here / "thesis.db").begin()
    with closing(Store(three_runs_here / "final.db")) as final, closing(Store(three_runs_here / "copy.db")) as copy:
        networks = contents(final)
        assert copy.upkeep.delete([1]) == []
        assert contents(final) == networks
        with closing(Store(three_runs_here / "thesis.db")) as new:
            assert new.upkeep.check() == ([], [])
        copy.upkeep.delete([2, 3])
        deleted = final.upkeep.delete([1, 2, 3])
        assert deleted == [three_runs_here / f"thesis-checkpoints/run-{run:06d}.npz" for run in (1, 2, 3)]


def test_a_copy_of_one_database_does_not_keep_the_files_of_another(three_runs_here: Path) -> None:
    shutil.copyfile(three_runs_here / "klcli.db", three_runs_here / "backup.db")
    with closing(Store(three_runs_here / "other.db")) as other:
        assert other.upkeep.merge(three_runs_here / "klcli.db").remarks == []
        assert three_runs_here / "other-checkpoints/run-000001.npz" in other.upkeep.delete([1])
        assert other.upkeep.check() == ([], [])


def test_a_network_that_a_copy_finds_although_another_is_in_its_place_is_kept(three_runs_here: Path) -> None:
    rename(three_runs_here, "klcli", "thesis")
    shutil.copyfile(three_runs_here / "thesis.db", three_runs_here / "copy.db")
    (three_runs_here / "checkpoints").mkdir()  # of a new `klcli.db`, whose first network is another one
    shutil.copyfile(three_runs_here / "thesis-checkpoints/run-000002.npz", network(three_runs_here, 1))
    with closing(Store(three_runs_here / "thesis.db")) as thesis, closing(Store(three_runs_here / "copy.db")) as copy:
        networks = contents(copy)
        assert three_runs_here / "thesis-checkpoints/run-000001.npz" not in thesis.upkeep.delete([1])
        assert thesis.upkeep.check() == ([], [])
        assert contents(copy) == networks
        assert three_runs_here / "thesis-checkpoints/run-000001.npz" in copy.upkeep.delete([1])
        assert network(three_runs_here, 1).exists()


@pytest.mark.parametrize("is_same", [False, True])
def test_a_database_without_its_folder_keeps_what_it_finds_in_others_by_checksum(backup: Path, is_same: bool) -> None:
    folder = backup.parent
    execute(backup, "UPDATE runs SET checkpoint = 'backup-' || checkpoint")
    if not is_same:
        execute(backup, "UPDATE runs SET checkpoint_sha256 = ?", "f" * 64)
    with closing(Store(folder / "klcli.db")) as store:
        assert (network(folder, 1) in store.upkeep.delete([1])) is not is_same
        shutil.copyfile(network(folder, 2), network(folder, 1).with_name("run-000009.npz"))
        [orphan] = store.upkeep.check()[1]
        assert "run-000009.npz" in orphan
