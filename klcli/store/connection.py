"""Database: one connection to a migrated file, with SQLite's errors converted to one line with the cure."""

import json
import math
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlite_utils
from sqlite_utils.db import NotFoundError

from klcli.errors import ConfigError, StoreError
from klcli.files import irregular, make_folder
from klcli.settings.setting import python_number
from klcli.store.reading import JOURNALS, TemporaryCopy, folder_of, read_only_uri, view_in_place
from klcli.store.schema import additions, migrations
from klcli.termination import raise_deferred

BUSY_SECONDS = 60  # time that a write waits for other writers before it fails
SLICE_SECONDS = 0.1  # SQLite's own timeout of one attempt: between attempts, deferred signals are checked
GRACE_SECONDS = 2.0  # in which a write can still succeed after a signal, so that no result is lost to a short lock
CHECKED_BYTES = 100_000_000  # 10 000 runs of 20 epochs take 33 MB and 0.1 s; a larger file is opened unchecked
# The actions allowed to a user's condition: only reading. SQLite itself refuses all others.
_READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
_TOO_LARGE = {sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_FULL}  # the latter by the query's own temporary files
_USERS_FAULT = {None, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}


def measured(value: Any) -> Any:
    """Return a measurement, None for one that is not finite: no table can show it, and no mean can contain it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(kind: type, text: str) -> Any:
    value = json.loads(text)
    return value if isinstance(value, kind) else kind()  # one foreign row must not hide all others


# Parsers of columns by the type of the field.
_PARSERS: dict[Any, Callable[[Any], Any]] = {
    bool: bool, float | None: measured, dict[str, Any]: partial(_json, dict), list[int]: partial(_json, list)
}  # fmt: skip

last_opened: list[Path] = []  # paths opened by this process; one, or none yet
last_written: list[Path] = []  # that of the last transaction of this process
Record = TypeVar("Record")
Result = TypeVar("Result")


class Database:
    """The connection that all parts of a Store share, to a migrated file or a copy of it. Raises StoreError."""

    def __init__(self, path: Path, *, is_copied: bool = False) -> None:
        self.path, self.is_open = path, True
        self.copy: TemporaryCopy | None = None  # read instead of a read-only file
        with explained(path):
            if what := irregular(path):
                raise StoreError(f"{path}: this is {what}, not a database, choose another with --db")
            # Checkpoints, pictures and locks are beside the file itself, not beside a link to it.
            self.real = path.resolve() if path.is_symlink() else path
            for suffix in JOURNALS:
                if self.real.name.endswith(suffix):
                    its = self.real.name.removesuffix(suffix)
                    words = f"SQLite keeps the changes to {its} under this name, choose another with --db"
                    raise StoreError(f"{path}: {words}")
                # SQLite would wait for a pipe without end.
                if what := irregular(beside := Path(f"{self.real}{suffix}")):
                    raise StoreError(f"{beside}: this is {what} in the place of a file of SQLite, remove it")
            try:
                make_folder(self.real.parent)
            except OSError as error:
                words = f"cannot make this folder ({error.strerror}), choose another with --db"
                raise StoreError(f"{path.parent}: {words}") from error
            last_opened[:] = [self.real.absolute()]
            try:
                if is_copied:
                    self._open_copy()
                else:
                    self._db = _opened(self.real.absolute(), path)
            except sqlite3.OperationalError as error:
                if not self.read_copy(error):
                    raise
            self._inode = self.real.stat().st_ino

    def read_copy(self, error: sqlite3.Error) -> bool:
        """Read a temporary copy from now on if `error` says that a file cannot be written; return whether it does.

        On a copy, changes are possible that reading needs: new columns, a transaction to roll back, the journal of
        a database that an earlier klcli left in WAL mode, and the states of dead runs.
        """
        if _code(error) not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN) or self.copy:
            return False
        try:
            self._open_copy()
        except (OSError, sqlite3.OperationalError):  # the file cannot be read either
            return False
        return True

    def _open_copy(self) -> None:
        with closing(sqlite3.connect(read_only_uri(self.real.absolute()), uri=True, timeout=BUSY_SECONDS)) as reader:
            try:  # to keep other processes from writing while the files are copied
                reader.execute("BEGIN")
                reader.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            except sqlite3.OperationalError as error:
                # With the journal of a killed process it cannot be read so, and no process writes to it.
                if _code(error) == sqlite3.SQLITE_BUSY:
                    raise
            self.copy = TemporaryCopy(self.real)
        if hasattr(self, "_db"):
            self._db.close()
        self._db = _opened(self.copy.file, self.path)

    def require_place(self) -> None:
        """Raise StoreError if the file was moved: the files beside its path may be those of another database."""
        if not self.real.exists() or self.real.stat().st_ino != self._inode:  # as SQLite does before a write
            raise StoreError(f"{self.path}: {_MOVED_AWAY}")

    def protect_copy(self) -> None:
        if self.copy:
            self._db.execute("PRAGMA query_only = ON")

    def close(self) -> None:
        self.is_open = False
        self._db.close()
        if self.copy:
            self.copy.remove()

    def __del__(self) -> None:
        """Close SQLite's connection, which refers to itself and would stay open until Python looks for cycles."""
        with suppress(AttributeError, sqlite3.Error):  # it was never opened, or by another thread
            self.close()

    def folder(self, kind: str) -> Path:
        return folder_of(self.real, kind)

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        return [dict(row) for row in self.each(sql, parameters)]

    def each(self, sql: str, parameters: Sequence[Any] = ()) -> Generator[sqlite3.Row, None, None]:
        """Yield the rows of a query, which need not fit into memory. Until the last one, no other process can write."""
        with explained(self.path):
            yield from _waiting(lambda: self._db.execute(sql, [*map(python_number, parameters)]))

    def records(self, kind: type[Record], source: str, parameters: Sequence[Any] = ()) -> Iterator[Record]:
        """Yield records from `source`, the SQL after FROM, with a column for each field of the record."""
        # The errors of a gradient check are rows in another table.
        types = {one.name: one.type for one in fields(kind) if one.name != "errors"}  # type: ignore[arg-type]
        parsers = [(name, _PARSERS[of]) for name, of in types.items() if of in _PARSERS]
        columns = ", ".join(getattr(kind, "EXPRESSIONS", {}).get(name, name.removesuffix("_json")) for name in types)
        try:
            for row in self.each(f"SELECT {columns} FROM {source}", parameters):
                values = dict(zip(types, row, strict=True))
                for name, parser in parsers:
                    values[name] = parser(values[name])
                record = object.__new__(kind)
                vars(record).update(values)  # setting 50 frozen fields one by one takes 5 us
                yield record
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.path}: a value in this database is not JSON ({error}), {RESTORE}") from error

    @contextmanager
    def write(self) -> Iterator[sqlite_utils.Database]:
        with explained(self.path), transaction(self._db):
            yield self._db
        last_written[:] = [self.path]

    @contextmanager
    def reading_only(self, where: str | None) -> Iterator[None]:
        """Prevent writes by a query with a user's condition. Raises ConfigError if the condition is not valid SQL."""
        if where is None:
            yield
            return
        self._db.conn.set_authorizer(lambda code, *_: sqlite3.SQLITE_OK if code in _READING else sqlite3.SQLITE_DENY)
        try:
            self.read(f"EXPLAIN SELECT 1 FROM runs WHERE {where}")  # `1) OR (1` would escape the other conditions
            yield
        except (StoreError, MemoryError) as error:
            cause: Any = error.__cause__
            if isinstance(error, MemoryError) or _code(cause) in _TOO_LARGE:
                cause = f"too large or without end ({cause or 'out of memory'})"
            # An error without a code comes from Python itself, for two statements in one.
            elif not isinstance(cause, sqlite3.Error | sqlite3.Warning) or _code(cause) not in _USERS_FAULT:
                raise
            words = "it is an SQL condition on the columns of runs, see `klcli help database`"
            raise ConfigError(f"--where {where!r}: {cause}; {words}") from None
        finally:
            self._db.conn.set_authorizer(None)


