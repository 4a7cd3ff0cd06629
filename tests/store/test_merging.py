"""Merging: rows and files of other databases, compared with the sqlite3 module and the file system."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlite_utils
from raw_sql import dicts, execute, execute_all

from klcli.errors import StoreError
from klcli.evaluation.metrics import Score
from klcli.evaluation.reevaluation import Reevaluation
from klcli.settings.procedures import CheckSettings, EvaluationSettings
from klcli.settings.train_config import TrainConfig
from klcli.store.connection import Database
from klcli.store.merging import Copy, copy_files
from klcli.store.runs import run_row
from klcli.store.schema import migrations
from klcli.store.store import Store
from klcli.studies.gradient_checks import NetworkCheck
from klcli.training.budget import budget_of
from klcli.training.environment import Environment

RENUMBERED = {"id", "study_id", "parent", "run_id", "evaluation_id", "check_id", "suite", "checkpoint"}
FOUND = Reevaluation(None, None, Score(0.1 + 0.2, 0.4), Score(1 / 3, 0.5), 2.5)


def rows(path: Path, table: str, where: str = "1") -> list[dict[str, Any]]:
    return dicts(path, f"SELECT * FROM {table} WHERE {where}")


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def planned(small_dataset: Any, *seeds: int) -> list[dict[str, Any]]:
    configs = [TrainConfig(hidden=(5,), seed=seed) for seed in seeds]
    return [run_row(one, budget_of(one, 45_000), small_dataset, Environment(1, {}), "klcli train") for one in configs]


WRITE = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0.1).execute('CREATE TABLE meanwhile (x)')"


def is_locked(path: Path) -> bool:
    """Whether another process waits in vain to write."""
    done = subprocess.run([sys.executable, "-c", WRITE, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "database is locked" in done.stderr
    return done.returncode != 0


@pytest.fixture
def other(three_runs_here: Path, small_dataset: Any) -> Path:
    """The database of runs 1 to 3, of a study and its child with runs 4 to 6, of two evaluations and two suites."""
    path = three_runs_here / "klcli.db"
    store = Store(path)
    first = store.studies.begin("lambda", "coarse", {"plan": []}, planned(small_dataset, 7, 8), "klcli search-lambda")
    store.studies.end(first, "complete")
    second = store.studies.begin("lambda", "fine", {}, planned(small_dataset, 9), "klcli search-lambda", parent=first)
    store.studies.end(second, "complete")
    store.evaluations.record([store.runs.get(2)], EvaluationSettings(flips=True), FOUND, "klcli evaluate 2")
    pair = [store.runs.get(number) for number in (1, 3)]
    store.evaluations.record(pair, EvaluationSettings(), FOUND, "klcli evaluate 1 3 --ensemble")
    for seconds in (1.5, 2.5):
        checks = [NetworkCheck((TrainConfig(lam=lam),), (), CheckSettings(), seconds + lam) for lam in (0.0, 0.1)]
        store.gradient_checks.record(checks, small_dataset, "klcli gradcheck")
    execute(path, "INSERT INTO gradient_errors (check_id, position, tensor, entries, kinks, max_absolute, "
            "relative_to_sum, relative_to_maximum, ratio_of_maxima, gradient_mean, gradient_std, passed) "
            "VALUES (4, 0, 'linear1.W', 5, 0, 1e-9, 1e-8, 1e-7, 1, 0.1, 0.2, 1)")  # fmt: skip
    store.close()
    (three_runs_here / "plots" / "run-000002-000003-curves.svg").write_text("two")
    (three_runs_here / "plots" / "study-000002-lambda.png").write_text("a study")
    (three_runs_here / "plots" / "run-000002-000099.png").write_text("an orphan")
    return path


@pytest.fixture
def here(tmp_path: Path, new_recorder: Callable[[Path], Any]) -> Path:
    """A database with two runs and a study of its own."""
    recorder = new_recorder(tmp_path / "all" / "all.db")
    for number in (recorder.begin(), recorder.begin()):
        recorder.store.runs.finish(number, "complete", None, 1.0)
    recorder.store.close()
    execute(recorder.path, "INSERT INTO studies VALUES (1, 'sigma', NULL, '{}', NULL, 'complete', 'now', NULL)")
    return Path(recorder.path)


def merge(here: Path, *others: Path) -> list[Any]:
    store = Store(here)
    try:
        return [store.upkeep.merge(other) for other in others]
    finally:
        store.close()


def test_everything_comes_along_once(here: Path, other: Path) -> None:
    before = contents(other.parent)
    [merged] = merge(here, other)
    assert contents(other.parent) == before
    assert (merged.runs, merged.known, merged.studies, merged.evaluations, merged.gradient_checks) == (6, 0, 2, 2, 4)
    for table, shown in (("runs", "id > 2"), ("epochs", "1"), ("studies", "id > 1"), ("evaluations", "1"),
                         ("gradient_checks", "1"), ("gradient_errors", "1")):  # fmt: skip
        without = RENUMBERED | {"origin", "origin_run", "owner"} | {*["command"] * (table == "evaluations")}
        new, old = ([{k: v for k, v in row.items() if k not in without} for row in found]
                    for found in (rows(here, table, shown), rows(other, table)))  # fmt: skip
        assert new == old, table
    runs = rows(here, "runs", "id > 2")
    assert [(run["id"], run["study_id"], run["member"], run["origin"], run["origin_run"]) for run in runs] == [
        (3, None, None, str(other), 1), (4, None, None, str(other), 2), (5, None, None, str(other), 3),
        (6, 2, 0, str(other), 4), (7, 2, 1, str(other), 5), (8, 3, 0, str(other), 6),
    ]  # fmt: skip
    assert [epoch["run_id"] for epoch in rows(here, "epochs")] == [3, 4, 5]
    assert [study["parent"] for study in rows(here, "studies")] == [None, None, 2]
    assert sorted(tuple(row.values()) for row in rows(here, "evaluation_runs")) == [(1, 4), (2, 3), (2, 5)]
    evaluated = [row["command"] for row in rows(here, "evaluations")]
    assert evaluated == [f"klcli evaluate {words} --db {here}" for words in ("4 --flips", "3 5 --ensemble")]
    assert [check["suite"] for check in rows(here, "gradient_checks")] == [1, 1, 3, 3]
    assert [error["check_id"] for error in rows(here, "gradient_errors")] == [4]
    for new, old in ((3, 1), (4, 2), (5, 3)):
        copied = here.parent / runs[new - 3]["checkpoint"]
        assert copied == here.parent / f"all-checkpoints/run-{new:06d}.npz"
        assert copied.read_bytes() == (other.parent / f"checkpoints/run-{old:06d}.npz").read_bytes()
    names = {path.name: path.read_text() for path in (here.parent / "all-plots").iterdir()}
    assert names == dict.fromkeys([f"run-{number:06d}.png" for number in (3, 4, 5)], "a picture") | {
        "run-000004-000005-curves.svg": "two", "study-000003-lambda.png": "a study",
    }  # fmt: skip
    store = Store(here)
    damage, orphans = store.upkeep.check()
    assert orphans == []
    assert damage == [f"run {n}: complete, but without a checkpoint" for n in (1, 2, 6, 7, 8)]  # never trained
    store.close()
    # A copy of a copy is the same run, and a second merge changes nothing.
    moved = shutil.copytree(other.parent, other.parent.with_name("moved")) / other.name
    before = contents(here.parent)
    for merged in merge(here, other, moved):
        assert (merged.changes, merged.known, merged.files) == (0, 6, 0)
    assert contents(here.parent) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("klcli search-lambda --fine --from 1 --trials 1", "klcli search-lambda --fine --from 2 --trials 1"),
        ("klcli search-lambda --fine --from=1", "klcli search-lambda --fine --from=2"),
        ("klcli search-lambda --fine --from '1' --seed 1", "klcli search-lambda --fine --from 2 --seed 1"),
        ("Lab('a.db').search_lambda(SearchSettings(fine=1, from_study='1'))",
         "Lab('a.db').search_lambda(SearchSettings(fine=1, from_study=2))"),
        ("klcli search-lambda --fine --from 9", "klcli search-lambda --fine --from 0"),  # it was deleted
        (None, None),
    ],
)  # fmt: skip
def test_the_command_of_a_search_names_the_study_by_its_new_number(
    here: Path, other: Path, old: str | None, new: str | None
) -> None:
    execute(other, "UPDATE studies SET command = ? WHERE id = 2", old)
    merge(here, other)
    assert [(row["parent"], row["command"]) for row in rows(here, "studies", "id = 3")] == [(2, new)]


def test_the_words_of_another_command_are_no_study(here: Path, other: Path) -> None:
    command = "klcli reproduce a3-2024 --note 'taken --from here' --markdown page.md"
    execute(other, "UPDATE studies SET kind = 'reproduce', command = ? WHERE id = 2", command)
    merge(here, other)
    assert [row["command"] for row in rows(here, "studies", "id = 3")] == [command]


@pytest.mark.parametrize(
    ("policy", "samples", "words"),
    [
        ("ema", None, " --bn-statistics ema"),
        ("adaptive", 30, " --bn-statistics adaptive --bn-samples 30"),
        ("adaptive", None, ""),  # those of the training itself, which are not drawn anew
        ("adaptive ema", None, ""),  # of two networks
    ],
)
def test_the_command_of_a_merged_evaluation_has_its_settings(
    here: Path, other: Path, policy: str, samples: int | None, words: str
) -> None:
    used = "bn_statistics = ?, bn_samples = ?, snapshots = 1"
    execute(other, f"UPDATE evaluations SET {used} WHERE flips", policy, samples)
    merge(here, other)
    [row] = rows(here, "evaluations", "flips")
    assert row["command"] == f"klcli evaluate 4 --snapshots{words} --flips --db {here}"


def test_a_run_keeps_its_first_origin(here: Path, other: Path, tmp_path: Path) -> None:
    merge(here, other)
    merge(tmp_path / "more.db", here)
    found = rows(tmp_path / "more.db", "runs")
    assert [(run["origin"], run["origin_run"]) for run in found[:3]] == [
        (str(here), 1),
        (str(here), 2),
        (str(other), 1),
    ]


@pytest.mark.parametrize("kind", ["TEXT", "INTEGER", "TEXT NOT NULL DEFAULT 'none'"])
def test_a_column_that_a_user_has_added_here_gets_no_value(here: Path, other: Path, kind: str) -> None:
    """SQLite takes the name of a column that is not there for a text, if it is in double quotes."""
    for table in ("runs", "epochs", "studies", "evaluations"):
        execute(here, f"ALTER TABLE {table} ADD COLUMN mark {kind}")
    execute(other, "ALTER TABLE runs ADD COLUMN of_theirs INTEGER")
    assert [merged.runs for merged in merge(here, other)] == [6]
    for table, shown in (("runs", "id > 2"), ("epochs", "1"), ("studies", "id > 1"), ("evaluations", "1")):
        expected = "none" if "DEFAULT" in kind else None
        assert {row["mark"] for row in rows(here, table, shown)} == {expected}
    assert "of_theirs" not in rows(here, "runs")[0]


def test_progress_is_taken_over_and_what_is_written_here_stays(here: Path, other: Path) -> None:
    checkpoint = other.parent / "checkpoints/run-000002.npz"
    complete = other.read_bytes(), checkpoint.read_bytes()
    execute_all(other, "UPDATE runs SET state = 'interrupted', error = 'Ctrl-C', epochs_done = 0, test_accuracy = NULL "
            "WHERE id = 2", "DELETE FROM epochs WHERE run_id = 2",
            "UPDATE runs SET state = 'interrupted' WHERE id = 5",
            "UPDATE studies SET state = 'interrupted' WHERE id = 1")  # fmt: skip
    checkpoint.write_bytes(b"earlier")
    merge(here, other)
    execute(here, "UPDATE runs SET note = 'mine', tags = 'best' WHERE id = 4")
    other.write_bytes(complete[0])
    checkpoint.write_bytes(complete[1])
    [merged] = merge(here, other)
    assert (merged.runs, merged.updated, merged.known, merged.files) == (0, 2, 4, 3)  # with two pictures
    [new], [old] = rows(here, "runs", "id = 4"), rows(other, "runs", "id = 2")
    assert (new["note"], new["tags"], new["origin_run"]) == ("mine", "best", 2)
    for name in ("state", "error", "epochs_done", "test_accuracy", "checkpoint_sha256"):
        assert new[name] == old[name]
    assert (here.parent / new["checkpoint"]).read_bytes() == complete[1]
    assert len(rows(here, "epochs", "run_id = 4")) == 1
    assert [study["state"] for study in rows(here, "studies")] == ["complete"] * 3


def test_an_evaluation_of_a_network_that_was_trained_further_here_stays_there(here: Path, other: Path) -> None:
    merge(here, other)
    execute(here, "DELETE FROM evaluations")
    execute(other, "UPDATE runs SET state = 'interrupted', checkpoint_sha256 = 'earlier' WHERE id = 2")
    execute(other, "INSERT OR IGNORE INTO evaluation_runs SELECT id, 1 FROM evaluations WHERE flips = 0")
    [merged] = merge(here, other)
    assert (merged.known, merged.evaluations) == (6, 1)  # that of runs 1 and 3
    assert [row["flips"] for row in rows(here, "evaluations")] == [0]


def test_a_deleted_run_of_a_study_returns_to_its_place(here: Path, other: Path) -> None:
    merge(here, other)
    store = Store(here)
    store.upkeep.delete([6])
    store.close()
    [merged] = merge(here, other)
    assert (merged.runs, merged.studies) == (1, 0)
    assert sorted((run["id"], run["member"]) for run in rows(here, "runs", "study_id = 2")) == [(7, 1), (9, 0)]
    assert [study["settings"] for study in rows(here, "studies")] == ["{}", '{"plan": []}', "{}"]


def repeat(path: Path, study: int, member: int, row: dict[str, Any]) -> None:
    """Delete a run of a study and train it again, as a new run."""
    with closing(Store(path)) as store:
        store.upkeep.delete([one.id for one in store.studies.members(study) if one.member == member])
        store.studies.restart(study, {member: row})
    execute_all(path, f"UPDATE runs SET state = 'complete' WHERE study_id = {study}",
            f"UPDATE studies SET state = 'complete' WHERE id = {study}")  # fmt: skip


@pytest.mark.parametrize("is_here", [False, True], ids=["there", "here"])
def test_a_place_in_a_study_has_one_run_where_that_was_trained_again(
    here: Path, other: Path, small_dataset: Any, is_here: bool
) -> None:
    merge(here, other)
    repeat(*((here, 2) if is_here else (other, 1)), 1, planned(small_dataset, 8)[0])
    mine, theirs = (9, 5) if is_here else (7, 7)
    for _ in range(2):
        [merged] = merge(here, other)
        assert (merged.changes, merged.known) == (0, 5)
        assert [(run["id"], run["member"]) for run in rows(here, "runs", "study_id = 2")] == [(6, 0), (mine, 1)]
        [remark] = merged.remarks
        assert remark.startswith(f"run {theirs} is left out: run {mine}, complete, has its place in study 2")
        cure = re.search(r"`klcli runs (delete \d+) --db (.*)`", remark)
        assert cure is not None
        assert cure.groups() == (f"delete {mine}", str(here))
    with closing(Store(here)) as store:
        store.upkeep.delete([mine])
    assert [merged.runs for merged in merge(here, other)] == [1]
    [run] = rows(here, "runs", "study_id = 2 AND member = 1")
    assert run["origin_run"] == theirs


def test_a_deleted_study_that_returns_is_again_the_parent_of_its_child(here: Path, other: Path, tmp_path: Path) -> None:
    merge(here, other)
    store = Store(here)
    store.upkeep.delete([6, 7])
    store.close()
    assert [study["parent"] for study in rows(here, "studies")] == [None, None]
    assert [merged.studies for merged in merge(here, other, other)] == [1, 0]
    merge(tmp_path / "third.db", here)
    for path in (here, tmp_path / "third.db"):
        [coarse], [fine] = (rows(path, "studies", f"stage = '{stage}'") for stage in ("coarse", "fine"))
        assert (coarse["parent"], fine["parent"]) == (None, coarse["id"])


def test_a_run_that_is_being_trained_is_left_out_with_its_study(here: Path, other: Path) -> None:
    store = Store(other)
    owner = store.locks.take()
    execute_all(other, f"UPDATE runs SET state = 'running', owner = '{owner}' WHERE id IN (1, 5)",
            "UPDATE runs SET state = 'running', owner = 'dead' WHERE id = 6",
            "UPDATE studies SET state = 'running'")  # fmt: skip
    [merged] = merge(here, other)
    store.locks.release(owner)
    store.close()
    assert [remark.partition(":")[0] for remark in merged.remarks] == [f"run {n} is being trained" for n in (1, 5)]
    runs = rows(here, "runs", "id > 2")
    assert [(run["origin_run"], run["state"]) for run in runs] == [(2, "complete"), (3, "complete"), (6, "interrupted")]
    assert rows(here, "studies")[1]["state"] == "interrupted"
    assert [tuple(row.values()) for row in rows(here, "evaluation_runs")] == [(1, 3)]
    [merged] = merge(here, other)
    assert (merged.runs, merged.studies, merged.evaluations, merged.remarks) == (3, 1, 1, [])


@pytest.mark.parametrize("step", ["m011_locks_and_numbers", "m013_origins_of_runs"])
def test_a_database_of_an_older_klcli_is_read_from_a_copy(
    here: Path, tmp_path: Path, small_dataset: Any, step: str
) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite_utils.Database(path)) as db:
        migrations.apply(db, stop_before=step)
        more = {"process_started_at": 1.0} if step.startswith("m011") else {}
        for row in planned(small_dataset, 1, 1):
            db.table("runs").insert(row | more | {"state": "complete"})
        db.conn.commit()
    before = contents(tmp_path)
    assert [merged.runs for merged in merge(here, path, path)] == [2, 0]
    assert contents(tmp_path)[str(path)] == before[str(path)]
    Store(path).close()  # migrated in place by its owner, it has the same runs
    assert [merged.known for merged in merge(here, path)] == [2]


def test_no_other_process_writes_while_a_database_is_copied(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copyfileobj, locked = shutil.copyfileobj, list[bool]()

    def copied(*files: Any) -> None:
        copyfileobj(*files)
        locked.append(is_locked(other))

    monkeypatch.setattr(shutil, "copyfileobj", copied)
    database = Database(other, is_copied=True)
    assert database.copy is not None
    folder = database.copy.file.parent
    assert locked == [True]
    assert not is_locked(other)
    database.close()
    assert not folder.exists()


def test_what_fails_in_the_middle_leaves_no_part(
    here: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(files: list[Copy]) -> None:
        copy_files([*files[:2], *((tmp_path / "missing.npz", target) for _, target in files[2:3])])

    before = contents(here.parent)
    with monkeypatch.context() as patch, pytest.raises(StoreError, match=r"missing\.npz: cannot be read"):
        patch.setattr("klcli.store.merging.copy_files", copy)
        merge(here, other)
    assert contents(here.parent) == before
    assert [merged.runs for merged in merge(here, other)] == [6]


@pytest.mark.parametrize("content", [None, b"a text that is no database" * 100])
def test_what_is_no_database_is_named(here: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"x\.db: "):
        merge(here, path)


def test_a_checkpoint_outside_or_missing_is_a_remark(here: Path, other: Path) -> None:
    execute(other, "UPDATE runs SET checkpoint = '../../etc/passwd' WHERE id = 1")
    (other.parent / "checkpoints/run-000002.npz").unlink()
    (other.parent / "checkpoints/run-000003.npz").unlink()
    (other.parent / "checkpoints/run-000003.npz").symlink_to("/etc/passwd")
    [merged] = merge(here, other)
    assert [remark.partition(" ")[2][:2] for remark in merged.remarks][1:] == ["2:", "3:"]
    assert "passwd" in merged.remarks[0]
    assert list((here.parent / "all-checkpoints").glob("*")) == []
    assert [run["checkpoint"] is None for run in rows(here, "runs", "id IN (3, 4, 5)")] == [True, False, False]


@pytest.fixture
def fifty(tmp_path: Path, new_recorder: Callable[[Path], Any]) -> list[Path]:
    """Fifty databases of 20 runs of 20 epochs, each with a checkpoint of 0.5 MB and a picture."""
    first = tmp_path / "s00" / "klcli.db"
    recorder = new_recorder(first)
    for seed in range(20):
        recorder.store.runs.finish(recorder.begin(seed=seed), "complete", None, 1.0)
    recorder.store.close()
    execute_all(first, "UPDATE runs SET checkpoint = printf('checkpoints/run-%06d.npz', id)",
            "WITH RECURSIVE n(e) AS (SELECT 1 UNION ALL SELECT e + 1 FROM n WHERE e < 20) INSERT INTO epochs "
            "SELECT id, e, 450 * e, 0.1, 1, 1, 0.5, 1, 1, 0.5, 1 FROM runs, n")  # fmt: skip
    for kind, ending, size in (("checkpoints", "npz", 500_000), ("plots", "png", 80_000)):
        (first.parent / kind).mkdir()
        for number in range(1, 21):
            (first.parent / kind / f"run-{number:06d}.{ending}").write_bytes(number.to_bytes() * size)
    found = [first]
    for number in range(1, 50):
        folder = shutil.copytree(first.parent, tmp_path / f"s{number:02d}", copy_function=os.link)
        (folder / first.name).unlink()
        shutil.copy(first, folder)
        execute(folder / first.name, f"UPDATE runs SET identity = identity || '-{number}'")
        found.append(folder / first.name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="hard links and signals as POSIX has them")
def test_fifty_databases_take_seconds_and_a_kill_loses_nothing(fifty: list[Path], tmp_path: Path) -> None:
    here = tmp_path / "all" / "klcli.db"
    with subprocess.Popen(
        [sys.executable, "-m", "klcli", "runs", "merge", *map(str, fifty), "--db", str(here)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while not here.exists() or not rows(here, "sqlite_master", "name = 'runs'") or len(rows(here, "runs")) < 100:
            assert process.poll() is None
        process.kill()
    killed = Counter(run["origin"] for run in rows(here, "runs"))
    assert set(killed.values()) == {20}
    assert 5 <= len(killed) < 50
    started = time.monotonic()
    merge(tmp_path / "few" / "klcli.db", *fifty[:5])
    few = time.monotonic() - started
    started = time.monotonic()
    merged = merge(here, *fifty)
    assert time.monotonic() - started < max(10, 20 * few)  # ten times as many
    assert [one.runs for one in merged] == [0 if str(path) in killed else 20 for path in fifty]
    runs = rows(here, "runs")
    assert Counter(run["origin"] for run in runs) == dict.fromkeys(map(str, fifty), 20)
    assert len(rows(here, "epochs")) == 20_000
    for run in runs:
        assert (here.parent / run["checkpoint"]).read_bytes()[:1] == run["origin_run"].to_bytes()
    assert [one.changes for one in merge(here, *fifty)] == [0] * 50
