"""Upkeep: notes, tags, deletion, export, and a check of the database and its files."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from klcli.errors import ConfigError, StoreError
from klcli.files import replacing
from klcli.store import checkpoints
from klcli.store.connection import Database
from klcli.store.records import Run
from klcli.store.runs import Runs
from klcli.store.studies import DELETED
from klcli.text import csv_cell, path_of


class Upkeep:
    """Changes that a user requests, and the files beside the database."""

    def __init__(self, db: Database, runs: Runs) -> None:
        self._db = db
        self._runs = runs

    def set_note(self, run_id: int, note: str) -> None:
        """Store the note of a run, replacing an earlier one; an empty note removes it."""
        self._runs.get(run_id)
        with self._db.write() as db:
            db.table("runs").update(run_id, {"note": note or None})

    def add_tag(self, run_id: int, tag: str) -> None:
        """Tag a run with a single word. Raises ConfigError for any other text."""
        if tag.split() != [tag]:
            raise ConfigError(f"tag {tag!r}: must be one word without spaces")
        with self._db.write() as db:
            tags = [*(one for one in self._tags(run_id) if one != tag), tag]
            db.table("runs").update(run_id, {"tags": " ".join(tags)})

    def remove_tag(self, run_id: int, tag: str) -> None:
        """Remove a tag from a run. Raises ConfigError if the run has no such tag."""
        with self._db.write() as db:
            tags = self._tags(run_id)
            if tag not in tags:
                raise ConfigError(f"--untag {run_id} {tag!r}: this run has no such tag")
            db.table("runs").update(run_id, {"tags": " ".join(one for one in tags if one != tag) or None})

    def _tags(self, run_id: int) -> list[str]:
        return (self._runs.get(run_id).tags or "").split()

    def delete(self, run_ids: Sequence[int]) -> list[Path]:
        """Delete runs with their epochs, checkpoints and pictures; return the deleted files.

        A study records the positions of its deleted runs, so that it never counts as complete on resumption; a study
        without runs is deleted. Raises ConfigError for a run that is being trained.
        """
        runs = [self._runs.get(run_id) for run_id in dict.fromkeys(run_ids)]
        for run in runs:
            if run.state == "running":
                raise ConfigError(f"--delete {run.id}: {self._runs.training_words(run)}, end that first")
        files = self._files_of(runs)
        with _removing(files), self._db.write() as db:
            for run in runs:
                db.execute("DELETE FROM runs WHERE id = ?", [run.id])
                with_list = f"json_insert(settings, '$.{DELETED}', json('[]'))"
                longer = f"json_insert({with_list}, '$.{DELETED}[#]', ?)"
                db.execute(f"UPDATE studies SET settings = {longer} WHERE id = ?", [run.member, run.study_id])
                without_runs = "NOT EXISTS (SELECT 1 FROM runs WHERE study_id = studies.id)"
                db.execute(f"DELETE FROM studies WHERE id = ? AND {without_runs}", [run.study_id])
        return files

    def _files_of(self, runs: Sequence[Run]) -> list[Path]:
        """Return the checkpoints of runs, and every picture that shows one of them."""
        own = [self._runs.file_of(run) for run in runs if run.checkpoint is not None]
        numbers = {run.id for run in runs}
        pictures = [path for kind, shown, path in self._pictures() if kind == "run" and shown & numbers]
        return [file for file in [*own, *map(checkpoints.previous, own), *pictures] if file.exists()]

    def _pictures(self) -> Iterator[tuple[str, set[int], Path]]:
        """Yield the kind, the numbers and the path of every picture, as report/pictures.py names them."""
        plots = self._db.folder("plots")
        for path in sorted(plots.glob("*-[0-9]*")) if not plots.is_symlink() else ():
            if found := _PICTURE.match(path.name):
                yield found[1], set(map(int, found[2].split("-"))), path

    def export(self, folder: Path) -> dict[str, int]:
        """Write every table and view as a CSV file; return the number of rows by file name.

        Numbers have all their digits; NULL is an empty cell. Raises StoreError if the folder cannot be written.
        """
        own = "type IN ('table', 'view') AND substr(name, 1, 1) <> '_' AND substr(name, 1, 7) <> 'sqlite_'"
        written = {}
        for one in self._db.read(f"SELECT name FROM sqlite_master WHERE {own} ORDER BY name"):
            name, file = one["name"], folder / f"{one['name']}.csv"
            columns, counted = self._db.read(f'PRAGMA table_xinfo("{name}")'), count()
            with checkpoints.writing(file), replacing(file) as content:
                text = io.TextIOWrapper(content, encoding="utf-8", newline="")
                writer = csv.writer(text, lineterminator="\n")
                writer.writerow(row["name"] for row in columns if row["hidden"] != 1)  # 1: `SELECT *` omits it
                rows = zip(self._db.each(f'SELECT * FROM "{name}"'), counted, strict=False)
                writer.writerows(map(csv_cell, row) for row, _ in rows)
                text.detach()  # flushes, and leaves the file open
            written[file.name] = next(counted)
        return written

    def check(self, advance: Callable[[int], None] = lambda done: None) -> tuple[list[str], list[str]]:
        """Return the damage of the database and its checkpoints, and the files that belong to no row.

        `advance` is called after every run; reading the checkpoints takes 3 ms per megabyte.
        """
        damage = [*self._damage_of_database(), *self._damage_of_checkpoints(advance)]
        return damage, [f"{path}: no row of the database refers to this file" for path in self._orphans()]

    def _damage_of_database(self) -> Iterator[str]:
        for row in self._db.read("PRAGMA integrity_check"):
            if row["integrity_check"] != "ok":
                yield f"database: {row['integrity_check']}"
        for row in self._db.read("PRAGMA foreign_key_check"):
            where = f"{row['table']} row {row['rowid']}" if row["rowid"] is not None else row["table"]
            yield f"database: {where} points at a row of {row['parent']} that is gone"

    def _damage_of_checkpoints(self, advance: Callable[[int], None]) -> Iterator[str]:
        for run in self._runs.every():
            advance(1)
            if run.checkpoint is None:
                if run.state == "complete":
                    yield f"run {run.id}: complete, but without a checkpoint"
                continue
            try:
                path = self._runs.file_of(run)
                checkpoints.load(path, run, run.checkpoint_sha256)
            except StoreError as error:
                # A run that ended between the writes of file and row can continue from the previous checkpoint.
                with suppress(StoreError):
                    if run.state != "complete":
                        known = run.checkpoint_sha256, run.previous_sha256
                        checkpoints.load(checkpoints.previous(self._runs.file_of(run)), run, *known)
                        continue
                yield f"run {run.id}: {error}"

    def _orphans(self) -> Iterator[Path]:
        rows = self._db.read("SELECT checkpoint FROM runs WHERE checkpoint IS NOT NULL")
        known = {self._db.real.parent / path_of(row["checkpoint"]) for row in rows}
        known |= {checkpoints.previous(path) for path in known}
        found = sorted(self._db.folder("checkpoints").glob("*"))
        yield from (path for path in found if path not in known and path.is_file())
        tables = {"run": "runs", "study": "studies", "gradcheck": "gradient_checks"}
        there = {kind: {row["id"] for row in self._db.each(f"SELECT id FROM {tables[kind]}")} for kind in tables}
        yield from (path for kind, shown, path in self._pictures() if not shown <= there[kind])


# run-000007.png, run-000007-000009-curves.png, study-000003-lambda.svg
_PICTURE = re.compile(r"(run|study|gradcheck)-(\d{6,}(?:-\d{6,})*)[.-]")


@contextmanager
def _removing(files: Sequence[Path]) -> Iterator[None]:
    """Remove files if the block succeeds. If it fails, or one cannot be removed, all are still there."""
    renamed: list[tuple[Path, Path]] = []
    try:
        for file in files:
            if file.is_dir() and not file.is_symlink():
                raise StoreError(f"{file}: this is a folder, move it away, nothing was deleted")
            aside = file.with_name(f"{file.name}.deleted")
            try:
                file.rename(aside)
            except OSError as error:
                raise StoreError(f"{file}: cannot be deleted ({error.strerror}), nothing was deleted") from error
            renamed.append((aside, file))
        yield
    except BaseException:
        for aside, file in renamed:
            aside.rename(file)
        raise
    for aside, _ in renamed:
        aside.unlink(missing_ok=True)