def _opened(file: Path, path: Path) -> sqlite_utils.Database:
    """Open and migrate `file`, an absolute path: some builds of SQLite take `file:x` as a URI of another file."""
    with ExitStack() as unless_it_opens:
        # isolation_level None: only explicit statements begin transactions.
        connection = sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)
        unless_it_opens.callback(connection.close)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        # Also the removal of the journal, which commits, survives a power cut.
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("PRAGMA fullfsync = ON")  # of macOS, see `files.flush`
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            # Several releases of SQLite can damage such a database, and a copy of the file alone lacks rows.
            with suppress(sqlite3.OperationalError):  # an older klcli has it open
                connection.execute("PRAGMA journal_mode = DELETE")
        # Check the whole file first: damage found later would leave an incomplete result.
        if file.stat().st_size <= CHECKED_BYTES:
            [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise _damaged(path, found)
        if view := view_in_place(connection):
            raise StoreError(f"{path}: its {view} is a view in the place of a table of klcli, {RESTORE}")
        db = sqlite_utils.Database(connection, execute_plugins=False)
        newer = {one.name for one in migrations.applied(db)} - {one.name for one in migrations._migrations}
        if newer:
            raise StoreError(f"{path}: a newer klcli wrote this database ({max(newer)}), update klcli to open it")
        pending = migrations.pending(db)
        if pending or additions(db):
            # A database can be read without additions, but not without a migration step.
            with suppress(*() if pending else (sqlite3.OperationalError,)), transaction(db):
                migrations.apply(db)
                for statement in additions(db):
                    db.execute(statement)
        connection.execute(f"PRAGMA busy_timeout = {1000 * min(SLICE_SECONDS, BUSY_SECONDS):.0f}")
        unless_it_opens.pop_all()
        return db


def next_number(db: sqlite_utils.Database, table: str) -> int:
    """Return a number that no row of `table` has or had, inside a transaction."""
    highest = f'max(last, (SELECT coalesce(max(id), 0) FROM "{table}")) + 1'
    [[number]] = db.execute(f"UPDATE _numbers SET last = {highest} WHERE name = ? RETURNING last", [table]).fetchall()
    return int(number)


def damage_behind_a_failure() -> StoreError | None:
    """Return the damage that the full check, which takes seconds, finds in the open database, None if it is sound."""
    for path in filter(Path.exists, last_opened):
        try:
            with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
                [found] = connection.execute("PRAGMA integrity_check(1)").fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            found = str(error) if _code(error) == sqlite3.SQLITE_CORRUPT else "ok"
        return None if found == "ok" else _damaged(path, found)
    return None


def _damaged(path: Path, found: str) -> StoreError:
    return StoreError(f"{path}: this database is damaged, {RESTORE} ({' '.join(found.split())})")


def _code(error: BaseException | None) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code if code is None else code & 0xFF


@contextmanager
def transaction(db: sqlite_utils.Database) -> Iterator[None]:
    """Make the block one atomic write. It takes the lock first: a deferred lock can fail in the middle."""
    try:
        _waiting(lambda: db.conn.execute("BEGIN IMMEDIATE"))
        yield
        _waiting(lambda: db.conn.execute("COMMIT"))  # waits for readers
    except BaseException:
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")
        raise


def _waiting(attempt: Callable[[], Result]) -> Result:
    """Return the result of a statement, which is repeated while another program has locked the database.

    Raises Interrupted after a deferred signal and GRACE_SECONDS; the next opening of the database then marks the run.
    """
    begun = time.monotonic()
    while True:
        started = time.monotonic()
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            failed = time.monotonic()
            # SQLite does not wait if only this process could release the lock.
            has_waited = failed - started > min(SLICE_SECONDS, BUSY_SECONDS) / 2
            if _code(error) != sqlite3.SQLITE_BUSY or failed - begun >= BUSY_SECONDS or not has_waited:
                raise
        if failed - begun > min(GRACE_SECONDS, BUSY_SECONDS):
            raise_deferred()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Convert SQLite's errors to one line that names the file, the cause and the cure."""
    try:
        yield
    except UnicodeDecodeError as error:  # also for SQLite's own message about a text
        raise StoreError(f"{path}: a text in this database is not UTF-8, {RESTORE}") from error
    except (NotFoundError, OverflowError) as error:  # raised by a number too large for an SQLite integer
        raise StoreError(f"{path}: there is no such row ({error})") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"{path}: cannot be read or written ({reason}), choose another with --db") from error
    except (sqlite3.Error, sqlite3.Warning) as error:
        code, reason = _code(error), str(error)
        if code == sqlite3.SQLITE_CORRUPT:
            raise _damaged(path, reason) from error
        # SQLite refuses to write to a file that is no longer at its path, or cannot make its journal.
        is_moved = getattr(error, "sqlite_errorcode", None) == _MOVED or not path.exists()
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR) and is_moved:
            raise StoreError(f"{path}: {_MOVED_AWAY}") from error
        if code == sqlite3.SQLITE_CANTOPEN:
            reason = _why_it_cannot_be_opened(path)
        cure = _OF_THE_CALLER if isinstance(error, sqlite3.ProgrammingError) else RESTORE
        otherwise = f"SQLite reports {reason!r} ({getattr(error, 'sqlite_errorname', type(error).__name__)}), {cure}"
        raise StoreError(f"{path}: {_CURES.get(code, otherwise).replace('{}', reason)}") from error


