"""Upkeep: notes and tags, deletion, export, and a check of the database and the files beside it."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from klcli.errors import ConfigError, StoreError
from klcli.store import checkpoints
from klcli.store.connection import Database
from klcli.store.records import Run
from klcli.store.runs import Runs


@dataclass(frozen=True)
class Finding:
    """Something that a check of the database has found."""

    what: str
    is_damage: bool  # or only a file that no row names


class Upkeep:
    """Changes that a user asks for, and the files beside the database."""

    def __init__(self, db: Database, runs: Runs) -> None:
        self._db = db
        self._runs = runs

    def set_note(self, run_id: int, note: str) -> None:
        """Store a note with a run, in the place of an earlier one; an empty one removes it."""
        self._runs.get(run_id)
        with self._db.write() as db:
            db.table("runs").update(run_id, {"note": note or None})

    def add_tag(self, run_id: int, tag: str) -> None:
        """Give a run a tag, a single word."""
        self._set_tags(run_id, tag, lambda tags: [*(one for one in tags if one != tag), tag])

    def remove_tag(self, run_id: int, tag: str) -> None:
        """Remove a tag from a run. Raises ConfigError where it has none of that name."""
        if tag not in (self._runs.get(run_id).tags or "").split():
            raise ConfigError(f"--untag {run_id} {tag!r}: this run has no such tag")
        self._set_tags(run_id, tag, lambda tags: [one for one in tags if one != tag])

    def _set_tags(self, run_id: int, tag: str, change: Callable[[list[str]], list[str]]) -> None:
        if not tag or tag.split() != [tag]:
            raise ConfigError(f"tag {tag!r}: must be one word without spaces")
        self._runs.get(run_id)
        with self._db.write() as db:
            tags = (self._runs.get(run_id).tags or "").split()
            db.table("runs").update(run_id, {"tags": " ".join(change(tags)) or None})

    def delete(self, run_ids: Sequence[int]) -> list[Path]:
        """Delete runs with their epochs, checkpoints and pictures; return the deleted files.

        A study that loses a run records its position, so that it is never resumed as if it were complete; one
        that loses all is deleted. Raises ConfigError for a run that is being trained.
        """
        runs = [self._runs.get(run_id) for run_id in dict.fromkeys(run_ids)]
        for run in runs:
            if run.state == "running":
                raise ConfigError(f"--delete {run.id}: process {run.pid} on {run.host} is training this run")
        with self._db.write() as db:
            for run in runs:
                db.execute("DELETE FROM runs WHERE id = ?", [run.id])
                if run.study_id is not None:
                    db.execute(
                        "UPDATE studies SET settings = json_insert("
                        "json_insert(settings, '$.deleted_members', json('[]')), '$.deleted_members[#]', ?)"
                        " WHERE id = ?",
                        [run.member, run.study_id],
                    )
            db.execute(
                "DELETE FROM studies WHERE id IN (SELECT value FROM json_each(?))"
                " AND NOT EXISTS (SELECT 1 FROM runs WHERE study_id = studies.id)",
                [json.dumps([run.study_id for run in runs])],
            )
        # The rows first: `check` finds a file that no row names; a row without its file is damage.
        files = [file for run in runs for file in self._files_of(run)]
        for file in files:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(f"{file}: the run is deleted, its file is not ({error.strerror})") from error
        return files

    def _files_of(self, run: Run) -> list[Path]:
        """The checkpoint and the pictures of a run, as far as they are there."""
        own = [self._db.path.parent / run.checkpoint] if run.checkpoint else []
        own += [checkpoints.previous(path) for path in own]
        pictures = [*self._db.folder("plots").glob(f"run-{run.id:06d}.*")]
        pictures += self._db.folder("plots").glob(f"run-{run.id:06d}-*")
        return [file for file in [*own, *sorted(pictures)] if file.exists()]

    def export(self, folder: Path) -> dict[str, int]:
        """Write every table and view as a CSV file; return the number of rows by file name.

        Numbers have all their digits; NULL is an empty cell. Raises StoreError where the folder cannot be written.
        """
        names = self._db.read(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
            " AND name NOT LIKE 'sqlite!_%' ESCAPE '!' AND name NOT LIKE '!_%' ESCAPE '!' ORDER BY name"
        )
        written = {}
        for name in (row["name"] for row in names):
            columns = [row["name"] for row in self._db.read(f'PRAGMA table_xinfo("{name}")')]
            rows = self._db.read(f'SELECT * FROM "{name}"')
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([row[column] for column in columns] for row in rows)
            checkpoints.write_atomically(folder / f"{name}.csv", text.getvalue().encode())
            written[f"{name}.csv"] = len(rows)
        return written

    def check(self) -> list[Finding]:
        """Check the database and every checkpoint, and find files that belong to no run."""
        return [*self._damage_of_database(), *self._damage_of_checkpoints(), *self._orphans()]

    def _damage_of_database(self) -> list[Finding]:
        integrity = [row["integrity_check"] for row in self._db.read("PRAGMA integrity_check")]
        found = [Finding(f"database: {line}", True) for line in integrity if line != "ok"]
        for row in self._db.read("PRAGMA foreign_key_check"):
            where = f"{row['table']} row {row['rowid']}" if row["rowid"] is not None else row["table"]
            found.append(Finding(f"database: {where} points at a row of {row['parent']} that is gone", True))
        return found

    def _damage_of_checkpoints(self) -> list[Finding]:
        found = []
        for run in self._runs.where("1 ORDER BY id"):
            if run.checkpoint is None:
                damage = "complete, but it names no checkpoint" if run.state == "complete" else None
            else:
                path = self._db.path.parent / run.checkpoint
                damage = self._damage_of(path, {run.checkpoint_sha256})
                if run.state != "complete":  # where it ended between the file and the row, the one before is used
                    known = {run.checkpoint_sha256, run.previous_sha256}
                    damage = damage and self._damage_of(checkpoints.previous(path), known) and damage
            if damage:
                found.append(Finding(f"run {run.id}: {damage}", True))
        return found

    def _damage_of(self, path: Path, known: set[str | None]) -> str | None:
        """What is wrong with a checkpoint, None where it has one of these checksums."""
        try:
            found = checkpoints.load(path).sha256
        except StoreError as error:
            return str(error)
        return None if found in known else f"{path}: this checkpoint holds another network than it should"

    def _orphans(self) -> list[Finding]:
        rows = self._db.read("SELECT checkpoint FROM runs WHERE checkpoint IS NOT NULL")
        known = {self._db.path.parent / row["checkpoint"] for row in rows}
        known |= {checkpoints.previous(path) for path in known}
        folder = self._db.folder("checkpoints")
        found = [path for path in sorted(folder.glob("*")) if path not in known and path.is_file()]
        for kind, table in (("run", "runs"), ("study", "studies")):
            there = {f"{row['id']:06d}" for row in self._db.read(f"SELECT id FROM {table}")}
            pictures = sorted(self._db.folder("plots").glob(f"{kind}-[0-9][0-9][0-9][0-9][0-9][0-9]*"))
            found += [path for path in pictures if path.name[len(kind) + 1 :][:6] not in there]
        return [Finding(f"{path}: nothing in the database points at this file", False) for path in found]
