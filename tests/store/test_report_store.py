"""Queries and upkeep, compared with the sqlite3 module and the file system."""

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import sqlite_utils
from raw_sql import dicts, execute

from klcli.errors import ConfigError, StoreError
from klcli.procedures.run_lookup import best_runs, chosen_run, chosen_study, images_of_run
from klcli.report.views import latest_study
from klcli.store.records import BEST_FIRST, NEWEST_FIRST, Order, RunFilter
from klcli.store.schema import migrations
from klcli.store.store import Store
from klcli.text import csv_cell

STORED = (
    *("runs", "epochs", "studies", "gradient_checks", "gradient_errors", "evaluations", "evaluation_runs"),
    "best_runs",
)


@pytest.fixture
def five(recorder: Any) -> Iterator[Store]:
    """Runs 1 to 5; 1 to 3 complete on the same images, 4 complete on a subset of them, 5 diverged."""
    for number in range(1, 6):
        run = recorder.begin(lam=0.1 * number, batch_norm=number == 2, seed=number)
        state = "diverged" if number == 5 else "complete"
        execute(
            recorder.path,
            "UPDATE runs SET state = ?, validation_accuracy = ?, started_at = ? WHERE id = ?",
            state,
            None if number == 5 else number / 10,
            f"2026-01-0{number}T00:00:00+00:00",
            run,
        )
    execute(recorder.path, "UPDATE runs SET config = json_set(config, '$.split.subset', 900) WHERE id = 4")
    store = Store(recorder.path)
    yield store
    store.close()


def ids(store: Store, order: Order = BEST_FIRST, limit: int | None = None, **conditions: Any) -> list[int]:
    return [run.id for run in store.runs.query(RunFilter(**conditions), order, limit)]


def test_filters_are_conditions(five: Store) -> None:
    assert ids(five, state="complete") == [4, 3, 2, 1]
    assert ids(five, state="complete", limit=2) == [4, 3]
    assert ids(five, batch_norm=True) == [2]
    assert ids(five, batch_norm=False, state="complete") == [4, 3, 1]
    assert ids(five, since="2026-01-03T00:00:00+00:00") == [4, 3, 5]
    config = five.runs.get(3).config
    assert ids(five, hidden=config.hidden, lam=config.lam, seed=config.seed) == [3]
    assert ids(five, hidden=(51,)) == ids(five, seed=99) == ids(five, lam=config.lam / 2) == []
    assert ids(five, where='"lambda" < 0.25 AND seed > 1') == [2]
    assert ids(five, where="1 -- all of them", state="diverged") == [5]


def test_runs_without_a_value_come_last_in_both_directions(five: Store) -> None:
    assert ids(five, Order("validation_accuracy", descending=True)) == [4, 3, 2, 1, 5]
    assert ids(five, Order("validation_accuracy", descending=False)) == [1, 2, 3, 4, 5]


def test_images_divided_differently_are_told_apart_the_most_used_first(five: Store) -> None:
    found = five.runs.image_sets(RunFilter(state="complete"))
    assert [(one.runs, one.latest) for one in found] == [(3, 3), (1, 4)]
    assert [run.id for run in five.runs.query(RunFilter(state="complete").on_images_of(found[1]), BEST_FIRST)] == [4]


@pytest.mark.parametrize("trial", ["subset = 900", "train_batches = json('[1]')", "train_batches = json('[1, 3]')"])
def test_trials_on_a_part_of_the_images_do_not_hide_the_one_on_all(five: Store, trial: str) -> None:
    """Three trials, and a better accuracy in each of them."""
    name, value = trial.split(" = ")
    config = f"json_set(config, '$.split.{name}', {value})"
    execute(five.path, "UPDATE runs SET config = json_remove(config, '$.split.subset')")
    execute(five.path, f"UPDATE runs SET config = {config} WHERE id IN (2, 3, 4)")
    found = five.runs.image_sets(RunFilter(state="complete"))
    assert [(one.runs, one.latest) for one in found] == [(1, 1), (3, 4)]
    assert [run.id for run in best_runs(five, 9, RunFilter())] == [1]
    execute(five.path, f"UPDATE runs SET config = {config} WHERE id = 1")
    assert [run.id for run in best_runs(five, 9, RunFilter())] == [4, 3, 2, 1]  # nothing else is there


