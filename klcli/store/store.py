"""Store: runs, studies, evaluations and gradient checks, each in its own class, over one connection."""

import sqlite3
from pathlib import Path
from typing import Self

from klcli.errors import StoreError
from klcli.settings.run_command import in_database
from klcli.store.connection import Database, explained
from klcli.store.later_checks import Evaluations, GradientChecks
from klcli.store.locks import Locks
from klcli.store.runs import Runs
from klcli.store.studies import Studies
from klcli.store.upkeep import Upkeep


class Store:
    """An open database; opening it marks the runs and studies of dead processes. Raises StoreError with the cure."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path)
        self.path = path
        self.folder = self._db.folder
        self.close = self._db.close
        self.locks = Locks(self._db.folder("locks"))
        self.runs = Runs(self._db, self.locks)
        self.studies = Studies(self._db, self.runs, self.locks)
        self.evaluations = Evaluations(self._db)
        self.gradient_checks = GradientChecks(self._db)
        self.upkeep = Upkeep(self._db, self.runs)
        try:
            self.runs.mark_dead()
        except StoreError as error:
            # A read-only database is read from a copy; one that another program writes is marked at the next opening.
            if isinstance(error.__cause__, sqlite3.Error) and self._db.read_copy(error.__cause__):
                self.runs.mark_dead()
        self._db.protect_copy()

    def is_current(self) -> bool:
        """Whether this is open, and the database itself or a copy that is read instead and is still equal to it."""
        copy = self._db.copy
        return self._db.is_open and (copy is None or copy.version == self._db.real.stat().st_mtime_ns)

    @classmethod
    def existing(cls, path: Path) -> Self:
        with explained(path):
            if path.exists():
                return cls(path)
        first = in_database("klcli train", path)
        raise StoreError(f"{path}: there is no database here, `{first}` creates one (or name another with --db)")
