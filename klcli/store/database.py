"""Database: an open file, migrated, read by rows and written by transactions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from klcli.errors import StoreError
from klcli.store.connection import connect, explained, transaction
from klcli.store.process import ProcessIdentity

Row = dict[str, Any]  # one record, by column name


class Database:
    """What every store has in common; on opening, the runs and studies of dead processes are marked interrupted.

    Every method that writes is one transaction. All methods raise StoreError, one line with the cure.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the database at `path`."""
        self.path = path
        self._db = connect(path)
        # A database that cannot be written can still be read; who wants to write will be told.
        with suppress(StoreError):
            self._mark_dead_runs()

    @classmethod
    def existing(cls, path: Path) -> Self:
        """Open the database at `path`. Raises StoreError where there is none."""
        if not path.exists():
            raise StoreError(
                f"{path}: there is no database here yet, `klcli train` makes one (or name another with --db)"
            )
        return cls(path)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def folder(self, kind: str) -> Path:
        """Return the folder of the "checkpoints" or "plots" that belong to this database, beside it.

        Two databases in one folder must not share files, so a name other than klcli.db goes in front.
        """
        return self.path.parent / (kind if self.path.stem == "klcli" else f"{self.path.stem}-{kind}")

    def _mark_dead_runs(self) -> None:
        """Mark the running runs whose process is gone as interrupted; nobody else can."""
        gone = [
            row["id"]
            for row in self._read("SELECT id, host, pid, process_started_at FROM runs WHERE state = 'running'")
            if ProcessIdentity(row["host"], row["pid"], row["process_started_at"]).is_gone()
        ]
        if not gone:
            return
        with self._write():
            for run_id in gone:
                self._db.execute(
                    "UPDATE runs SET state = 'interrupted', error = 'its process ended without a word'"
                    " WHERE id = ? AND state = 'running'",
                    [run_id],
                )
            self._db.execute(
                "UPDATE studies SET state = 'interrupted' WHERE state = 'running'"
                " AND NOT EXISTS (SELECT 1 FROM runs WHERE study_id = studies.id AND state = 'running')"
            )

    def _read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with explained(self.path):
            return [dict(row) for row in self._db.execute(sql, parameters).fetchall()]

    @contextmanager
    def _write(self) -> Iterator[None]:
        with explained(self.path), transaction(self._db):
            yield


def now() -> str:
    """The time as the database keeps it: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
