"""Find the six batch files of CIFAR-10 in a folder or an archive of any layout, and read them."""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath

import numpy as np

from klcli.data.cifar10 import layouts
from klcli.data.cifar10.archives import LARGEST_FILE, archived_files, is_archive
from klcli.data.cifar10.batches import parse_batch
from klcli.data.cifar10.layouts import CIFAR10, CLASS_NAMES, LAYOUT_OF, LAYOUTS, Layout, is_official
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
Batch = tuple[str, tuple[np.ndarray, np.ndarray]]  # the name of a batch file, its pixels and labels


@dataclass(frozen=True)
class Source:
    """A folder or archive with batch files, not yet read."""

    path: Path  # absolute
    layout: Layout | None = None  # None for an archive, whose layout is known after reading

    def files(self) -> list[Path]:
        """The files that the images depend on."""
        return [self.path / name for name in self.layout.batch_files] if self.layout else [self.path]


def locate(path: Path, name: str = "") -> Source:
    """Return the set at an archive, of this `name` if it has another one yet, or below a folder.

    Raises DataError: what is missing or was found instead.
    """
    path, where = path.absolute(), path_text(path.absolute())
    try:
        if path.is_dir():
            names = _names_below(path)
        else:
            with open_regular(path) as file:
                start = file.read(512)
            if path.name in LAYOUT_OF:
                what = f"is one batch file: give the folder that holds all {FILES}, {path_text(path.parent)}"
                raise DataError(f"{where} {what}")
            if not is_archive(start):
                raise DataError(f"{where} {cure_for_file(name or path.name, start)}")
            return Source(path)
    except OSError as error:
        raise unreadable(path, error) from None
    best = _best(names)
    if best and not _missing(best, names):
        return Source(path / best[1], best[0])
    # A packed copy is better than half a folder.
    known = [layout.archive for layout in LAYOUTS]
    packed = [name for name in names if PACKED.search(name.name)]
    packed.sort(key=lambda one: ([*known, one.name].index(one.name), len(one.parts), str(one)))
    if packed:
        return Source(path / packed[0])
    if best:
        there = path / best[1]
        missing = _missing(best, names)
        words = [f"{name}{' (no regular file)' if (there / name).exists() else ''}" for name in missing]
        raise _incomplete(path_text(there), words)
    raise DataError(f"{where} {cure_for_names(names)}")


def read(source: Source, advance: Callable[[int], None] = lambda done: None) -> Dataset:
    """Read all 60 000 images into memory, and `advance` by those of each batch file.

    Raises DataError if a file is missing, unreadable or damaged.
    """
    images, labels = np.empty((FILES * layouts.ROWS, PIXELS), np.uint8), np.empty(FILES * layouts.ROWS, np.uint8)
    layout = ""
    try:
        for name, (pixels, own) in _batches_in_folder(source) if source.layout else _batches_in_archive(source.path):
            start = LAYOUT_OF[name].batch_files.index(name) * layouts.ROWS
            images[start : start + layouts.ROWS], labels[start : start + layouts.ROWS] = pixels, own
            layout = LAYOUT_OF[name].name + ("" if source.layout else " archive")
            advance(layouts.ROWS)
    except OSError as error:
        raise unreadable(source.path, error) from None
    sha256 = content_sha256(labels, images)
    place = path_text(source.path)
    return Dataset(CIFAR10, images, labels, CLASS_NAMES, sha256, place, layout, is_official(CIFAR10, sha256))


def unreadable(path: Path, error: OSError) -> DataError:
    """Return the message for a failure of the system."""
    reason, where = error.strerror or str(error), path_text(error.filename or path)
    return DataError(f"{where} cannot be read ({reason}): check the path and its permissions, or download it again")


def _missing(group: Group, names: Set[PurePath]) -> list[str]:
    layout, folder = group
    return [name for name in layout.batch_files if folder / name not in names]


def _best(names: Set[PurePath]) -> Group | None:
    """Return the set with the most batch files; among equals, the preferred layout, then the upper folder."""

    def rank(group: Group) -> tuple[int, int, int, str]:
        layout, folder = group
        return len(_missing(group, names)), LAYOUTS.index(layout), len(folder.parts), str(folder)

    return min(
        {(LAYOUT_OF[name.name], name.parent) for name in names if name.name in LAYOUT_OF}, key=rank, default=None
    )


def _names_below(top: Path) -> set[PurePath]:
    """Return the files below a folder, level by level down to the first one with a complete set."""
    names: set[PurePath] = set()
    level, entries = [PurePath()], 0
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
                        names.add(folder / child.name)
        best = _best(names)
        if (best and not _missing(best, names)) or entries > MOST_ENTRIES:
            break
        level = below
    return names


def _batches_in_folder(source: Source) -> Iterator[Batch]:
    for path in source.files():
        with open_regular(path) as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            size = f"has {path.stat().st_size} bytes"
            raise DataError(f"{path_text(path)} {size}: this is no batch file, download the data set again")
        yield path.name, parse_batch(LAYOUT_OF[path.name], content, path_text(path))


def _batches_in_archive(path: Path, chosen: Group | None = None) -> Iterator[Batch]:
    """Yield the batches of the first set in an archive, which is read once; if it has a defect, then those of the best.

    The caller overwrites the batches of the set with the defect.
    """
    where, names, failure = path_text(path), set[PurePath](), None

    def is_wanted(name: PurePath) -> bool:
        nonlocal chosen
        own = (LAYOUT_OF[name.name], name.parent) if name.name in LAYOUT_OF else None
        chosen, is_first = chosen or own, name not in names
        names.add(name)
        return is_first and own is not None and own == chosen

    for name, content in archived_files(path, is_wanted):
        try:
            if failure is None:
                yield name.name, parse_batch(LAYOUT_OF[name.name], content, f"{name.name} in {where}")
        except DataError as error:
            failure = error
    best = _best(names)
    if chosen is None or best is None:
        raise DataError(f"{where} {cure_for_names(names)}")
    missing = _missing(chosen, names)
    if (missing or failure) and chosen != best and not _missing(best, names):
        yield from _batches_in_archive(path, best)
    elif missing or failure:
        raise failure or _incomplete(where, missing)


def _incomplete(where: str, missing: Iterable[str]) -> DataError:
    return DataError(f"{where} lacks {', '.join(missing)}: download the data set again, or copy what it lacks there")
