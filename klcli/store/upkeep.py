"""Upkeep: notes, tags, deletion, export, and a check of the database and its files."""

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import fields
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klcli.csv_text import AT_ONCE, csv_text
from klcli.errors import ConfigError, StoreError
from klcli.files import flush, make_folder, replace, replacing_all
from klcli.settings.setting import require
from klcli.store import checkpoints
from klcli.store.connection import Database
from klcli.store.reading import beside, folder_of, rows
from klcli.store.records import Epoch, Evaluation, GradientCheck, Run
from klcli.store.runs import OF_LAST, Runs
from klcli.termination import before_the_end
from klcli.text import path_text

if TYPE_CHECKING:
    from klcli.store.merging import Merged


class Upkeep:
    """Changes that a user requests, and the files beside the database."""

    def __init__(self, db: Database, runs: Runs) -> None:
        self._db, self._runs = db, runs

    def set_note(self, run_ids: Sequence[int], note: str) -> None:
        self._change(run_ids, lambda run: {"note": note or None})

    def add_tag(self, run_ids: Sequence[int], tag: str) -> None:
        """Tag runs with a single word. Raises ConfigError for any other text."""
        require(tag.split() == [tag], f"tag {tag!r}: must be one word without spaces")
        self._change(run_ids, lambda run: {"tags": " ".join([*(one for one in _tags(run) if one != tag), tag])})

    def remove_tag(self, run_ids: Sequence[int], tag: str) -> None:
        """Remove a tag from runs. Raises ConfigError, and changes none, if one of them has no such tag."""

        def without(run: Run) -> dict[str, str | None]:
            absent = f"untag {run.id} {tag!r}: this run has no such tag, it has {run.tags or 'none'}"
            require(tag in _tags(run), absent)
            return {"tags": " ".join(one for one in _tags(run) if one != tag) or None}

        self._change(run_ids, without)

    def _change(self, run_ids: Sequence[int], change: Callable[[Run], dict[str, str | None]]) -> None:
        with self._db.write() as db:
            for run_id in run_ids:
                db.table("runs").update(run_id, change(self._runs.get(run_id)))

    def delete(self, run_ids: Sequence[int]) -> list[Path]:
        """Delete runs with their epochs, checkpoints and pictures; return the deleted files.

        A study without runs is deleted with its pictures. Raises ConfigError for a run that is being trained.
        """
        numbers = dict.fromkeys(run_ids)
        stored = {self._runs.file_of(run).name for run in map(self._runs.get, numbers) if run.checkpoint is not None}
        # Before the lock: it reads the networks that copies name.
        kept = {named for named, *_ in self._named_elsewhere(stored)} if stored else set()
        with self._db.write() as db:
            runs = [*map(self._runs.get, numbers)]
            for run in runs:
                if run.state == "running":
                    raise ConfigError(f"delete {run.id}: {self._runs.training_words(run)}, end that first")
            files = self._files_of(runs, kept)
            _require_removable(files)
            for run in runs:
                db.execute("DELETE FROM runs WHERE id = ?", [run.id])
                without_runs = "NOT EXISTS (SELECT 1 FROM runs WHERE study_id = studies.id)"
                db.execute(f"DELETE FROM studies WHERE id = ? AND {without_runs}", [run.study_id])
        for file in files:  # only now: until the commit, a signal or an error leaves rows and files as they are
            with suppress(OSError):  # open in another program of Windows: a check names it
                file.unlink(missing_ok=True)
        return files

    def _files_of(self, runs: Sequence[Run], kept: Collection[str]) -> list[Path]:
        """Return the checkpoints and pictures of runs, but those `kept`, and those of studies that have no others."""
        stored = [self._runs.file_of(run) for run in runs if run.checkpoint is not None]
        own, numbers = [one for one in stored if checkpoints.column_of(one) not in kept], {run.id for run in runs}
        rest = {row["study_id"] for row in self._db.each("SELECT id, study_id FROM runs") if row["id"] not in numbers}
        studies = {run.study_id for run in runs if run.study_id is not None} - rest  # which have no runs any more
        gone = {"run": numbers, "study": studies, "gradcheck": set[int]()}
        drawn = [path for kind, shown, path in pictures(self._db.folder("plots")) if not gone[kind].isdisjoint(shown)]
        return [file for file in [*own, *map(checkpoints.previous, own), *drawn] if file.exists()]

    def _named_elsewhere(self, files: Collection[str]) -> Iterator[tuple[str, int, int | None]]:
        """Yield what rows call a checkpoint that another database beside this one, such as a copy of it, may have, with
        the run and its study; for the names `files`, in any folder. Raises StoreError if one cannot be read now.
        """
        about = "CAST(checkpoint AS TEXT), id, study_id, checkpoint_sha256"
        stored = f"SELECT {about} FROM runs WHERE checkpoint IS NOT NULL"
        folders = checkpoints.folders(self._db)
        for one in beside(self._db.real):
            folder = folder_of(one, "checkpoints")
            for named, run, study, sha256 in rows(one, stored, seconds=2):
                text, _, name = named.rpartition("/")
                places = [folder, folders.get(text, folder)]
                if name in files and not any(checkpoints.named(place / name, sha256) for place in places):
                    places += [place for place in folders.values() if checkpoints.named(place / name, sha256)]
                for found in {named, *(checkpoints.column_of(place / name) for place in places)}:
                    yield found, run, study

    def merge(self, path: Path) -> "Merged":
        """Copy the runs of another database that are not here yet, with their studies, evaluations and files."""
        from klcli.store.merging import merge

        return merge(self._db, path)

    def export(self, folder: Path) -> dict[str, int]:
        """Write every table and view as a CSV file; return the number of rows by file name.

        Numbers have all their digits; NULL is an empty cell. No file is replaced before all are written. Raises
        ConfigError for a file that is no export, and StoreError if the folder cannot be written or the name of a table
        leads out of it.
        """
        own = "type IN ('table', 'view') AND substr(name, 1, 1) <> '_' AND substr(name, 1, 7) <> 'sqlite_'"
        found = self._db.read(f"SELECT name FROM sqlite_master WHERE {own} ORDER BY name || '.csv'")
        files = [folder / f"{row['name']}.csv" for row in found]
        for file, row in zip(files, found, strict=True):
            if file.name != f"{row['name']}.csv":
                words = f"a table is named '{path_text(row['name'])}', as no file can be"
                raise StoreError(f"{self._db.path}: {words}, rename the table")
            with checkpoints.writing(file):
                make_folder(folder)
                _require_export(file, _header(self._db, row["name"]))
        written = {}
        with replacing_all(files) as temporaries:
            for file, row, temporary in zip(files, found, temporaries, strict=True):
                with checkpoints.writing(file):
                    written[file.name] = _write_table(self._db, row["name"], temporary)
        return written

    def check(
        self, newest: int | None = None, advance: Callable[[int], None] = lambda done: None
    ) -> tuple[list[str], list[str]]:
        """Return the damage of the database and its checkpoints, and the files that belong to no row.

        Every checkpoint must be a regular file that is not empty. The `newest` ones, by default all, are also read, in
        3 ms per megabyte; `advance` is called after each.
        """
        # Before the rows are read: the files of a run that begins meanwhile are not seen.
        files, drawn = sorted(self._db.folder("checkpoints").glob("*")), [*pictures(self._db.folder("plots"))]
        runs = [*map(tuple, self._db.each("SELECT id, state, checkpoint FROM runs"))]
        orphans = [*self._orphans(files, drawn, runs)]
        damage = [*self._damage_of_database(), *self._damage_of_checkpoints(runs, newest, advance)]
        return damage, [f"{path}: no row of the database refers to this file" for path in orphans]

    def _damage_of_database(self) -> Iterator[str]:
        yield from (f"database: {text}" for (text,) in self._db.each("PRAGMA integrity_check") if text != "ok")
        for table, row, parent, _ in self._db.each("PRAGMA foreign_key_check"):
            where = table if row is None else f"{table} row {row}"
            yield f"database: {where} points at a row of {parent} that is gone"
        for query in _wrong_numbers():
            yield from (f"{of}: {what}" for of, what in self._db.each(query))

    def _damage_of_checkpoints(
        self, runs: Sequence[tuple[Any, ...]], newest: int | None, advance: Callable[[int], None]
    ) -> list[str]:
        damage: dict[int, str] = {}
        faults = set[str]()  # of whole folders
        own = self._db.folder("checkpoints")
        folders = checkpoints.folders(self._db, *{(named or "").rpartition("/")[0] for *_, named in runs})
        fault_of = cache(lambda text: _fault(folders.get(text, own)))
        there, suspect = list[int](), list[int]()  # runs by whether only the content of their file can be damaged
        for run_id, state, named in runs:
            if named is not None:
                text, _, name = named.rpartition("/")
                is_own = text in folders and name == f"run-{run_id:06d}.npz" and not fault_of(text)
                # 100 000 objects of Path take 5 s.
                is_there = is_own and _is_file(f"{folders[text]}{os.sep}{name}")
                (there if is_there else suspect).append(run_id)
            elif state == "complete":
                damage[run_id] = "complete, but without a checkpoint"
        read = sorted(suspect + sorted(there, reverse=True)[:newest])
        for run in (one for run_id in read for one in self._runs.where("id = ?", [run_id])):
            advance(1)
            try:
                checkpoints.load(self._runs.file_of(run), run, run.checkpoint_sha256)
            except StoreError as error:
                # A run that ended between the writes of file and row can continue from the previous checkpoint.
                with suppress(StoreError):
                    if run.state != "complete":
                        known = run.checkpoint_sha256, run.previous_sha256
                        checkpoints.load(checkpoints.previous(self._runs.file_of(run)), run, *known)
                        continue
                if fault := fault_of((run.checkpoint or "").rpartition("/")[0]):
                    faults.add(fault)
                else:
                    damage[run.id] = str(error).removeprefix(f"run {run.id}: ")
        return [*sorted(faults), *(f"run {run_id}: {damage[run_id]}" for run_id in sorted(damage))]

    def _orphans(
        self, paths: Iterable[Path], drawn: Iterable[tuple[str, list[int], Path]], runs: Sequence[tuple[Any, ...]]
    ) -> Iterator[Path]:
        """Yield the files beside the database to which none of its rows refers, nor those of a renamed database."""
        known = {(named or "").rpartition("/")[2] for *_, named in runs}  # the rows of a copy name the original folder
        # Of a run that is being trained, the file is there before its row names it.
        known |= {f"run-{run_id:06d}.npz" for run_id, state, _ in runs if state == "running"}
        files = {path: path.name.replace(".previous.", ".") for path in paths}
        tables = {"study": "studies", "gradcheck": "gradient_checks"}
        there = {kind: {row["id"] for row in self._db.each(f"SELECT id FROM {tables[kind]}")} for kind in tables}
        there["run"] = {run_id for run_id, *_ in runs}
        try:
            for text, run, study in self._named_elsewhere({*files.values()} - known):
                place, _, name = text.rpartition("/")
                if place == path_text(self._db.folder("checkpoints").name):
                    known.add(name)
                    there["run"].add(run)
                    there["study"].add(study)
        except StoreError:
            return  # any file can be that of a database that cannot be read
        yield from (path for path, name in files.items() if known.isdisjoint((path.name, name)) and path.is_file())
        yield from (path for kind, shown, path in drawn if not there[kind].issuperset(shown))


