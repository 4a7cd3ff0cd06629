"""Read and check CIFAR-10 from a folder or an archive of either layout."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from klcli.data.cifar10 import layouts
from klcli.data.cifar10.batches import parse_batch
from klcli.data.cifar10.layouts import CLASS_NAMES, LAYOUTS, OFFICIAL_SHA256, Layout
from klcli.data.cifar10.places import CIFAR10
from klcli.data.dataset import PIXELS, Dataset, content_sha256
from klcli.errors import DataError
from klcli.settings.split_config import FILES

LARGEST_FILE = 128 * 2**20  # bytes, four times an official batch file: a larger file is no batch file


@dataclass(frozen=True)
class Source:
    """A folder or archive with the batch files, not yet read."""

    path: Path  # absolute
    layout: Layout | None  # None for an archive, whose layout is known after reading

    def files(self) -> list[Path]:
        """The existing files that the images depend on."""
        return list(filter(Path.exists, self.layout.files_in(self.path))) if self.layout else [self.path]


def locate(path: Path) -> Source:
    """Return the source at `path`: an archive, a folder of batch files, or a folder above one of these.

    Raises DataError if it is a single batch file, a folder without batch files, or unreadable.
    """
    path = path.absolute()
    try:
        if not path.is_dir():
            if any(path.name in layout.batch_files for layout in LAYOUTS):
                raise DataError(f"{path} is one batch file: give the folder that holds all {FILES}, {path.parent}")
            return Source(path, None)
        folders = [Source(folder, layout) for layout in LAYOUTS for folder in (path, path / layout.folder)]
        best = max(folders, key=lambda source: len(source.files()))
        archives = [Source(path / layout.archive, None) for layout in LAYOUTS if (path / layout.archive).is_file()]
        found = len(best.files())
    except OSError as error:
        raise _unreadable(path, error) from None
    if not found and not archives:
        names = " or ".join(layout.folder for layout in LAYOUTS)
        raise DataError(f"{path} holds no CIFAR-10: give the folder {names}, the folder above it, or the archive")
    return archives[0] if archives and found < FILES else best


def read(source: Source) -> Dataset:
    """Read all 60 000 images into memory. Raises DataError if a file is missing, unreadable or damaged."""
    images = np.empty((FILES * layouts.ROWS, PIXELS), np.uint8)
    labels = np.empty(FILES * layouts.ROWS, np.uint8)
    layout, done = source.layout, set[str]()
    for found, name, content in _folder_files(source, layout) if layout else _archive_files(source.path):
        layout = layout or found
        if found is layout:  # an archive may contain both layouts: the first one is enough
            start = layout.batch_files.index(name) * layouts.ROWS
            rows = slice(start, start + layouts.ROWS)
            where = f"{source.path / name}" if source.layout else f"{name} in {source.path}"
            images[rows], labels[rows] = parse_batch(layout, content, where)
            done.add(name)
    if layout is None:
        raise DataError(f"{source.path} holds no batch file of CIFAR-10: give the archive of CIFAR-10")
    _require(source.path, [name for name in layout.batch_files if name not in done])
    sha256, form = content_sha256(labels, images), layout.name if source.layout else f"{layout.name} archive"
    official = sha256 == OFFICIAL_SHA256
    return Dataset(CIFAR10, images, labels, CLASS_NAMES, sha256, str(source.path), form, official)


def _require(path: Path, missing: list[str]) -> None:
    if missing:
        names = ", ".join(missing)
        raise DataError(f"{path} lacks {names}: download the data set again, or copy the missing file there")


def _folder_files(source: Source, layout: Layout) -> Iterator[tuple[Layout, str, bytes]]:
    """Yield layout, name and content of every batch file in the folder, which must be complete."""
    _require(source.path, [path.name for path in layout.files_in(source.path) if not path.exists()])
    for path in source.files():
        try:
            _check_size(f"{path}", path.stat().st_size)
            content = path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from None
        yield layout, path.name, content


def _archive_files(path: Path) -> Iterator[tuple[Layout, str, bytes]]:
    """Yield layout, name without folders and content of every batch file in the archive, in its order."""
    known = {name: layout for layout in LAYOUTS for name in layout.batch_files}
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for entry in archive:
                name = PurePosixPath(entry.name).name
                if entry.isfile() and name in known:
                    _check_size(f"{name} in {path}", entry.size)
                    file = archive.extractfile(entry)
                    assert file is not None  # it is a regular file
                    yield known[name], name, file.read()
            while stream.read(2**20):  # gzip compares its checksum at the end, which tarfile does not reach
                pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        wrong = f"{path} is not a .tar.gz archive, or a damaged or incomplete one ({error}): download it again"
        raise DataError(wrong) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _check_size(where: str, size: int) -> None:
    if size > LARGEST_FILE:
        raise DataError(f"{where} has {size} bytes: this is not a batch file of CIFAR-10, download the data set again")


def _unreadable(path: Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    return DataError(f"{path} cannot be read ({reason}): check the path and its permissions, or download it again")
