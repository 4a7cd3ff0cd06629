"""Merge: copy the runs of another database into this one, in one transaction, with all that belongs to them.

A run is recognised by its `identity`. A run that this database has already is not copied again; if it has made progress
since, its row, epochs and checkpoint are updated. All numbers are new, and every reference follows.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlite_utils import Database as Tables

from klcli.errors import StoreError
from klcli.files import flush, replacing_all
from klcli.settings.run_command import evaluation_command, in_database, with_study
from klcli.store import checkpoints
from klcli.store.connection import Database, explained, next_number
from klcli.store.later_checks import Evaluations
from klcli.store.locks import Locks
from klcli.store.runs import UNEXPECTED, UNFINISHED, Runs
from klcli.store.studies import Row
from klcli.store.upkeep import pictures
from klcli.termination import at_the_end
from klcli.text import path_text

# Columns of a run that stay as they are here when its progress elsewhere is copied.
OWN = ("id", "study_id", "member", "note", "tags", "identity", "origin", "origin_run")
PORTION = 500  # temporary files at the same time
Copy = tuple[Path, Path]  # a file, and its place in this database
THREADS = 8  # flushing 1000 small files one after the other takes 5 s on a usual disk, in threads 1 s


@dataclass
class Merged:
    """What was copied from one database."""

    database: Path
    runs: int = 0
    updated: int = 0  # runs that were here already, with fewer epochs or without their checkpoint
    known: int = 0  # runs that were here already
    studies: int = 0
    evaluations: int = 0
    gradient_checks: int = 0
    files: int = 0  # checkpoints and pictures
    left_out: list[str] = field(default_factory=list)  # what could not be copied, and why, but for:
    without_checkpoint: list[str] = field(default_factory=list)  # runs whose checkpoint is missing

    @property
    def remarks(self) -> list[str]:
        return [*self.left_out, *self.without_checkpoint]

    @property
    def changes(self) -> int:
        return self.runs + self.updated + self.evaluations + self.gradient_checks


def merge(here: Database, path: Path) -> Merged:
    """Copy what is new in the database at `path`, which is read from a migrated copy and stays as it is.

    Runs in training and their studies are left out with a remark. Raises StoreError; nothing of `path` is then stored.
    """
    with explained(path):
        if not path.exists():
            raise StoreError(f"{path}: there is no database here")
    with closing(Database(path, is_copied=True)) as source:
        return _Merging(here, source, path).all()


class _Merging:
    def __init__(self, here: Database, source: Database, path: Path) -> None:
        self._here, self._source, self._merged = here, source, Merged(path)
        self._locks, self._own_locks = Locks(source.folder("locks")), Locks(here.folder("locks"))
        self._runs, self._mine = Runs(source, self._locks), Runs(here, self._own_locks)
        # New numbers by the old ones, under the names that pictures have.
        self._numbers: dict[str, dict[int, int]] = {"run": {}, "study": {}, "gradcheck": {}}
        self._copied: dict[str, set[int]] = {"run": set(), "study": set(), "gradcheck": set()}
        self._files, self._backups = list[Copy](), list[Copy]()  # backups of checkpoints here that are replaced

    def all(self) -> Merged:
        checkpoints.require_no_link(self._here.folder("checkpoints"))
        with self._own_locks.numbering(), self._here.write() as self._tables:
            # Rows that another program has inserted: as the migration step does it.
            parts = "started_at || ' ' || host || ' ' || pid || ' ' || id || ' ' || dataset_source"
            identify = f"UPDATE runs SET identity = {parts} WHERE identity IS NULL"
            self._tables.execute(identify)
            with self._source.write() as copy:
                copy.execute(identify)
                pairs = ((one, copy.table(one.name)) for one in self._tables.tables)
                # Without computed ones, and without those that a user has added to one of both.
                self._columns = {mine.name: mine.columns_dict.keys() & theirs.columns_dict for mine, theirs in pairs}
                self._leave_out_running(copy)
            about = "SELECT id, identity, study_id, state, epochs_done, checkpoint, checkpoint_sha256 FROM runs"
            known = {row["identity"]: dict(row) for row in self._here.each(about)}
            self._copy_studies(known)
            self._copy_runs(known)
            self._copy_evaluations()
            self._copy_gradient_checks()
            if self._merged.changes:
                self._add_pictures()
                copy_files(self._backups)  # the previous checkpoints, until the transaction is on the disk
                copy_files(self._files)
                self._merged.files = len(self._files)
        for _, backup in self._backups:
            with suppress(OSError):  # harmless if it remains
                backup.unlink(missing_ok=True)
        if not self._numbers["run"] and not self._merged.left_out:
            self._merged.left_out.append("it holds no run")
        return self._merged

    def _rows(self, table: str, where: str = "1", *values: Any) -> Iterable[Row]:
        names = ", ".join(f'"{name}"' for name in self._columns[table])
        return map(dict, self._source.each(f"SELECT {names} FROM {table} WHERE {where}", values))

    def _insert(self, table: str, rows: Iterable[Row]) -> None:
        columns, values = (", ".join(shape.format(name) for name in self._columns[table]) for shape in ('"{}"', ":{}"))
        try:
            self._tables.conn.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", rows)
        except sqlite3.IntegrityError as error:  # without the checks of klcli's own tables
            words = f"a row of its table {table} is not one of klcli ({error}), restore a copy of it"
            raise StoreError(f"{self._merged.database}: {words}") from error

    def _leave_out_running(self, copy: Tables) -> None:
        """Delete from the copy the runs that a process trains now, and all runs of their studies."""
        for row in self._source.read("SELECT id, study_id, owner FROM runs WHERE state = 'running'"):
            if (is_held := self._locks.is_held(row["owner"])) is not False:  # None without locks in the file system
                words = f"run {row['id']} {'is' if is_held else 'may be'} being trained: left out"
                self._merged.left_out.append(f"{words}, merge again when it has ended")
                copy.execute("DELETE FROM runs WHERE id = ? OR study_id = ?", [row["id"], row["study_id"]])
        copy.execute("UPDATE runs SET state = 'interrupted', error = ? WHERE state = 'running'", [UNEXPECTED])
        copy.execute("UPDATE studies SET state = 'interrupted' WHERE state = 'running'")

    def _copy_studies(self, known: Mapping[str, Row]) -> None:
        """Insert new studies. A study is here already if one of its runs is."""
        numbers, wanted = self._numbers["study"], set()
        for run in self._source.read("SELECT study_id, identity FROM runs WHERE study_id IS NOT NULL"):
            wanted.add(run["study_id"])
            if (mine := known.get(run["identity"])) and mine["study_id"] is not None:
                numbers[run["study_id"]] = mine["study_id"]
        missing = wanted - numbers.keys()
        new = {row["id"]: row for row in self._rows("studies", "1 ORDER BY id") if row["id"] in missing}
        numbers |= {old: next_number(self._tables, "studies") for old in new}
        named = {str(old): number for old, number in numbers.items()}
        for old, row in new.items():
            if row["kind"] == "lambda" and row["command"]:  # 0, which no study is, for one that is not here
                row["command"] = with_study(row["command"], lambda one: named.get(one, 0))
            self._insert("studies", [row | {"id": numbers[old], "parent": None}])
        self._copied["study"] |= new.keys()
        for row in self._rows("studies", "parent IS NOT NULL"):  # of a new study, or one that had been deleted here
            own = {row["id"], row["parent"]}
            if numbers.keys() >= own and not own.isdisjoint(self._copied["study"]):
                self._tables.table("studies").update(numbers[row["id"]], {"parent": numbers[row["parent"]]})
        self._merged.studies = len(self._copied["study"])

    def _copy_runs(self, known: Mapping[str, Row]) -> None:
        changed = set[int]()  # studies that were here before and have got something new
        for row in self._rows("runs", "1 ORDER BY id"):
            old, mine = row["id"], known.get(row["identity"])
            if mine and not self._is_further(row, mine):
                self._numbers["run"][old] = mine["id"]
                self._merged.known += not self._is_repaired(old, row, mine)
                continue
            if not mine and self._is_replaced(row):
                continue
            number = mine["id"] if mine else checkpoints.new_number(self._tables, self._here)
            self._numbers["run"][old] = number
            self._copied["run"].add(old)
            row |= {"id": number, "owner": None, "checkpoint": self._add_checkpoint(old, row, number)}
            if mine:
                values = {name: value for name, value in row.items() if name not in OWN}
                self._tables.table("runs").update(number, values)
                self._tables.execute("DELETE FROM epochs WHERE run_id = ?", [number])
                self._merged.updated += 1
            else:
                study = self._numbers["study"].get(row["study_id"])
                origin = row["origin"] or path_text(self._merged.database)
                about = {"study_id": study, "origin": origin, "origin_run": row["origin_run"] or old}
                self._insert("runs", [row | about])
                self._merged.runs += 1
            epochs = self._rows("epochs", "run_id = ? ORDER BY epoch", old)
            self._insert("epochs", (epoch | {"run_id": number} for epoch in epochs))
            if row["study_id"] in self._numbers["study"].keys() - self._copied["study"]:
                changed.add(row["study_id"])
        for study in changed:  # its state is that of the study with the new runs
            [theirs] = self._rows("studies", "id = ?", study)
            self._tables.table("studies").update(self._numbers["study"][study], {"state": theirs["state"]})

    def _is_further(self, row: Row, mine: Row) -> bool:
        """Whether an unfinished run has been continued where it comes from, and its network was not left behind."""
        if mine["state"] not in UNFINISHED or row["state"] not in UNFINISHED:
            return mine["state"] in UNFINISHED
        is_further: bool = row["epochs_done"] > mine["epochs_done"]
        if is_further and _has_network(self._mine, mine["id"]) and not _has_network(self._runs, row["id"]):
            words = f"run {row['id']}: its checkpoint of epoch {row['epochs_done']:g} is missing"
            self._merged.left_out.append(f"{words}, merge again when it is there")
            return False
        return is_further

    def _is_replaced(self, row: Row) -> bool:
        """Whether another run has the place of this one in its study: it was deleted on one side and trained again."""
        study = self._numbers["study"].get(row["study_id"])
        taken = "SELECT id, state FROM runs WHERE study_id = ? AND member = ? LIMIT 1"
        for one in (found := self._here.read(taken, [study, row["member"]])):
            delete = in_database(f"klcli runs delete {one['id']}", self._here.path)
            words = f"run {one['id']}, {one['state']}, has its place in study {study}, to exchange them `{delete}`"
            self._merged.left_out.append(f"run {row['id']} is left out: {words} and merge again")
        return bool(found)

    def _add_checkpoint(self, old: int, row: Row, number: int) -> str | None:
        """Add the checkpoint of a run to the files to copy and return its new column."""
        if row["checkpoint"] is None:
            return None
        own = checkpoints.file_of(self._here.folder("checkpoints"), number)
        try:
            file = self._runs.file_of(self._runs.get(old))
        except StoreError as error:
            self._merged.left_out.append(str(error))
            return None
        previous = checkpoints.previous(file)
        if checkpoints.says(previous, row["checkpoint_sha256"]):  # its process was killed before it wrote the row
            file, previous = previous, file
        if _is_file(file):
            self._files.append((file, own))
        else:
            why = "is missing" if not os.path.lexists(file) else "is no regular file"
            words = f"run {old}: its checkpoint {file} {why}, merge again when it is there"
            self._merged.without_checkpoint.append(words)
        if _is_file(own):
            self._backups.append((own, checkpoints.previous(own)))
        elif row["state"] in UNFINISHED and _is_file(previous):
            self._files.append((previous, checkpoints.previous(own)))
        return checkpoints.column_of(own)

    def _is_repaired(self, old: int, row: Row, mine: Row) -> bool:
        """Copy the checkpoint of a run that is here without it, and return whether there is one to copy."""
        sha256, place = row["checkpoint_sha256"], checkpoints.file_of(self._here.folder("checkpoints"), mine["id"])
        # To read the networks of 1000 runs takes 5 s.
        if sha256 is None or sha256 != mine["checkpoint_sha256"] or checkpoints.says(place, sha256):
            return False
        if is_found := not _has_network(self._mine, mine["id"]) and _has_network(self._runs, old):
            checkpoint = self._add_checkpoint(old, row, mine["id"])
            self._tables.execute("UPDATE runs SET checkpoint = ? WHERE id = ?", [checkpoint, mine["id"]])
            self._merged.updated += 1
        return is_found

    def _add_pictures(self) -> None:
        """Add the pictures of copied rows to the files to copy, under the new numbers."""
        for kind, numbers, picture in pictures(self._source.folder("plots")):
            known = self._numbers[kind]
            if not self._copied[kind].isdisjoint(numbers) and known.keys() >= set(numbers) and _is_file(picture):
                rest = picture.name.removeprefix(_stem(kind, numbers))
                if not rest.startswith("-to-"):  # a picture of too many runs for their numbers in its name
                    name = f"{_stem(kind, [known[one] for one in numbers])}{rest}"
                    self._files.append((picture, self._here.folder("plots") / name))

    def _copy_evaluations(self) -> None:
        mine, numbers = Evaluations(self._here), self._numbers["run"]
        theirs, ours = (
            {row["id"]: row["checkpoint_sha256"] for row in db.read("SELECT id, checkpoint_sha256 FROM runs")}
            for db in (self._source, self._here)
        )
        for one in Evaluations(self._source).of_runs([*numbers]):
            # Not of a network that has been trained further here, nor of several that are not all here.
            if any(theirs[run] != ours.get(numbers.get(run, 0), "") for run in one.runs):
                continue
            [row], runs = self._rows("evaluations", "id = ?", one.id), sorted(numbers[run] for run in one.runs)
            same = mine.same(runs, row)
            if any(old.created_at >= one.created_at for old in same):
                continue
            for old in same:
                self._tables.execute("DELETE FROM evaluations WHERE id = ?", [old.id])
            number = next_number(self._tables, "evaluations")
            command = evaluation_command(runs, row, data=None, db=self._here.path)
            self._insert("evaluations", [row | {"id": number, "command": command}])
            self._insert("evaluation_runs", ({"evaluation_id": number, "run_id": run} for run in runs))
            self._merged.evaluations += 1

    def _copy_gradient_checks(self) -> None:
        suites: dict[int, int] = {}
        names = ("created_at", "command", "configs", "seconds")  # the same in all copies of a check
        same = f"SELECT id, suite FROM gradient_checks WHERE {' AND '.join(f'{name} = ?' for name in names)}"
        for row in self._rows("gradient_checks", "1 ORDER BY id"):
            old = row["id"]
            if found := self._here.read(same, [row[name] for name in names]):
                suites[row["suite"]], self._numbers["gradcheck"][old] = found[0]["suite"], found[0]["id"]
                continue
            number = self._numbers["gradcheck"][old] = next_number(self._tables, "gradient_checks")
            self._copied["gradcheck"].add(old)
            self._insert("gradient_checks", [row | {"id": number, "suite": suites.setdefault(row["suite"], number)}])
            errors = self._rows("gradient_errors", "check_id = ? ORDER BY position", old)
            self._insert("gradient_errors", (error | {"check_id": number} for error in errors))
            self._merged.gradient_checks += 1


def _has_network(runs: Runs, number: int) -> bool:
    try:
        return bool(runs.checkpoint(runs.get(number)))
    except checkpoints.Unreadable:
        raise
    except StoreError:
        return False


def _is_file(path: Path) -> bool:
    """Whether a path is a regular file, no link to a file elsewhere, and no pipe, which may never end."""
    return path.is_file() and not path.is_symlink()


def _stem(kind: str, numbers: Sequence[int]) -> str:
    return "-".join([kind, *(f"{number:06d}" for number in numbers)])


def copy_files(files: Sequence[Copy]) -> None:
    """Copy files. If one cannot be read or written, raises StoreError; no file is then incomplete, and none is new."""
    new = [target for _, target in files if not target.exists()]

    def remove_new() -> None:
        for target in new:
            with suppress(OSError):
                target.unlink(missing_ok=True)

    with at_the_end(remove_new):
        try:
            for folder in dict.fromkeys(target.parent for _, target in files):
                own = [one for one in files if one[1].parent == folder]
                for start in range(0, len(own), PORTION):
                    sources, targets = zip(*own[start : start + PORTION], strict=True)
                    with (
                        checkpoints.writing(targets[0]), replacing_all(targets) as temporaries,
                        ThreadPoolExecutor(THREADS) as pool,
                    ):  # fmt: skip
                        list(pool.map(_copy, sources, temporaries))
        except BaseException:
            remove_new()
            raise


def _copy(source: Path, temporary: Path) -> None:
    try:
        content = source.open("rb")
    except OSError as error:
        raise StoreError(f"{source}: cannot be read ({error.strerror}), make it readable or remove it") from error
    with content, temporary.open("r+b") as file:
        shutil.copyfileobj(content, file)
        flush(file)