def test_a_split_of_an_older_klcli_is_the_same_split(five: Store) -> None:
    """It lacks the settings that are younger, or has them in another order."""
    execute(five.path, "UPDATE runs SET config = json_remove(config, '$.split.split_seed') WHERE id IN (1, 4)")
    first = "json_object('subset', NULL, 'validation', 5000)"
    execute(five.path, f"UPDATE runs SET config = json_set(config, '$.split', {first}) WHERE id = 2")
    found = five.runs.image_sets(RunFilter(state="complete"))
    assert [(one.runs, one.latest) for one in found] == [(3, 3), (1, 4)]
    ranked = five.runs.query(RunFilter(state="complete").on_images_of(found[0]), BEST_FIRST)
    assert [run.id for run in ranked] == [3, 2, 1]
    assert [run.id for run in best_runs(five, 9, RunFilter(where="id < 4"))] == [3, 2, 1]
    assert {images_of_run(five, five.runs.get(number)).latest for number in (1, 2, 3)} == {5}


def test_the_newest_is_the_one_that_began_last(recorder: Any) -> None:
    """After a merge, older ones have higher numbers; of those of one second, the higher number counts."""
    days = ("2026-05-01", "2026-05-03", "2026-05-02", "2026-05-03")
    study = "INSERT INTO studies VALUES (?, 'sigma', NULL, ?, NULL, ?, ?, NULL)"
    for number, day in enumerate(days, start=1):
        state = "interrupted" if number == 4 else "complete"
        recorder.store.runs.finish(recorder.begin(), state, None, 1.0)
        execute(recorder.path, "UPDATE runs SET started_at = ? WHERE id = ?", day, number)
        plan = json.dumps({"plan": [{"split": {"train_batches": [1] * (number == 4)}}]})
        execute(recorder.path, study, number, plan, state, day)
    store = recorder.store
    names = {"last": 2, "-1": 4, "-2": 2, "-3": 3, "-4": 1, "3": 3}
    assert {name: chosen_run(store, name).id for name in names} == names
    assert {name: chosen_study(store, name).id for name in names} == names
    assert [run.id for run in store.runs.query(RunFilter(), NEWEST_FIRST)] == [4, 2, 3, 1]
    assert latest_study(store, "sigma") == 2  # the newest on all training images


@pytest.mark.parametrize(
    "where",
    [
        "nonsense >",
        "no_such_column = 1",
        "1; DROP TABLE runs",
        "1) ; DELETE FROM runs; --",
        "id IN (DELETE FROM runs RETURNING id)",
        "load_extension('evil')",
        "1 = (SELECT writefile('x', 'y'))",
        "id IN (SELECT 1 FROM pragma_writable_schema)",
        "",
    ],
)
def test_a_condition_can_only_read(five: Store, where: str) -> None:
    with pytest.raises(ConfigError, match="--where"):
        ids(five, where=where)
    assert len(ids(five)) == 5
    five.upkeep.set_note([1], "the connection can write again")


def test_a_condition_that_is_too_large_does_not_count_as_damage(five: Store) -> None:
    with pytest.raises(ConfigError, match=r"--where .*without end .*too big.*; it is an SQL condition"):
        ids(five, where="length(zeroblob(1e10)) > 1")
    assert len(ids(five)) == 5


