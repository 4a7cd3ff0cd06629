"""Find the six batch files of CIFAR-10 in a folder or an archive of any layout, and read them."""

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath

import numpy as np

from klcli.data.cifar10 import layouts
from klcli.data.cifar10.archives import LARGEST_FILE, archived_files, is_archive
from klcli.data.cifar10.batches import parse_batch
from klcli.data.cifar10.layouts import CIFAR10, CLASS_NAMES, LAYOUT_OF, LAYOUTS, OFFICIAL_SHA256, Layout
from klcli.data.cifar10.recognised import cure_for_file, cure_for_names
from klcli.data.dataset import PIXELS, Dataset, content_sha256
from klcli.errors import DataError
from klcli.files import open_regular
from klcli.settings.split_config import FILES
from klcli.text import path_text

DEEPEST = 3  # folders below the given one that are searched
MOST_ENTRIES = 20_000  # files and folders in all of them
PACKED = re.compile(r"cifar-?10(?!0).*\.(tar|tgz|txz|tbz2|zip|tar\.(gz|xz|bz2))$", re.IGNORECASE)
Group = tuple[Layout, PurePath]  # batch files belong together if they have one layout and one folder


@dataclass
class Found:
    """The names of the files in a folder or archive, and the batch files among them by layout and folder."""

    names: list[PurePath] = field(default_factory=list)
    batches: dict[Group, set[str]] = field(default_factory=dict)

    def add(self, name: PurePath) -> Group | None:
        """Note a file and return its group, or None if it is no batch file or a second one of the same name."""
        self.names.append(name)
        if name.name not in LAYOUT_OF:
            return None
        group = LAYOUT_OF[name.name], name.parent
        batches = self.batches.setdefault(group, set())
        is_new = name.name not in batches
        batches.add(name.name)
        return group if is_new else None

    def best(self) -> Group | None:
        """Return the group with the most batch files; among equals, the preferred layout, then the upper folder."""

        def rank(group: Group) -> tuple[int, int, int, str]:
            layout, folder = group
            return -len(self.batches[group]), LAYOUTS.index(layout), len(folder.parts), str(folder)

        return min(self.batches, key=rank, default=None)

    def missing(self, group: Group) -> list[str]:
        return [name for name in group[0].batch_files if name not in self.batches[group]]


@dataclass(frozen=True)
class Source:
    """A folder or archive with batch files, not yet read."""

    path: Path  # absolute
    layout: Layout | None = None  # None for an archive, whose layout is known after reading

    def files(self) -> list[Path]:
        """The files that the images depend on."""
        return [self.path / name for name in self.layout.batch_files] if self.layout else [self.path]


def locate(path: Path) -> Source:
    """Return the set at `path`, an archive or a folder at most DEEPEST levels above its batch files or archive.

    Raises DataError, which names what is missing or what was recognised instead.
    """
    path = path.absolute()
    try:
        if not path.is_dir():
            _require_archive(path)
            return Source(path)
        found = _in_folder(path)
    except OSError as error:
        raise unreadable(path, error) from None
    best = found.best()
    if best and not found.missing(best):
        return Source(path / best[1], best[0])
    # A packed copy is better than half a folder.
    packed = (name for name in found.names if PACKED.search(name.name))
    if archive := min(packed, key=_rank_of_archive, default=None):
        return Source(path / archive)
    if best:
        folder = path / best[1]
        missing = (f"{name}{' (no regular file)' if (folder / name).exists() else ''}" for name in found.missing(best))
        raise _incomplete(path_text(folder), missing)
    raise DataError(f"{path_text(path)} {cure_for_names(found.names)}")


def read(source: Source) -> Dataset:
    """Read all 60 000 images into memory. Raises DataError if a file is missing, unreadable or damaged."""
    try:
        return _read_folder(source, source.layout) if source.layout else _read_archive(source.path)
    except OSError as error:
        raise unreadable(source.path, error) from None


