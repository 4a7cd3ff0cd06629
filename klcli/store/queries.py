"""ReportStore: the questions that a report asks, with filters as parameters."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from klcli.errors import ConfigError
from klcli.store.database import Row
from klcli.store.studies import StudyStore

# What a condition of the user may do: read. Everything else is refused by SQLite itself.
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_USERS_FAULT = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Which runs; None is no condition."""

    dataset_sha256: str | None = None
    split: str | None = None  # JSON, as in the column
    state: str | None = None
    batch_norm: bool | None = None
    since: str | None = None  # UTC, ISO 8601, as in the column
    tag: str | None = None
    where: str | None = None  # an SQL condition of the user on the columns of runs

    def conditions(self) -> tuple[str, list[Any]]:
        """Return the SQL after WHERE and its parameters."""
        terms = {
            "dataset_sha256 = ?": self.dataset_sha256,
            "split = ?": self.split,
            "state = ?": self.state,
            "batch_norm = ?": None if self.batch_norm is None else int(self.batch_norm),
            "started_at >= ?": self.since,
            "instr(' ' || tags || ' ', ' ' || ? || ' ') > 0": self.tag,
        }
        given = {term: value for term, value in terms.items() if value is not None}
        own = [f"({self.where}\n)"] if self.where is not None else []  # a new line ends a comment of the user's
        return " AND ".join([*given, *own]) or "1", list(given.values())


@dataclass(frozen=True)
class Order:
    """A column of runs to sort by; runs without a value come last."""

    column: str
    descending: bool

    def sql(self) -> str:
        """Return what stands after ORDER BY. Descending, SQLite has NULL last anyway and can follow an index."""
        return f'"{self.column}" ' + ("DESC" if self.descending else "ASC NULLS LAST")


BEST_FIRST = Order("validation_accuracy", descending=True)


class ReportStore(StudyStore):
    """All that is stored, to be read."""

    def run_columns(self) -> list[str]:
        """Return the names of the columns of runs."""
        return [row["name"] for row in self._read("PRAGMA table_xinfo(runs)")]

    def image_sets(self, chosen: RunFilter) -> list[Row]:
        """Return what may share a ranking, the images used last first, and of these the split used most.

        Each has dataset, dataset_sha256, split, the number of runs and the id of the latest one.
        """
        condition, parameters = chosen.conditions()
        with self._guarded(chosen.where):
            found = self._read(
                "SELECT dataset, dataset_sha256, split, count(*) AS runs, max(id) AS latest FROM runs"
                f" WHERE {condition} GROUP BY dataset_sha256, split",
                parameters,
            )
        last_use: dict[str, int] = {}
        for row in found:
            last_use[row["dataset_sha256"]] = max(row["latest"], last_use.get(row["dataset_sha256"], 0))
        return sorted(found, key=lambda row: (-last_use[row["dataset_sha256"]], -row["runs"], -row["latest"]))

    def runs(self, chosen: RunFilter, order: Order, limit: int | None = None) -> list[Row]:
        """Return the runs of a filter in order; equal ones by number."""
        sql, parameters = self.query(chosen, order)
        with self._guarded(chosen.where):
            return self._read(f"{sql} LIMIT ?", [*parameters, -1 if limit is None else limit])

    def query(self, chosen: RunFilter, order: Order) -> tuple[str, list[Any]]:
        """Return the SQL of `runs` and its parameters. Raises ConfigError for a column that is none."""
        columns = self.run_columns()
        if order.column not in columns:
            raise ConfigError(f"--sort {order.column}: this is no column of runs, there are {', '.join(columns)}")
        condition, parameters = chosen.conditions()
        return f"SELECT * FROM runs WHERE {condition} ORDER BY {order.sql()}, id", parameters

    def count_by_state(self) -> dict[str, int]:
        """Return how many runs there are in each state."""
        return {row["state"]: row["n"] for row in self._read("SELECT state, count(*) AS n FROM runs GROUP BY state")}

    def studies(self) -> list[Row]:
        """Return all studies, the oldest first."""
        return self._read("SELECT * FROM studies ORDER BY id")

    def chain(self, study_id: int) -> list[Row]:
        """Return a study and those that it refines, the first one first."""
        studies = [self.study(study_id)]
        while studies[0]["parent"] is not None:
            studies.insert(0, self.study(studies[0]["parent"]))
        return studies

    def evaluations(self, run_ids: Sequence[int]) -> list[Row]:
        """Return the later evaluations in which one of these runs has a part, the oldest first.

        Each has the numbers of all its runs under "runs".
        """
        rows = self._read(
            "SELECT evaluations.*, evaluation_runs.run_id FROM evaluations"
            " JOIN evaluation_runs ON evaluation_id = id WHERE id IN"
            " (SELECT evaluation_id FROM evaluation_runs WHERE run_id IN (SELECT value FROM json_each(?)))"
            " ORDER BY id, run_id",
            [json.dumps(list(run_ids))],
        )
        found: dict[int, Row] = {}
        for row in rows:
            run_id = row.pop("run_id")
            found.setdefault(row["id"], row | {"runs": []})["runs"].append(run_id)
        return list(found.values())

    def latest_complete(self) -> Row | None:
        """Return the newest complete run."""
        rows = self._read("SELECT * FROM runs WHERE state = 'complete' ORDER BY id DESC LIMIT 1")
        return rows[0] if rows else None

    def gradient_suites(self) -> list[int]:
        """Return the numbers of the calls of gradcheck."""
        return [row["suite"] for row in self._read("SELECT DISTINCT suite FROM gradient_checks ORDER BY suite")]

    @contextmanager
    def _guarded(self, where: str | None) -> Iterator[None]:
        """Inside, a condition of the user can read and do nothing else. Raises ConfigError for what is no SQL."""
        if where is None:
            yield
            return
        connection = self._db.conn
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY)
        try:
            yield
        except Exception as error:
            cause = error.__cause__
            if isinstance(cause, sqlite3.Error) and _is_users_fault(cause):
                raise ConfigError(
                    f"--where {where!r}: {cause}; it is an SQL condition on the columns of runs"
                ) from None
            raise
        finally:
            connection.set_authorizer(None)


def _is_users_fault(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)  # missing where Python itself refuses, as two statements
    return code is None or code & 0xFF in _USERS_FAULT