@pytest.mark.slow
def test_a_condition_that_needs_more_memory_than_there_is(five: Store) -> None:
    script = (
        "import sqlite3, sys; from pathlib import Path; from klcli.store.store import Store\n"
        "from klcli.store.records import BEST_FIRST, RunFilter\n"
        "store = Store(Path(sys.argv[1])); sqlite3.connect('').execute('PRAGMA hard_heap_limit = 10000000')\n"
        "store.runs.query(RunFilter(where='length(hex(zeroblob(20000000))) > 0'), BEST_FIRST)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(five.path)], capture_output=True, text=True, check=False)
    [*_, last] = done.stderr.splitlines()
    assert last.startswith("klcli.errors.ConfigError: --where 'length(hex(") and "without end (out of memory)" in last


def test_an_unknown_column_to_sort_by(five: Store) -> None:
    with pytest.raises(ConfigError, match=r"--sort id; DROP.*validation_accuracy"):
        ids(five, Order("id; DROP TABLE runs", descending=False))


def test_notes_and_tags(five: Store) -> None:
    five.upkeep.set_note([1], "a 'note' with \"quotes\" and <b>")
    five.upkeep.add_tag([1], "baseline")
    five.upkeep.add_tag([1], "thesis")
    five.upkeep.add_tag([1], "baseline")
    assert execute(five.path, "SELECT note, tags FROM runs WHERE id = 1") == [
        ("a 'note' with \"quotes\" and <b>", "thesis baseline")
    ]
    assert ids(five, tag="baseline") == [1]
    assert ids(five, tag="base") == []
    five.upkeep.remove_tag([1], "thesis")
    five.upkeep.remove_tag([1], "baseline")
    five.upkeep.set_note([1], "")
    assert execute(five.path, "SELECT note, tags FROM runs WHERE id = 1") == [(None, None)]
    for deed in (
        lambda: five.upkeep.add_tag([1], "two words"),
        lambda: five.upkeep.add_tag([1], ""),
        lambda: five.upkeep.remove_tag([1], "x"),
    ):
        with pytest.raises(ConfigError, match="tag"):
            deed()
    with pytest.raises(StoreError, match="no run 99"):
        five.upkeep.set_note([99], "x")


def test_deleting_a_run_removes_all_that_is_its_own(three_runs_here: Path) -> None:
    store = Store(three_runs_here / "klcli.db")
    plots = three_runs_here / "plots"
    (plots / "run-000002-weights.svg").write_text("x")
    (plots / "run-0000020.png").write_text("of another run")
    (plots / "run-000001-000003-curves.png").write_text("of two others")
    (plots / "run-000001-000002-curves.png").write_text("of this and another")
    files = store.upkeep.delete([2])
    assert sorted(path.name for path in files) == [
        "run-000001-000002-curves.png", "run-000002-weights.svg", "run-000002.npz", "run-000002.png",
    ]  # fmt: skip
    assert (plots / "run-000001-000003-curves.png").exists()
    assert not any(path.exists() for path in files)
    assert (plots / "run-0000020.png").exists()
    assert execute(store.path, "SELECT id FROM runs") == [(1,), (3,)]
    assert execute(store.path, "SELECT DISTINCT run_id FROM epochs ORDER BY 1") == [(1,), (3,)]
    with pytest.raises(StoreError, match="no run 2"):
        store.upkeep.delete([1, 2])
    assert execute(store.path, "SELECT count(*) FROM runs") == [(2,)]  # all or nothing
    store.close()


def test_a_run_that_is_being_trained_is_not_deleted(recorder: Any) -> None:
    run = recorder.begin()
    with pytest.raises(ConfigError, match="is training it"):
        Store(recorder.path).upkeep.delete([run])


def test_a_run_that_continues_while_its_deletion_waits_is_not_deleted(three_runs_here: Path) -> None:
    network, database = three_runs_here / "checkpoints" / "run-000001.npz", three_runs_here / "klcli.db"
    opened = Event()

    def delete() -> None:
        with closing(Store(database)) as store:
            opened.set()
            store.upkeep.delete([1])

    with closing(sqlite3.connect(database, isolation_level=None)) as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN IMMEDIATE")
        deletion = pool.submit(delete)
        opened.wait(20)
        time.sleep(0.5)  # it waits for the lock
        other.execute("UPDATE runs SET state = 'running' WHERE id = 1")
        other.execute("COMMIT")
        with pytest.raises(ConfigError, match=r"delete 1: process .* end that first"):
            deletion.result()
    assert network.exists()
    assert execute(database, "SELECT count(*) FROM runs") == [(3,)]


def test_a_study_knows_what_it_lost(five: Store) -> None:
    execute(
        five.path,
        "INSERT INTO studies VALUES (7, 'lambda', 'coarse', '{\"plan\": [{}, {}]}', NULL, 'complete', 'now', NULL)",
    )
    execute(five.path, "UPDATE runs SET study_id = 7, member = id - 1 WHERE id IN (1, 2)")
    plots = five.path.parent / "plots"
    plots.mkdir(exist_ok=True)
    drawn = {plots / f"study-{number}.png" for number in ("000007-lambda", "000007-a3-2021-000-F1", "000008-lambda")}
    for picture in drawn:
        picture.write_text("a study")
    five.upkeep.delete([2])
    assert five.studies.deletions(five.studies.all()) == ["1 run was deleted from study 7"]
    assert {*plots.glob("study*")} == drawn
    assert {*five.upkeep.delete([1])} >= {one for one in drawn if "000007" in one.name}
    assert execute(five.path, "SELECT count(*) FROM studies") == [(0,)]
    assert [one.name for one in plots.glob("study*")] == ["study-000008-lambda.png"]


def test_an_export_reads_back_to_what_is_stored(three_runs_here: Path, tmp_path: Path) -> None:
    store = Store(three_runs_here / "klcli.db")
    store.upkeep.set_note([1], 'commas, "quotes"\nand lines')
    written = store.upkeep.export(tmp_path / "out")
    assert set(written) == {f"{name}.csv" for name in STORED}
    for name in ("runs", "epochs"):
        with (tmp_path / "out" / f"{name}.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        stored = dicts(store.path, f"SELECT * FROM {name}")
        assert len(found) == len(stored) == written[f"{name}.csv"]
        for row, expected in zip(found, stored, strict=True):
            for key, value in expected.items():
                assert (float(row[key]) if isinstance(value, float) else row[key]) == (
                    value if isinstance(value, float) else "" if value is None else str(value)
                )
    store.close()


def test_an_export_has_every_kind_of_value(three_runs_here: Path, tmp_path: Path) -> None:
    """Every kind of value, alone and mixed in one column, over more rows than are written at once."""
    path = three_runs_here / "klcli.db"
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE numbers (whole INTEGER, real REAL NOT NULL, rare REAL, word TEXT, mixed ANY) STRICT"
    )
    connection.execute("CREATE TABLE alone (word TEXT) STRICT")
    reals = (0.1, -0.0, 0.0, 1e-05, 5e-324, 1.7976931348623157e308, float("inf"), 1e16, 2 / 3, 123456789.125)
    words = (
        *("=1+1", "-0.5", "-x", "@a", ' "q"', "a,b", "two\nlines", "a\tb"),
        *("\r", "\x1b[2J", "\u202e", "", None, "é", "'"),
    )
    mixed = (1, 1.0, True, "1", "1.0", None, b"a,b", b"\x00", 0.0, -0.0, 0, "=x", "complete")
    rows = [
        (i * 7**9, reals[i % 10] * (1 + i // 10 / 7), reals[i % 7] if i % 11 else None, words[i % 15], mixed[i % 13])
        for i in range(2500)
    ]
    connection.executemany("INSERT INTO numbers VALUES (?, ?, ?, ?, ?)", rows)
    connection.executemany("INSERT INTO alone VALUES (?)", [(word,) for word in words])
    connection.commit()
    store = Store(path)
    written = store.upkeep.export(tmp_path)
    store.close()
    for file, count in written.items():
        cursor = connection.execute(f"SELECT * FROM {file.removesuffix('.csv')}")
        there = cursor.fetchall()
        with (tmp_path / file).open(newline="", encoding="utf-8") as text:
            head, *found = csv.reader(text)
        assert head == [name for name, *_ in cursor.description]
        assert len(found) == len(there) == count
        for cells, values in zip(found, there, strict=True):
            for cell, value in zip(cells, values, strict=True):
                number = type(value) in (int, float)
                stored = value if number else "" if value is None else str(csv_cell(value))
                assert (type(value)(cell) if number else cell) == stored, file
    with (tmp_path / "numbers.csv").open(newline="") as numbers:
        found = [float(row["real"]) for row in csv.DictReader(numbers)]
    assert found == [real for (real,) in connection.execute("SELECT real FROM numbers")] == [row[1] for row in rows]
    connection.close()


def test_an_export_that_fails_replaces_no_file(three_runs_here: Path, tmp_path: Path) -> None:
    store = Store(three_runs_here / "klcli.db")
    written = store.upkeep.export(tmp_path / "out")
    assert [*written] == sorted(file.name for file in (tmp_path / "out").iterdir())
    execute(three_runs_here / "klcli.db", "CREATE VIEW broken AS SELECT gone FROM runs")
    before = {file: file.stat().st_ino for file in (tmp_path / "out").iterdir()}
    with pytest.raises(StoreError, match="no such column"):
        store.upkeep.export(tmp_path / "out")
    assert {file: file.stat().st_ino for file in (tmp_path / "out").iterdir()} == before
    store.close()


def test_a_folder_that_cannot_be_written(three_runs_here: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    store = Store(three_runs_here / "klcli.db")
    with pytest.raises(StoreError, match="choose a folder that can be written"):
        store.upkeep.export(tmp_path / "taken")
    store.close()


def test_an_export_of_tables_replaces_exports_alone(three_runs_here: Path, tmp_path: Path) -> None:
    store, out = Store(three_runs_here / "klcli.db"), tmp_path / "out"
    store.upkeep.export(out)
    (out / "runs.csv").write_text("id,config\n")  # of an older klcli
    store.upkeep.export(out)
    assert len((out / "runs.csv").read_text().splitlines()) == 4
    (out / "epochs.csv").write_text("my own numbers\n")
    before = {file: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(ConfigError, match=r"epochs\.csv: this file is no export"):
        store.upkeep.export(out)
    assert {file: file.read_bytes() for file in out.iterdir()} == before
    store.close()


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_list_of_runs_that_was_saved_is_no_export(
    three_runs_here: Path, tmp_path: Path, answer: Callable[..., tuple[int, str, str]], bom: str
) -> None:
    """Its first column is the one of the table, the others are not."""
    db = str(three_runs_here / "klcli.db")
    code, listed, _ = answer("report", "--list", "--format", "csv", "--db", db)
    assert code == 0 and listed.startswith("id,")
    (out := tmp_path / "out").mkdir()
    (out / "runs.csv").write_text(bom + listed)
    code, _, said = answer("runs", "export", "--tables", str(out), "--db", db)
    assert code == 2 and "runs.csv: this file is no export" in said
    assert [file.name for file in out.iterdir()] == ["runs.csv"]
    assert (out / "runs.csv").read_text() == bom + listed
    for content in ("", "\n", "id\tconfig\n", "config,id\n", '"id,config"\n'):
        (out / "runs.csv").write_text(content)
        assert answer("runs", "export", "--tables", str(out), "--db", db)[0] == 2, content


def test_a_table_whose_columns_need_quotes_is_exported_twice(three_runs_here: Path, tmp_path: Path) -> None:
    execute(three_runs_here / "klcli.db", 'CREATE TABLE mine ("a,b", "c ""d""", "=e", "f\ng")')
    store = Store(three_runs_here / "klcli.db")
    for _ in range(2):
        assert store.upkeep.export(tmp_path / "out")["mine.csv"] == 0
    store.close()


@pytest.mark.parametrize("name", ["../runs", "{}/runs", "a/b"])
def test_no_table_is_exported_into_another_folder(three_runs_here: Path, tmp_path: Path, name: str) -> None:
    """The names of tables of a database from elsewhere are anything."""
    execute(three_runs_here / "klcli.db", f'CREATE TABLE "{name.format(tmp_path)}" (id)')
    store = Store(three_runs_here / "klcli.db")
    with pytest.raises(StoreError, match="a table is named"):
        store.upkeep.export(tmp_path / "out")
    assert not [*tmp_path.rglob("*.csv")]
    store.close()


def test_a_sound_database(three_runs_here: Path) -> None:
    assert Store(three_runs_here / "klcli.db").upkeep.check() == ([], [])


def test_damage_and_orphans_are_found(three_runs_here: Path) -> None:
    checkpoints = three_runs_here / "checkpoints"
    (checkpoints / "run-000001.npz").unlink()
    shutil.copy(checkpoints / "run-000003.npz", checkpoints / "run-000002.npz")  # sound, but another network
    content = bytearray((checkpoints / "run-000003.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (checkpoints / "run-000003.npz").write_bytes(content)
    (checkpoints / "run-000009.npz").write_text("x")
    (three_runs_here / "plots" / "run-000009-weights.png").write_text("x")
    (three_runs_here / "plots" / "run-000001-000009-curves.png").write_text("x")
    (three_runs_here / "plots" / "run-000001-000003-curves.png").write_text("of runs that are there")
    (three_runs_here / "plots" / "study-000004.png").write_text("x")
    (three_runs_here / "plots" / "gradcheck-000004.png").write_text("x")
    (three_runs_here / "plots" / "mine.png").write_text("of no concern")
    execute(
        three_runs_here / "klcli.db",
        "INSERT INTO epochs SELECT 77, epoch, step, 0, 0,0,0, 0,0,0, 0 FROM epochs LIMIT 1",
    )
    damage, orphans = Store(three_runs_here / "klcli.db").upkeep.check()
    assert len(damage) == 4
    for words in ("missing", "not the one of run 2", "damaged", "row of runs that is gone"):
        assert any(words in line for line in damage)
    assert sorted(Path(one.split(":")[0]).name for one in orphans) == [
        "gradcheck-000004.png", "run-000001-000009-curves.png", "run-000009-weights.png", "run-000009.npz",
        "study-000004.png",
    ]  # fmt: skip


def test_what_other_processes_train_and_delete_during_a_check_is_no_orphan(
    three_runs_here: Path, new_recorder: Callable[[Path], Any]
) -> None:
    """The check of all contents takes minutes."""
    checkpoints, plots = three_runs_here / "checkpoints", three_runs_here / "plots"
    other = new_recorder(three_runs_here / "klcli.db")

    def train_and_delete(_: object) -> None:
        if not (checkpoints / "run-000004.npz").exists():
            assert other.begin() == 4
            shutil.copy(checkpoints / "run-000003.npz", checkpoints / "run-000004.npz")
            (plots / "run-000004.png").write_text("a picture")
            assert len(other.store.upkeep.delete([3])) == 2

    with closing(other.store), closing(Store(three_runs_here / "klcli.db")) as store:
        assert store.upkeep.check(None, train_and_delete) == ([], [])
        # Of a run that is being trained, the file is there before its row names it.
        assert store.upkeep.check() == ([], [])
        (checkpoints / "run-000004.npz").rename(checkpoints / "run-000004.previous.npz")
        assert store.upkeep.check() == ([], [])
        execute(store.path, "UPDATE runs SET state = 'failed' WHERE id = 4")
        [orphan] = store.upkeep.check()[1]
        assert orphan.startswith(str(checkpoints / "run-000004.previous.npz"))


@pytest.mark.parametrize("name", ["klcli.db", "renamed.db"])
def test_contents_are_read_of_the_newest_checkpoints_and_of_suspicious_files(three_runs_here: Path, name: str) -> None:
    """Also of a database that was renamed with its folder."""
    folder = three_runs_here / ("checkpoints" if name == "klcli.db" else "renamed-checkpoints")
    (three_runs_here / "klcli.db").rename(three_runs_here / name)
    (three_runs_here / "checkpoints").rename(folder)
    read = list[int]()
    for number in (1, 3):
        content = bytearray((folder / f"run-00000{number}.npz").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / f"run-00000{number}.npz").write_bytes(content)
    store = Store(three_runs_here / name)
    assert store.upkeep.check(0, read.append) == ([], [])
    assert read == []
    [newest], _ = store.upkeep.check(1, read.append)
    assert newest.startswith("run 3: ") and "damaged" in newest
    assert len(store.upkeep.check(2)[0]) == 1
    assert (
        [one[:7] for one in store.upkeep.check(9)[0]]
        == [one[:7] for one in store.upkeep.check()[0]]
        == ["run 1: ", "run 3: "]
    )

    (folder / "run-000001.npz").write_bytes(b"")
    (folder / "run-000002.npz").unlink()
    (folder / "run-000003.npz").rename(folder / "run-000004.npz")
    os.mkfifo(folder / "run-000003.npz")
    damage, [orphan] = store.upkeep.check(0)
    assert orphan.startswith(str(folder / "run-000004.npz"))
    for line, words in zip(damage, ("damaged", "run-000002.npz: this checkpoint is missing", "a pipe"), strict=True):
        assert words in line
    (folder / "run-000003.npz").unlink()
    execute(store.path, "UPDATE runs SET checkpoint = '../run-000003.npz' WHERE id = 3")
    assert "names the file" in store.upkeep.check(0)[0][2]
    execute(store.path, "UPDATE runs SET checkpoint = NULL WHERE id = 3")
    assert store.upkeep.check(0)[0][2] == "run 3: complete, but without a checkpoint"
    store.close()


def test_a_previous_checkpoint_is_no_orphan_and_replaces_that_of_an_unfinished_run(three_runs_here: Path) -> None:
    folder = three_runs_here / "checkpoints"
    (folder / "run-000002.npz").rename(folder / "run-000002.previous.npz")
    store = Store(three_runs_here / "klcli.db")
    assert [len(found) for found in store.upkeep.check(0)] == [1, 0]
    execute(store.path, "UPDATE runs SET state = 'interrupted' WHERE id = 2")
    assert store.upkeep.check(0) == ([], [])
    store.close()


def test_a_renamed_database_keeps_its_checkpoints(three_runs_here: Path) -> None:
    (three_runs_here / "klcli.db").rename(three_runs_here / "thesis.db")
    store = Store(three_runs_here / "thesis.db")
    assert store.upkeep.check(0) == store.upkeep.check() == ([], [])
    (three_runs_here / "checkpoints/run-000001.npz").unlink()
    [damage] = store.upkeep.check(0)[0]
    assert damage == f"run 1: {three_runs_here / 'checkpoints/run-000001.npz'}: this checkpoint is missing"
    store.close()


def test_a_database_whose_folder_was_renamed_too_keeps_its_checkpoints(three_runs_here: Path) -> None:
    for old, new in (("klcli.db", "thesis.db"), ("checkpoints", "thesis-checkpoints"), ("plots", "thesis-plots")):
        (three_runs_here / old).rename(three_runs_here / new)
    with closing(Store(three_runs_here / "thesis.db")) as store:
        assert store.upkeep.check() == ([], [])
        store.runs.checkpoint(store.runs.get(1))
        store.upkeep.delete([1])
        assert not (three_runs_here / "thesis-checkpoints/run-000001.npz").exists()
        with closing(Store(three_runs_here / "all.db")) as other:
            assert other.upkeep.merge(store.path).files == 4
            assert other.upkeep.check() == ([], [])


def test_a_database_that_was_moved_without_its_folder_says_what_to_move(three_runs_here: Path, tmp_path: Path) -> None:
    moved = (three_runs_here / "klcli.db").rename(tmp_path / "klcli.db")
    with closing(Store(moved)) as store:
        where = f"{tmp_path / 'checkpoints'}: this folder of checkpoints is missing, move it beside the database"
        assert store.upkeep.check() == ([where], [])
        with pytest.raises(StoreError, match="move its folder beside the database"):
            store.runs.checkpoint(store.runs.get(1))
        (three_runs_here / "checkpoints").rename(tmp_path / "checkpoints")
        assert store.upkeep.check() == ([], [])


def test_files_of_a_renamed_database_are_no_orphans_of_a_new_one(three_runs_here: Path) -> None:
    (three_runs_here / "klcli.db").rename(three_runs_here / "thesis.db")
    (three_runs_here / "notes.db").write_text("no database")
    with closing(Store(three_runs_here / "klcli.db")) as store:
        assert store.upkeep.check() == ([], [])
        (three_runs_here / "thesis.db").unlink()
        assert len(store.upkeep.check()[1]) == 6


def test_a_copy_of_a_database_deletes_no_network_of_the_original(three_runs_here: Path) -> None:
    """Both name the same files, until one of them has deleted its run; then the other deletes the file as well."""
    shutil.copyfile(three_runs_here / "klcli.db", three_runs_here / "backup.db")
    with closing(Store(three_runs_here / "klcli.db")) as store, closing(Store(three_runs_here / "backup.db")) as backup:
        for run_id, first, second in ((1, backup, store), (2, store, backup)):
            network = three_runs_here / f"checkpoints/run-{run_id:06d}.npz"
            first.upkeep.delete([run_id])
            second.runs.checkpoint(second.runs.get(run_id))
            assert first.upkeep.check() == second.upkeep.check() == ([], [])
            second.upkeep.delete([run_id])
            assert not network.exists()


def test_a_copy_of_a_database_with_its_folder_has_no_orphans(three_runs_here: Path) -> None:
    shutil.copyfile(three_runs_here / "klcli.db", three_runs_here / "backup.db")
    shutil.copytree(three_runs_here / "checkpoints", three_runs_here / "backup-checkpoints")
    with closing(Store(three_runs_here / "backup.db")) as store:
        assert store.upkeep.check() == ([], [])


def test_a_database_of_another_suffix_is_no_owner_of_orphans(three_runs_here: Path) -> None:
    (three_runs_here / "klcli.db").rename(three_runs_here / "klcli.sqlite")
    with closing(Store(three_runs_here / "klcli.sqlite")) as store, closing(Store(three_runs_here / "klcli.db")) as new:
        assert store.upkeep.check() == new.upkeep.check() == ([], [])


def test_the_view_ranks_each_set_of_images_for_itself(five: Store) -> None:
    assert execute(five.path, "SELECT place, run, batch_normalisation FROM best_runs ORDER BY split, place") == [
        (1, 4, "no"),  # the split with a subset
        (1, 3, "no"),
        (2, 2, "yes"),
        (3, 1, "no"),
    ]


def test_the_view_ranks_what_the_command_line_ranks(five: Store) -> None:
    """Without range tests and quirks; a split of an older klcli, with fewer settings, is the same split."""
    execute(five.path, "UPDATE runs SET schedule = 'range' WHERE id = 3")
    execute(five.path, "UPDATE runs SET config = json_remove(config, '$.split.split_seed') WHERE id = 2")
    execute(
        five.path,
        "INSERT INTO studies (id, kind, settings, state, created_at) VALUES "
        "(1, 'reproduce', '{\"method\": \"random biases\"}', 'complete', ''), (2, 'repeats', '{}', 'complete', '')",
    )
    for number, study in ((6, 1), (7, 2)):
        execute(five.path, "CREATE TABLE copy AS SELECT * FROM runs WHERE id = 1")
        execute(
            five.path,
            "UPDATE copy SET id = ?, study_id = ?, identity = ?, validation_accuracy = 0.9",
            number,
            study,
            str(number),
        )
        names = ", ".join(f'"{row[1]}"' for row in execute(five.path, "PRAGMA table_info(runs)"))
        execute(five.path, f"INSERT INTO runs ({names}) SELECT {names} FROM copy")
        execute(five.path, "DROP TABLE copy")
    images = five.runs.image_sets(RunFilter(state="complete"))
    shown = [
        (place, run)
        for one in images
        for place, run in enumerate(ids(five, **vars(RunFilter(state="complete").on_images_of(one))), start=1)
    ]
    assert sorted(shown) == sorted([(1, 7), (2, 2), (3, 1), (1, 4)])
    assert sorted(execute(five.path, "SELECT place, run FROM best_runs")) == sorted(shown)


def test_the_view_of_an_older_klcli_ranks_so_too_and_that_of_a_user_stays(five: Store, tmp_path: Path) -> None:
    old, own = tmp_path / "old.db", tmp_path / "own.db"
    with closing(sqlite_utils.Database(old)) as db:
        migrations.apply(db)
        db.conn.commit()
    assert "range" not in execute(old, "SELECT sql FROM sqlite_master WHERE name = 'best_runs'")[0][0]
    shutil.copyfile(old, own)
    execute(own, "DROP VIEW best_runs")
    execute(own, "CREATE VIEW best_runs AS SELECT id FROM runs")
    for path in (old, own, own):
        Store(path).close()
    definition = "SELECT sql FROM sqlite_master WHERE name = 'best_runs'"
    assert execute(old, definition) == execute(five.path, definition)
    assert execute(own, definition) == [("CREATE VIEW best_runs AS SELECT id FROM runs",)]


def test_a_ranking_follows_an_index(five: Store) -> None:
    condition, parameters = RunFilter(dataset_sha256="a" * 64, splits=("{}",), state="complete").conditions()
    sql = f"SELECT * FROM runs WHERE {condition} ORDER BY {BEST_FIRST.sql()}, id"
    plan = " ".join(row[3] for row in execute(five.path, f"EXPLAIN QUERY PLAN {sql} LIMIT 3", *parameters))
    assert "USING INDEX runs_by_images (dataset_sha256=? AND split=? AND state=?)" in plan
    assert "B-TREE" not in plan  # nothing is sorted


WRONG = {
    "UPDATE runs SET test_accuracy = 7.5 WHERE id = 2": "run 2: test_accuracy = 7.5, which is impossible",
    "UPDATE runs SET test_accuracy = 9e999 WHERE id = 2": "run 2: test_accuracy = Inf, which is impossible",
    "UPDATE runs SET best_validation_accuracy = -0.1": "run 1: best_validation_accuracy = -0.1, which is impossible",
    "UPDATE runs SET ensemble_test_loss = -1 WHERE id = 3": "run 3: ensemble_test_loss = -1.0, which is impossible",
    "UPDATE runs SET test_cost = -1 WHERE id = 3": "run 3: test_cost = -1.0, which is impossible",
    "UPDATE runs SET seconds = -1 WHERE id = 3": "run 3: seconds = -1.0, which is impossible",
    "UPDATE epochs SET seconds = -2 WHERE run_id = 2": "run 2, epoch 1.0: seconds = -2.0, which is impossible",
    "UPDATE runs SET validation_accuracy = 1 WHERE id = 2": "run 2: validation_accuracy = 1.0, in its last evaluation ",
    "UPDATE runs SET train_loss = NULL WHERE id = 2": "run 2: train_loss = NULL, in its last evaluation ",
    "UPDATE epochs SET validation_cost = 0 WHERE run_id = 3": "run 3: validation_cost = ",
    "INSERT INTO evaluations VALUES (4, '', '', NULL, NULL, 0, NULL, 0, 1.0, 0.5, 1.0, 1.5, 1.0, 0, 0)": (
        "evaluation 4: test_accuracy = 1.5, which is impossible"
    ),
}


@pytest.mark.parametrize("statement", WRONG)
def test_a_check_names_numbers_that_no_training_stores(three_runs_here: Path, statement: str) -> None:
    execute(three_runs_here / "klcli.db", statement)
    with closing(Store(three_runs_here / "klcli.db")) as store:
        [damage, *_] = store.upkeep.check()[0]
        assert damage.startswith(WRONG[statement])


def test_a_check_accuses_no_run_that_has_not_ended_or_has_diverged(recorder: Any) -> None:
    """Some have later evaluations than their row, infinite losses or none; a mean of probabilities of 1 has a loss
    of -1e-16.
    """
    for number, state in enumerate(("running", "interrupted", "failed", "diverged"), start=1):
        run = recorder.begin(seed=number)
        execute(
            recorder.path, "UPDATE runs SET state = ?, train_loss = 5.0, test_loss = 9e999 WHERE id = ?", state, run
        )
        execute(recorder.path, "INSERT INTO epochs VALUES (?, 1, 1, 0.1, 9e999, 9e999, 0, 1, 1, 1, 0)", run)
    execute(recorder.path, "UPDATE runs SET ensemble_test_loss = -1e-16, seconds = 0, test_accuracy = 1 WHERE id = 4")
    execute(recorder.path, "ALTER TABLE runs ADD COLUMN my_accuracy REAL")
    execute(recorder.path, "UPDATE runs SET my_accuracy = 99")
    assert recorder.store.upkeep.check() == ([], [])