def unreadable(path: Path, error: OSError) -> DataError:
    """Return the message for a failure of the system."""
    reason, where = error.strerror or str(error), path_text(error.filename or path)
    return DataError(f"{where} cannot be read ({reason}): check the path and its permissions, or download it again")


def _in_folder(top: Path) -> Found:
    """Return the files below a folder, level by level down to the first one with a complete set."""
    found, level, entries = Found(), [PurePath()], 0
    for depth in range(DEEPEST + 1):
        below: list[PurePath] = []
        for folder in level:
            try:
                children = sorted(islice(os.scandir(top / folder), MOST_ENTRIES), key=lambda entry: entry.name)
            except OSError:
                if not depth:
                    raise
                continue  # another user's folder
            entries += len(children)
            for child in children:
                with contextlib.suppress(OSError):  # a symbolic link to itself
                    if child.is_dir():
                        below.append(folder / child.name)
                    elif child.is_file():
                        found.add(folder / child.name)
        best = found.best()
        if (best and not found.missing(best)) or entries > MOST_ENTRIES:
            break
        level = below
    return found


def _rank_of_archive(name: PurePath) -> tuple[int, int, str]:
    names = [layout.archive for layout in LAYOUTS]
    return names.index(name.name) if name.name in names else len(names), len(name.parts), str(name)


def _require_archive(path: Path) -> None:
    with open_regular(path) as file:
        start = file.read(512)
    if path.name in LAYOUT_OF:
        what = f"is one batch file: give the folder that holds all {FILES}, {path_text(path.parent)}"
        raise DataError(f"{path_text(path)} {what}")
    if not is_archive(start):
        raise DataError(f"{path_text(path)} {cure_for_file(path.name, start)}")


def _read_folder(source: Source, layout: Layout) -> Dataset:
    images, labels = _empty()
    for path in source.files():
        with open_regular(path) as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            size = f"has {path.stat().st_size} bytes"
            raise DataError(f"{path_text(path)} {size}: this is no batch file, download the data set again")
        _put(images, labels, path.name, content, path_text(path))
    return _dataset(source.path, layout.name, images, labels)


def _read_archive(path: Path, group: Group | None = None) -> Dataset:
    """Read one group of batch files in an archive: the first one, or if that has a defect, the best one."""
    found, failure, where = Found(), None, path_text(path)

    def is_wanted(name: PurePath) -> bool:
        nonlocal group
        own = found.add(name)
        group = group or own
        return own is not None and own == group

    images, labels = _empty()
    for name, content in archived_files(path, is_wanted):
        try:
            if failure is None:
                _put(images, labels, name.name, content, f"{name.name} in {where}")
        except DataError as error:
            failure = error
    best = found.best()
    if group is None or best is None:
        raise DataError(f"{where} {cure_for_names(found.names)}")
    missing = found.missing(group)
    if (missing or failure) and best != group and not found.missing(best):
        return _read_archive(path, best)
    if failure or missing:
        raise failure or _incomplete(where, missing)
    return _dataset(path, f"{group[0].name} archive", images, labels)


def _empty() -> tuple[np.ndarray, np.ndarray]:
    return np.empty((FILES * layouts.ROWS, PIXELS), np.uint8), np.empty(FILES * layouts.ROWS, np.uint8)


def _put(images: np.ndarray, labels: np.ndarray, name: str, content: bytes, where: str) -> None:
    start = LAYOUT_OF[name].batch_files.index(name) * layouts.ROWS
    rows = slice(start, start + layouts.ROWS)
    images[rows], labels[rows] = parse_batch(LAYOUT_OF[name], content, where)


def _dataset(path: Path, layout: str, images: np.ndarray, labels: np.ndarray) -> Dataset:
    sha256 = content_sha256(labels, images)
    official = sha256 == OFFICIAL_SHA256
    return Dataset(CIFAR10, images, labels, CLASS_NAMES, sha256, path_text(path), layout, official)


def _incomplete(where: str, missing: Iterable[str]) -> DataError:
    return DataError(f"{where} lacks {', '.join(missing)}: download the data set again, or copy what it lacks there")
