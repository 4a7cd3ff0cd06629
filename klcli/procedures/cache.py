"""The cache folder: what klcli keeps there, and the removal of what it can make again."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from klcli.compiled import code_name
from klcli.data.cifar10 import layouts, prepared
from klcli.data.cifar10.reading import locate
from klcli.data.dataset import BUILT_IN
from klcli.data.sources import key_of
from klcli.errors import DataError
from klcli.files import remove_leftovers, unheld
from klcli.text import path_of, path_text

IMAGES, CODE, BLAS, DOWNLOAD = "prepared images", "compiled code", "BLAS check", "download"
CURRENT, HELD, READ_ONLY = "current", "in use", "read-only"


@dataclass(frozen=True)
class Kept:
    """One thing in the cache."""

    kind: str
    path: Path
    bytes: int
    source: str  # what it was made of
    state: str  # `current`, `in use`, `read-only` for this user, or why nothing will use it
    lock: Path | None = None  # the file that the processes which use it hold
    files: Sequence[Path] = ()  # that are removed with it

    @property
    def is_removable(self) -> bool:
        return self.kind != DOWNLOAD and self.state not in (HELD, READ_ONLY)


def kept() -> list[Kept]:
    """Return what is in the cache folder: copies of images, compiled code, checks of BLAS and downloads.

    Files that are not klcli's are not among them, wherever the folder is. Raises OSError if it cannot be read.
    """
    made = [*_copies(), *_code(), *_verdicts()]
    return [*(replace(one, state=_state(one)) for one in made), *_downloads()]


def clear() -> list[Kept]:
    """Remove what klcli can make again and no process uses, and return it. A download stays: it may be the only one."""
    removed = []
    for one in kept():
        with unheld(one.lock) as is_free, suppress(OSError):  # a process can have begun to use it since it was listed
            if one.is_removable and is_free:
                if one.kind == CODE:  # renamed first, so that a process that begins now makes a folder of its own
                    shutil.rmtree(one.path.rename(one.path.with_name(secrets.token_hex(8))))
                for file in one.files:
                    file.unlink(missing_ok=True)
                removed.append(one)
    remove_leftovers(prepared.folder())
    return removed


def _copies() -> Iterator[Kept]:
    if not prepared.folder().is_dir():
        return
    files, notes = prepared.own_files(), [*prepared.notes()]  # a copy that is listed has its note by then
    for path in (one for one in files if one.suffix != ".json"):
        own = [note for note in notes if note["sha256"] == path.stem]
        current = [note for note in own if path.suffix == prepared.SUFFIX and _is_current(note)]
        sources = ", ".join(sorted({note["source"] for note in current or own})) or "unknown"
        state = CURRENT if current else "its source is gone or has changed" if own else "of another klcli"
        together = [path, *(one for one in files if one.stem in {note["key"] for note in own})]
        yield Kept(IMAGES, path, _size(path), sources, state, path, together)


def _is_current(note: dict[str, str]) -> bool:
    with suppress(OSError, DataError):
        source = None if note["source"] == BUILT_IN else locate(path_of(note["source"]))
        return key_of(source) == note["key"]
    return False


def _code() -> Iterator[Kept]:
    for path in sorted((prepared.cache_folder() / "compiled").glob("*")):
        if re.fullmatch("[0-9a-f]{16}", path.name) and path.is_dir() and not path.is_symlink():
            state = CURRENT if path.name == code_name() else "of another version"
            yield Kept(CODE, path, _size(path), "klcli, NumPy", state)


def _verdicts() -> Iterator[Kept]:
    folder = prepared.cache_folder() / "blas"
    files = [path for path in sorted(folder.glob("*.json")) if re.fullmatch("[0-9a-f]{16}", path.stem)]
    if files:
        yield Kept(BLAS, folder, sum(map(_size, files)), "NumPy", CURRENT, files=files)


def _downloads() -> Iterator[Kept]:
    folder = prepared.cache_folder()
    for path in sorted(folder.glob("*")):
        complete = path.name in {layout.archive for layout in layouts.LAYOUTS}
        if complete or path.suffix == ".part":
            state = "complete" if complete else "incomplete, the same `klcli data fetch` continues it"
            yield Kept(DOWNLOAD, path, _size(path), "klcli data fetch", state)


def _state(one: Kept) -> str:
    [first, *_] = one.files or [one.path]
    if not os.access(first.parent, os.W_OK):  # another user's, whose lock cannot be asked for either
        return READ_ONLY
    with unheld(one.lock) as is_free:
        return one.state if is_free else HELD


def _size(path: Path) -> int:
    """Return the bytes of a file, or of those in a folder."""
    total = 0
    for one in path.rglob("*") if path.is_dir() else [path]:
        with suppress(OSError):  # another process can have removed it since it was listed
            total += 0 if one.is_dir() else one.lstat().st_size
    return total


def row_of(one: Kept) -> dict[str, object]:
    """Return what a table and a document show."""
    shown = {"kind": one.kind, "bytes": one.bytes, "source": one.source, "state": one.state}
    return shown | {"path": path_text(one.path)}
