"""Copies: a database that does not change meanwhile; checkpoints and pictures, renamed into place together."""

import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from klcli.errors import StoreError
from klcli.files import replacing_all
from klcli.store import checkpoints
from klcli.store.connection import BUSY_SECONDS, explained

PORTION = 500  # temporary files at the same time
THREADS = 8  # flushing 1000 small files one after the other takes 5 s on a usual disk, in threads 1 s


@contextmanager
def unchanging(path: Path) -> Iterator[None]:
    """Keep other processes from writing to a database inside the block. Raises StoreError."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with explained(path), closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
        # With the journal of a killed process it cannot be read so, and no process writes to it.
        with suppress(sqlite3.OperationalError):
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        yield


class Copy(NamedTuple):
    """A file and its place in this database."""

    source: Path
    target: Path


def copy_files(files: Sequence[Copy]) -> None:
    """Copy files. Raises StoreError if one cannot be read or written; no file is then incomplete."""
    for folder in dict.fromkeys(one.target.parent for one in files):
        own = [one for one in files if one.target.parent == folder]
        for portion in (own[start : start + PORTION] for start in range(0, len(own), PORTION)):
            with (
                checkpoints.writing(portion[0].target),
                replacing_all([one.target for one in portion]) as temporaries,
                ThreadPoolExecutor(THREADS) as pool,
            ):
                for _ in pool.map(_copy, [one.source for one in portion], temporaries):
                    pass


def _copy(source: Path, temporary: Path) -> None:
    try:
        content = source.open("rb")
    except OSError as error:
        raise StoreError(f"{source}: cannot be read ({error.strerror})") from error
    with content, temporary.open("r+b") as file:
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())
