"""Copies: a database that does not change meanwhile; checkpoints and pictures, renamed into place together."""

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from klcli.errors import StoreError
from klcli.files import flush, replacing_all
from klcli.store import checkpoints
from klcli.store.connection import BUSY_SECONDS, explained
from klcli.store.reading import read_only_uri
from klcli.termination import at_the_end

PORTION = 500  # temporary files at the same time
Copy = tuple[Path, Path]  # a file, and its place in this database
THREADS = 8  # flushing 1000 small files one after the other takes 5 s on a usual disk, in threads 1 s


@contextmanager
def unchanging(path: Path) -> Iterator[None]:
    """Keep other processes from writing to a database inside the block. Raises StoreError."""
    uri = read_only_uri(path.absolute())
    with explained(path), closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        except sqlite3.OperationalError as error:
            # With the journal of a killed process it cannot be read so, and no process writes to it.
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise
        yield


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
