"""CIFAR-10 from a folder or an archive of either official layout, checked on the way in."""

import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath

import numpy as np

from klcli.data.batches import is_web_page, parse_batch, parse_class_names
from klcli.data.dataset import PIXELS, Dataset, content_sha256
from klcli.data.layouts import CLASS_NAMES, LAYOUTS, PYTHON, ROWS, Layout
from klcli.errors import DataError
from klcli.settings.split_config import FILES

GZIP = b"\x1f\x8b"
LARGEST_FILE = 128 * 2**20  # four times an official batch file: more is something else, and not worth the memory
VERIFIED = "verified.json"  # written by `klcli data fetch` into a folder unpacked from an official archive


@dataclass(frozen=True)
class Source:
    """A folder or an archive that holds the batch files. Nothing of it has been read yet."""

    path: Path  # absolute
    layout: Layout | None  # None for an archive, which shows it when it is read

    def files(self) -> list[Path]:
        """Every file that the images depend on: a change in one of them is a change of the data."""
        if self.layout is None:
            return [self.path]
        names = (*self.layout.batch_files, self.layout.meta_file, VERIFIED)
        return [self.path / name for name in names if (self.path / name).exists()]


def locate(path: Path) -> Source:
    """What `path` is: an archive, a folder of batch files, or a folder above one of these.

    Raises DataError where it is none of them, cannot be read, or lacks a batch file.
    """
    path = path.absolute()
    try:
        if path.is_dir():
            return _locate_in_folder(path)
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise _unreadable(path, error) from None
    if is_web_page(start):
        raise DataError(f"{path} is a web page, not an archive: download the data set again")
    if not start.startswith(GZIP):
        if any(path.name in layout.batch_files for layout in LAYOUTS):
            raise DataError(f"{path} is one batch file: give the folder that holds all {FILES}, {path.parent}")
        raise DataError(f"{path} is no .tar.gz archive: give the folder or the archive of CIFAR-10")
    return Source(path, None)


def read(source: Source) -> Dataset:
    """All 60 000 images, in memory. Raises DataError where a file is missing, unreadable or damaged."""
    images = np.empty((FILES * ROWS, PIXELS), np.uint8)
    labels = np.empty(FILES * ROWS, np.uint8)
    layout, missing = source.layout, set(range(FILES))
    class_names: tuple[str, ...] = CLASS_NAMES
    md5: dict[str, str] = {}
    for found, name, content in _folder_files(source) if layout else archive_files(source.path):
        layout = layout or found
        if found is not layout:
            continue  # an archive with both layouts: the first one is as good as the other
        where = f"{source.path / name}" if source.layout else f"{name} in {source.path}"
        if name == layout.meta_file:
            class_names = parse_class_names(layout, content, where)
            continue
        file = layout.batch_files.index(name)
        if file not in missing:
            raise DataError(f"{where} is there twice: this is no official archive, download the data set again")
        missing.remove(file)
        rows = slice(file * ROWS, (file + 1) * ROWS)
        images[rows], labels[rows] = parse_batch(layout, content, where)
        md5[name] = content_md5(content)
    if layout is None:
        raise DataError(f"{source.path} holds no batch file of CIFAR-10: give the archive of CIFAR-10")
    if missing:
        raise _incomplete(source.path, [layout.batch_files[file] for file in sorted(missing)])
    return Dataset(
        name="cifar10",
        images=images,
        labels=labels,
        class_names=class_names,
        sha256=content_sha256(labels, images),
        source=str(source.path),
        layout=layout.name if source.layout else f"{layout.name} archive",
        official=_is_official(source, layout, md5),
        images_file=None,
    )


def archive_files(path: Path) -> Iterator[tuple[Layout, str, bytes]]:
    """Layout, name and content of every file of CIFAR-10 in the archive, in its order, straight into memory.

    Nothing is unpacked and only known names are looked at, so a name that points elsewhere has no effect.
    Raises DataError where the archive is damaged.
    """
    known = {name: layout for layout in LAYOUTS for name in (*layout.batch_files, layout.meta_file)}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if not member.isfile() or name not in known:
                    continue
                if member.size > LARGEST_FILE:
                    raise DataError(f"{name} in {path} has {member.size} bytes: this is no archive of CIFAR-10")
                file = archive.extractfile(member)
                assert file is not None  # it is a regular file
                yield known[name], name, file.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged or incomplete archive ({error}): download it again") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def content_md5(content: bytes) -> str:
    """The MD5 of bytes in memory, as file_md5 gives it for a file."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def file_md5(file: BufferedReader) -> str:
    """The MD5 of an open file, by which CIFAR-10 is published: it finds damage, not ill will."""
    # FIPS systems refuse MD5 unless told that no security hangs on it.
    return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _folder_files(source: Source) -> Iterator[tuple[Layout, str, bytes]]:
    layout = source.layout
    assert layout is not None
    for name in (*layout.batch_files, layout.meta_file):
        path = source.path / name
        try:
            if not path.exists():
                continue
            if not path.is_file():
                raise DataError(f"{path} is a folder where a file is expected: download the data set again")
            if path.stat().st_size > LARGEST_FILE:
                raise DataError(f"{path} has {path.stat().st_size} bytes: this is no batch file of CIFAR-10")
            content = path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from None
        yield layout, name, content


def _locate_in_folder(path: Path) -> Source:
    """The folder itself or one below it, whichever holds most of the six files; else an archive in it."""
    best, present = Source(path, PYTHON), 0
    for layout in LAYOUTS:
        for folder in (path, path / layout.folder):
            count = sum((folder / name).exists() for name in layout.batch_files)
            if count > present:
                best, present = Source(folder, layout), count
    if present == FILES:
        return best
    for layout in LAYOUTS:
        if (path / layout.archive).is_file():
            return locate(path / layout.archive)
    if not present:
        raise DataError(
            f"{path} holds no CIFAR-10: give the folder {LAYOUTS[0].folder} or {LAYOUTS[1].folder}, the folder "
            "above it, or the archive"
        )
    assert best.layout is not None
    raise _incomplete(best.path, [name for name in best.layout.batch_files if not (best.path / name).exists()])


def _is_official(source: Source, layout: Layout, md5: dict[str, str]) -> bool | None:
    """Whether the published checksums vouch for these files; None where none are published for this form."""
    if layout.batch_md5:
        return all(md5[name] == known for name, known in zip(layout.batch_files, layout.batch_md5, strict=True))
    if source.layout is None:
        with source.path.open("rb") as file:
            return file_md5(file) == layout.archive_md5
    try:
        note = json.loads((source.path / VERIFIED).read_text(encoding="utf-8"))
        return True if note["archive_md5"] == layout.archive_md5 and note["files"] == md5 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _incomplete(path: Path, names: list[str]) -> DataError:
    return DataError(f"{path} lacks {', '.join(names)}: download the data set again, or copy the missing file there")


def _unreadable(path: Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    return DataError(f"{path} cannot be read ({reason}): check the path and its permissions, or download it again")
