"""Prepared copies: checked images, cached as one file that later processes map into memory.

A copy is named after the SHA-256 of its bytes, the identity of the data set, which every opening computes again, 0.1 s
for 184 MB: no process uses other bytes than those it records. A note for each source says which copy holds its images.
"""

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from klcli.data.cifar10 import layouts
from klcli.data.cifar10.places import cache_folder
from klcli.data.dataset import BUILT_IN, CLASSES, PIXELS, Dataset, content_sha256
from klcli.errors import DataError
from klcli.files import open_regular, remove_leftovers, replacing
from klcli.settings.split_config import FILES
from klcli.text import path_of

FORMAT = 3  # part of every key: a copy in an older format is never read
SUFFIX = ".images"


class Note(NamedTuple):
    """Which copy holds the images of a source."""

    key: str  # of the source
    sha256: str  # of the copy
    layout: str
    source: str


def folder() -> Path:
    """Return the folder of the copies, which may not exist yet."""
    return cache_folder() / "prepared"


def key_of_files(files: list[Path]) -> str:
    """Return a key that changes with the files. Raises OSError if one is missing.

    No program can set the time of change (ctime): it reveals an edit that restores size and time of modification, and
    the inode another file in its place. Without ctime (Windows, FAT, some network drives) it is missed.
    """
    states = [path.stat() for path in files]
    parts = [(one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in states]
    return hashlib.sha256(f"klcli {FORMAT} {parts}".encode()).hexdigest()


def load(key: str, name: str, class_names: tuple[str, ...], source: str) -> Dataset | None:
    """Return the images of a source from their copy, mapped read-only; None if there is none, or it is damaged."""
    note = _read_note(folder() / f"{key}.json")
    if note is None or note.key != key:
        return None
    path = folder() / f"{note.sha256}{SUFFIX}"
    n = FILES * layouts.ROWS
    # Whatever the damage, the copy can be made again from the source.
    try:
        with open_regular(path) as file:
            labels, rest = np.fromfile(file, np.uint8, n), os.fstat(file.fileno()).st_size - n
        images = np.memmap(path, np.uint8, "r", offset=n, shape=(n, PIXELS))
    except (OSError, ValueError, DataError):
        return None
    if len(labels) != n or rest != n * PIXELS or content_sha256(labels, images) != note.sha256:
        return None
    if labels.max() >= CLASSES:  # compiled code finds the score of a label without checking it
        return None
    official = None if name != layouts.CIFAR10 else note.sha256 == layouts.OFFICIAL_SHA256
    return Dataset(name, images, labels, class_names, note.sha256, source, note.layout, official, path)


def save(key: str, dataset: Dataset) -> Dataset:
    """Store a data set as the images of the source with this key, and return it with its images mapped from the copy.

    Return the data set itself if the cache cannot be written: the copy only saves time.
    """
    named = dataset.name, dataset.class_names, dataset.source
    note = Note(key, dataset.sha256, dataset.layout, dataset.source)
    try:
        # The note first: another process that removes outdated copies must know that this one is needed.
        with replacing(folder() / f"{key}.json") as file:
            file.write(json.dumps(note._asdict()).encode())
        if load(key, *named) is None:  # else the same images from another place
            with replacing(folder() / f"{dataset.sha256}{SUFFIX}") as file:
                file.write(np.ascontiguousarray(dataset.labels).data)
                file.write(np.ascontiguousarray(dataset.images).data)
        _remove_outdated(note)
    except OSError:
        return dataset
    return load(key, *named) or dataset


def _read_note(path: Path) -> Note | None:
    try:
        with open_regular(path) as file:
            note = Note(**json.loads(file.read(2**16)))
        is_valid = all(isinstance(value, str) for value in note) and re.fullmatch("[0-9a-f]{64}", note.sha256)
        return note if is_valid else None
    except (OSError, ValueError, TypeError, RecursionError, DataError):
        return None


def _remove_outdated(current: Note) -> None:
    """Remove the notes of sources that have changed or are gone, then the copies, 184 MB each, without a note."""
    needed = set()
    for path in folder().glob("*.json"):
        note = _read_note(path)
        if note is not None and note.key == path.stem and (note == current or _is_in_use(note, current)):
            needed |= {path.stem, note.sha256}
    for path in folder().iterdir():
        if path.stem not in needed and not path.name.startswith("."):  # those are being written
            with contextlib.suppress(OSError):
                path.unlink()
    remove_leftovers(folder())


def _is_in_use(note: Note, current: Note) -> bool:
    try:
        return note.source != current.source and (note.source == BUILT_IN or path_of(note.source).exists())
    except (OSError, ValueError):
        return True