def _header(db: Database, name: str) -> bytes:
    columns = db.read("SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid", [name])
    return csv_text([[column["name"] for column in columns]]).encode()


def _require_export(file: Path, header: bytes) -> None:
    """Raise ConfigError for a file that is there with other columns; that of an older klcli lacks the latest ones."""
    with suppress(FileNotFoundError), file.open("rb") as there:
        known, found = (line.rstrip().split(b",") for line in (header.split(b"\n")[0], there.readline(2**16)))
        if known[0] != found[0] or not {*found} <= {*known}:
            words = "this file is no export, choose another folder or delete it"
            raise ConfigError(f"{path_text(file)}: {words}")


def _write_table(db: Database, name: str, file: Path) -> int:
    """Write a table or view to an empty file and flush it; return the number of rows. Raises StoreError and OSError."""
    written = 0
    with closing(db.each(f'SELECT * FROM "{name}"')) as rows, file.open("r+b") as content:
        content.write(_header(db, name))
        while portion := [*map(tuple, islice(rows, AT_ONCE))]:
            content.write(csv_text(portion).encode())
            written += len(portion)
        flush(content)
    return written


# Records of measurements: their tables, and the SQL of what a row is called.
_MEASURED = {
    Run: ("runs", "'run ' || id"),
    Epoch: ("epochs", "'run ' || run_id || ', epoch ' || epoch"),
    Evaluation: ("evaluations", "'evaluation ' || id"),
    GradientCheck: ("gradient_checks", "'gradient check ' || id"),
}
# By the last word of a column. The loss of a mean of probabilities that are all 1 can be -1e-16.
_IMPOSSIBLE = {"accuracy": "NOT BETWEEN 0 AND 1", "loss": "< -1e-9", "cost": "< -1e-9", "seconds": "< 0"}


