"""Read files from a tar or zip archive, known by its content, in bounded time and memory; nothing is unpacked."""

import bz2
import contextlib
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from klcli.errors import DataError
from klcli.files import open_regular
from klcli.text import one_line, path_text

LARGEST_FILE = 128 * 2**20  # bytes, four times an official batch file: a larger file is no batch file
LARGEST_ARCHIVE = 2**30  # bytes, packed and unpacked: five times the official ones
PIECE = 2**20  # bytes read at once
LARGEST_DIRECTORY = 8 * 2**20  # bytes: names and dates of about 100 000 files, which an archive lists
MOST_FILES = 100_000  # in an archive: CIFAR-10 as pictures has 60 000

COMPRESSED: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second one is an empty archive
DAMAGE = (  # exceptions of the libraries for a damaged archive
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError,
    RuntimeError,  # a password is required, or, as NotImplementedError, an unknown method of compression
    ValueError, OverflowError, MemoryError,  # a number in a damaged header
)  # fmt: skip
Entries = Iterator[tuple[str, int, Callable[[], Any]]]  # name, size in bytes, and what opens it


def is_archive(start: bytes) -> bool:
    """Whether a file with these first 512 bytes is an archive that `archived_files` can read."""
    with contextlib.suppress(tarfile.HeaderError):
        packed = start.startswith((*COMPRESSED, *ZIP))
        return packed or bool(tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape"))
    return False


def archived_files(path: Path, wanted: Callable[[PurePath], bool]) -> Iterator[tuple[PurePath, bytes]]:
    """Yield name and content of the regular files for which `wanted(name)` is true. Raises DataError."""
    where = path_text(path)
    try:
        with open_regular(path) as file:
            _check_size(where, "bytes", path.stat().st_size, LARGEST_ARCHIVE)
            start = file.read(512)
            file.seek(0)
            unpack = next((one for magic, one in COMPRESSED.items() if start.startswith(magic)), contextlib.nullcontext)
            with unpack(file) as stream:
                for text, size, opened in (_zipped if start.startswith(ZIP) else _tarred)(where, stream):
                    name = PurePosixPath(text)
                    if wanted(name):
                        yield name, _content(f"{path_text(text)} in {where}", size, opened)
    except (*DAMAGE, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the system, not of gzip or bz2
            raise
        what = f"a damaged or incomplete archive ({path_text(one_line(error))})"
        raise DataError(f"{where} is {what}: download it again") from None


def _content(where: str, size: int, opened: Callable[[], Any]) -> bytes:
    _check_size(where, "bytes", size, LARGEST_FILE)
    content = bytearray()
    with opened() as file:
        # Piece by piece: a larger one is refused, and damaged data could expand without end.
        while piece := file.read(min(PIECE, size - len(content))):
            content += piece
    return bytes(content)


def _zipped(where: str, stream: Any) -> Entries:
    # The list of files, with all their names, is read at once.
    limited: Any = _Limited(where, stream, LARGEST_DIRECTORY)
    with zipfile.ZipFile(limited) as archive:
        for entry in archive.infolist():
            if not entry.is_dir() and not stat.S_ISLNK(entry.external_attr >> 16):
                yield entry.filename, entry.file_size, partial(archive.open, entry)


def _tarred(where: str, stream: Any) -> Entries:
    limited: Any = _Limited(where, stream)
    with tarfile.open(fileobj=limited, mode="r|", bufsize=2**16, tarinfo=_Header) as archive:
        for count, entry in enumerate(archive):
            _check_size(where, "files", count, MOST_FILES)
            if entry.isfile():
                yield entry.name, entry.size, partial(archive.extractfile, entry)
        while limited.read(PIECE):  # compression has its checksum at the end, which tarfile does not reach
            pass


class _Header(tarfile.TarInfo):
    """The header of a file in a tar archive. Long names are read at once, whatever size the header claims."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if not 0 <= header.size <= (LARGEST_ARCHIVE if header.isreg() else LARGEST_DIRECTORY):
            raise tarfile.ReadError(f"{path_text(header.name)} has {header.size} bytes")
        return header


class _Limited:
    """A stream of which at most LARGEST_ARCHIVE bytes are read, so that an archive cannot expand without end."""

    def __init__(self, where: str, stream: Any, at_once: int = LARGEST_FILE) -> None:
        self._where, self._stream, self._at_once, self._done = where, stream, at_once, 0

    def read(self, size: int = -1) -> bytes:
        _check_size(self._where, "bytes of names", size, self._at_once)
        content = self._stream.read(self._at_once if size < 0 else size)
        self._done += len(content)
        _check_size(self._where, "bytes when unpacked", self._done, LARGEST_ARCHIVE)
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _check_size(where: str, what: str, size: int, limit: int) -> None:
    if size > limit:
        raise DataError(f"{where} has more than {limit} {what}: this is not CIFAR-10, download the data set again")
