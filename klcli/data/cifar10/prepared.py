"""Prepared copies: checked images, cached as one file that later processes map into memory.

A copy is named after the SHA-256 of its bytes, the identity of the data set, which every opening computes again, 0.1 s
for 184 MB: no process uses other bytes than those it records. A note for each source says which copy holds its images.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import platformdirs

from klcli.data.cifar10 import layouts
from klcli.data.dataset import BUILT_IN, CLASSES, PIXELS, Dataset, content_sha256
from klcli.errors import DataError
from klcli.files import hold, open_regular, remove_leftovers, replacing, system_temporary
from klcli.settings.split_config import FILES
from klcli.text import path_of, path_text, user_path

SUFFIX = ".images"
NOTE = ("key", "sha256", "layout", "source")  # of the source, the copy, and the source again
_OWN = re.compile(r"(synthetic-)?[0-9a-f]{64}\.(images|npy|json)")  # in all formats; other files are not klcli's


def cache_folder() -> Path:
    """Return klcli's own cache: `KLCLI_CACHE`, else in the system's cache folder. It may not exist yet."""
    if chosen := os.environ.get("KLCLI_CACHE"):
        return user_path(chosen).absolute()
    # Without a home folder (in a container) platformdirs raises, or returns a literal "~", which must not be created.
    with contextlib.suppress(RuntimeError):
        folder = platformdirs.user_cache_path("klcli")
        if folder.is_absolute():
            return folder
    return system_temporary() / f"klcli-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"


def folder() -> Path:
    """Return the folder of the copies, which may not exist yet."""
    return cache_folder() / "prepared"


def load(key: str, name: str, class_names: tuple[str, ...], source: str) -> Dataset | None:
    """Return the images of a source from their copy, mapped read-only; None if there is none, or it is damaged.

    The copy is held as long as it is mapped.
    """
    if (note := _read_note(folder() / f"{key}.json")) is None:
        return None
    sha256, n = note["sha256"], FILES * layouts.ROWS
    path = folder() / f"{sha256}{SUFFIX}"
    # Whatever the damage, the copy can be made again from the source.
    try:
        with open_regular(path) as file:
            hold(file)
            labels, rest = np.fromfile(file, np.uint8, n), os.fstat(file.fileno()).st_size - n
            images = np.memmap(file, np.uint8, "r", offset=n, shape=(n, PIXELS))
    except (OSError, ValueError, DataError):
        return None
    is_whole = len(labels) == n and rest == n * PIXELS and content_sha256(labels, images) == sha256
    if not is_whole or labels.max() >= CLASSES:  # compiled code finds the score of a label without checking it
        return None
    official = layouts.is_official(name, sha256)
    return Dataset(name, images, labels, class_names, sha256, source, note["layout"], official, path)


def save(key: str, dataset: Dataset, say: Callable[[str], None]) -> Dataset:
    """Store a data set under the key of its source, and return it mapped from the copy, as it is without a cache."""
    named = dataset.name, dataset.class_names, dataset.source
    note = dict(zip(NOTE, (key, dataset.sha256, dataset.layout, dataset.source), strict=True))
    try:
        # The note first: another process that removes outdated copies must know that this one is needed.
        with replacing(folder() / f"{key}.json") as file:
            file.write(json.dumps(note).encode())
        if load(key, *named) is None:  # else the same images from another place
            with replacing(folder() / f"{dataset.sha256}{SUFFIX}") as file:
                for part in (dataset.labels, dataset.images):
                    file.write(np.ascontiguousarray(part).data)
        _remove_outdated(note)
    except OSError as error:
        cure = "the images are prepared at every start, set KLCLI_CACHE to a folder with 184 MB of space"
        say(f"{path_text(folder())}: cannot be written ({error.strerror}), {cure}")
        return dataset
    return load(key, *named) or dataset


def _read_note(path: Path) -> dict[str, str] | None:
    try:
        with open_regular(path) as file:
            note = json.loads(file.read(2**16))
        key, sha256, layout, source = (note[name] for name in NOTE)
        is_valid = key == path.stem and re.fullmatch("[0-9a-f]{64}", sha256) and isinstance(layout + source, str)
        return note if is_valid else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError, DataError):
        return None


def notes() -> Iterator[dict[str, str]]:
    """Yield the keys NOTE of every source that has been prepared."""
    yield from filter(None, map(_read_note, folder().glob("*.json")))


def own_files() -> list[Path]:
    """Return the copies and notes of all formats. Raises OSError if there is no folder."""
    return [path for path in sorted(folder().iterdir()) if _OWN.fullmatch(path.name)]


def _remove_outdated(current: dict[str, str]) -> None:
    """Remove the notes of sources that have changed or are gone, then the copies, 184 MB each, without a note."""
    files = own_files()  # before the notes: what another process adds meanwhile is not among them
    needed = {current["key"], current["sha256"]}
    for note in notes():
        source = note["source"]
        try:
            in_use = source != current["source"] and (source == BUILT_IN or path_of(source).exists())
        except (OSError, ValueError):  # of another user, who may need it
            in_use = True
        needed |= {note["key"], note["sha256"]} if in_use else set()
    for path in files:
        if path.stem not in needed:
            with contextlib.suppress(OSError):
                path.unlink()
    remove_leftovers(folder())