def _wrong_numbers() -> Iterator[str]:
    """Yield queries for numbers that only another program stores: the name of a row, and its first wrong value."""
    for kind, (table, name_of) in _MEASURED.items():
        bounds = {one.name: _IMPOSSIBLE.get(one.name.rpartition("_")[2]) for one in fields(kind)}
        wrong = " ".join(f"WHEN {name} {bound} THEN '{name} = ' || {name}" for name, bound in bounds.items() if bound)
        yield f"SELECT {name_of}, CASE {wrong} END || ', which is impossible' AS fault FROM {table} WHERE fault > ''"
    shown = "'{0} = ' || coalesce(runs.{0}, 'NULL') || ', in its last evaluation ' || epochs.{0}"
    wrong = " ".join(f"WHEN runs.{name} IS NOT epochs.{name} THEN {shown.format(name)}" for name in OF_LAST)
    join = "runs JOIN epochs ON run_id = id AND epoch = (SELECT max(epoch) FROM epochs WHERE run_id = id)"
    yield f"SELECT 'run ' || id, CASE {wrong} END AS fault FROM {join} WHERE state = 'complete' AND fault > ''"


def _fault(folder: Path) -> str:
    """Return what is wrong with a whole folder of checkpoints, "" if nothing is."""
    try:
        checkpoints.require_no_link(folder)
    except StoreError as error:
        return str(error)
    return "" if folder.exists() else f"{folder}: this folder of checkpoints is missing, move it beside the database"


