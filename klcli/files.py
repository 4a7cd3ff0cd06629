"""Atomic writes: a file is replaced as a whole or not at all. Every function raises OSError if the disk fails."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def replacing(path: Path, *, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """Yield a binary file that replaces `path` if the block ends without an exception.

    With `previous`, the old file is kept under that name. The bytes are written to a temporary file in the same folder,
    flushed to the disk and renamed, so `path` is never an incomplete file, whenever the machine stops.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, escape(path.name))
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove the temporary files that killed processes left for `name`, a glob pattern."""
    for temporary in folder.glob(f".{name}.*"):
        import psutil  # slow to import, and temporary files are rarely left

        pid = temporary.suffix[1:]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            temporary.unlink(missing_ok=True)
