"""Upkeep: notes, tags, deletion, export, and a check of the database and its files."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from klcli.errors import ConfigError, StoreError
from klcli.store import checkpoints
from klcli.store.connection import Database
from klcli.store.records import Run
from klcli.store.runs import Runs


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
                raise ConfigError(f"--delete {run.id}: process {run.pid} on {run.host} is training this run")
        with self._db.write() as db:
            for run in runs:
                db.execute("DELETE FROM runs WHERE id = ?", [run.id])
                with_list = "json_insert(settings, '$.deleted_members', json('[]'))"
                longer = f"json_insert({with_list}, '$.deleted_members[#]', ?)"
                db.execute(f"UPDATE studies SET settings = {longer} WHERE id = ?", [run.member, run.study_id])
                without_runs = "NOT EXISTS (SELECT 1 FROM runs WHERE study_id = studies.id)"
                db.execute(f"DELETE FROM studies WHERE id = ? AND {without_runs}", [run.study_id])
        # Delete the rows first: a file without a row is an orphan for `check`, a row without its file is damage.
        files = [file for run in runs for file in self._files_of(run)]
        for file in files:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(f"{file}: the run is deleted, its file is not ({error.strerror})") from error
        return files

    def _files_of(self, run: Run) -> list[Path]:
        own = [self._db.path.parent / run.checkpoint] if run.checkpoint else []
        pictures = sorted(self._db.folder("plots").glob(f"run-{run.id:06d}[.-]*"))
        return [file for file in [*own, *map(checkpoints.previous, own), *pictures] if file.exists()]

    def export(self, folder: Path) -> dict[str, int]:
        """Write every table and view as a CSV file; return the number of rows by file name.

        Numbers have all their digits; NULL is an empty cell. Raises StoreError if the folder cannot be written.
        """
        own = "type IN ('table', 'view') AND substr(name, 1, 1) <> '_' AND substr(name, 1, 7) <> 'sqlite_'"
        written = {}
        for one in self._db.read(f"SELECT name FROM sqlite_master WHERE {own} ORDER BY name"):
            name, text = one["name"], io.StringIO()
            rows, columns = self._db.read(f'SELECT * FROM "{name}"'), self._db.read(f'PRAGMA table_xinfo("{name}")')
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(row["name"] for row in columns if row["hidden"] != 1)  # 1: `SELECT *` omits it
            writer.writerows(map(dict.values, rows))
            checkpoints.write_atomically(folder / f"{name}.csv", text.getvalue().encode())
            written[f"{name}.csv"] = len(rows)
        return written

    def check(self) -> tuple[list[str], list[str]]:
        """Return the damage of the database and its checkpoints, and the files that belong to no row."""
        damage = [*self._damage_of_database(), *self._damage_of_checkpoints()]
        return damage, [f"{path}: no row of the database refers to this file" for path in self._orphans()]

    def _damage_of_database(self) -> Iterator[str]:
        for row in self._db.read("PRAGMA integrity_check"):
            if row["integrity_check"] != "ok":
                yield f"database: {row['integrity_check']}"
        for row in self._db.read("PRAGMA foreign_key_check"):
            where = f"{row['table']} row {row['rowid']}" if row["rowid"] is not None else row["table"]
            yield f"database: {where} points at a row of {row['parent']} that is gone"

    def _damage_of_checkpoints(self) -> Iterator[str]:
        for run in self._runs.where("1 ORDER BY id"):
            if run.checkpoint is None:
                if run.state == "complete":
                    yield f"run {run.id}: complete, but without a checkpoint"
                continue
            path = self._db.path.parent / run.checkpoint
            try:
                checkpoints.load(path, run.id, run.checkpoint_sha256)
            except StoreError as error:
                # A run that ended between the writes of file and row can continue from the previous checkpoint.
                with suppress(StoreError):
                    if run.state != "complete":
                        known = run.checkpoint_sha256, run.previous_sha256
                        checkpoints.load(checkpoints.previous(path), run.id, *known)
                        continue
                yield f"run {run.id}: {error}"

    def _orphans(self) -> Iterator[Path]:
        rows = self._db.read("SELECT checkpoint FROM runs WHERE checkpoint IS NOT NULL")
        known = {self._db.path.parent / row["checkpoint"] for row in rows}
        known |= {checkpoints.previous(path) for path in known}
        found = sorted(self._db.folder("checkpoints").glob("*"))
        yield from (path for path in found if path not in known and path.is_file())
        for kind, table in (("run", "runs"), ("study", "studies")):
            there = {f"{kind}-{row['id']:06d}" for row in self._db.read(f"SELECT id FROM {table}")}
            pictures = sorted(self._db.folder("plots").glob(f"{kind}-[0-9][0-9][0-9][0-9][0-9][0-9]*"))
            yield from (path for path in pictures if path.name[: len(kind) + 7] not in there)