def pictures(plots: Path) -> Iterator[tuple[str, list[int], Path]]:
    """Yield the kind, the numbers and the path of every picture in a folder, as report/pictures.py names them."""
    for path in sorted(plots.glob("*-[0-9]*")) if not plots.is_symlink() else ():
        if found := _PICTURE.match(path.name):
            yield found[1], [*map(int, found[2].split("-"))], path


def _tags(run: Run) -> list[str]:
    return (run.tags or "").split()


def _is_file(path: str) -> bool:
    """Whether a path is a regular file that is not empty; reading it has to say what any other is."""
    with suppress(OSError, ValueError):
        return stat.S_ISREG((found := os.lstat(path)).st_mode) and found.st_size > 0
    return False


# run-000007.png, run-000007-000009-curves.png, study-000003-lambda.svg
_PICTURE = re.compile(r"(run|study|gradcheck)-(\d{6,}(?:-\d{6,})*)[.-]")


def _require_removable(files: Iterable[Path]) -> None:
    """Raise StoreError for a file that cannot be removed. All files are still there."""
    for file in files:
        if file.is_dir() and not file.is_symlink():
            raise StoreError(f"{file}: this is a folder, move it away, nothing was deleted")
        try:
            with before_the_end:  # a signal leaves it under its own name
                replace(replace(file, file.with_name(f"{file.name}.deleted")), file)
        except OSError as error:
            is_open = getattr(error, "winerror", None) in checkpoints.OPEN_ELSEWHERE
            cure = "close the program that has it open" if is_open else "make its folder writable"
            raise StoreError(f"{file}: cannot be deleted ({error.strerror}), {cure}, nothing was deleted") from error