def _why_it_cannot_be_opened(path: Path) -> str:
    """Return the cause from the system; SQLite does not report it."""
    try:
        with path.open("r+b"), path.open("rb"), path.open("rb"):  # SQLite opens its journal and the folder as well
            return "its journal cannot be made beside it"
    except FileNotFoundError:
        return "its folder cannot be written"
    except OSError as error:
        return error.strerror or str(error)


RESTORE = "restore a copy or choose another with --db"
_OF_THE_CALLER = "give it numbers and texts, and take `lab.store` anew in each thread"  # for programs
_MOVED_AWAY = "this file was moved or deleted while it was open, name its new place with --db, continue with --resume"
_MOVED = sqlite3.SQLITE_READONLY | 4 << 8  # READONLY_DBMOVED, a name that not every build of the module has
_CURES: dict[int | None, str] = {
    sqlite3.SQLITE_ERROR: f"its tables or values are not those of klcli ({{}}), {RESTORE}",
    sqlite3.SQLITE_BUSY: f"another program has locked this database for {BUSY_SECONDS} s, close it and run again",
    sqlite3.SQLITE_CANTOPEN: "cannot open or create this file ({}), choose another with --db or change its permissions",
    sqlite3.SQLITE_READONLY: "this database cannot be written, choose another with --db or make it and its folder "
    "writable",
    sqlite3.SQLITE_NOTADB: "this is not an SQLite database, choose another file with --db",
    sqlite3.SQLITE_FULL: "the disk is full, free some space and run again",
    sqlite3.SQLITE_IOERR: "the disk could not be read or written ({}), check it for free space, faults and `ulimit -f`",
    sqlite3.SQLITE_NOMEM: "SQLite needs more memory than there is, close other programs and run again",
}
