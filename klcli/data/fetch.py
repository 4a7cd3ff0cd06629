"""CIFAR-10 from the network into klcli's cache: downloaded, checked, unpacked, and only then put in place."""

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from klcli.data.batches import is_web_page
from klcli.data.cifar10 import VERIFIED, Source, archive_files, content_md5, file_md5, read
from klcli.data.download import Part, Progress, download
from klcli.data.layouts import BINARY, LAYOUTS, Layout
from klcli.errors import ConfigError, DataError, StoreError

URL = f"https://www.cs.toronto.edu/~kriz/{BINARY.archive}"
OFFICIAL = "official"  # stands for the checksum of either official archive


@dataclass(frozen=True)
class Fetched:
    """What a download has left in the cache."""

    path: Path  # the folder of batch files
    layout: str  # "python" or "binary"
    md5: str  # of the archive
    official: bool  # whether that is the checksum of an official archive
    size: int  # of the archive, in bytes


def fetch(url: str, destination: Path, progress: Progress, expected_md5: str | None = OFFICIAL) -> Fetched:
    """Download the archive at `url` and put its batch files into a folder below `destination`.

    `expected_md5` is a checksum in hexadecimal digits, OFFICIAL for that of either official archive, None for no
    check. An interrupted download stays as `<name>.part`, and the next call continues it where the server can.

    Raises DataError where the network, the server or the archive fails, StoreError where the disk does,
    ConfigError for an address or a checksum that is none.
    """
    expected = _checksums(expected_md5)
    part = Part(destination / f"{PurePosixPath(unquote(urlsplit(url).path)).name or 'archive'}.part")
    with _disk_errors(destination):
        destination.mkdir(parents=True, exist_ok=True)
        download(url, part, progress)
        try:
            md5 = _checked_md5(url, part, expected)
            size = part.file.stat().st_size
            folder, layout = _unpack(url, part, destination, md5)
        except DataError:
            part.remove()  # continuing it would only fail again
            raise
        part.remove()
    return Fetched(folder, layout.name, md5, md5 in _checksums(OFFICIAL), size)


def fetched_before(url: str, destination: Path) -> Fetched | None:
    """What an earlier fetch of `url` has left, where it was official and every byte of it is still in place."""
    for layout in LAYOUTS:
        folder = destination / layout.folder
        try:
            note = json.loads((folder / VERIFIED).read_text(encoding="utf-8"))
            if note["url"] != url or set(note["files"]) != set(layout.batch_files):
                continue
            for name, md5 in note["files"].items():
                with (folder / name).open("rb") as file:
                    if file_md5(file) != md5:
                        return None
            return Fetched(folder, layout.name, str(note["archive_md5"]), True, int(note["size"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _checksums(expected_md5: str | None) -> set[str]:
    """The checksums that are accepted; none at all stands for every one."""
    if expected_md5 is None:
        return set()
    if expected_md5 == OFFICIAL:
        return {layout.archive_md5 for layout in LAYOUTS}
    digits = expected_md5.strip().lower()
    if len(digits) != 32 or not set(digits) <= set("0123456789abcdef"):
        raise ConfigError(f"--md5 {expected_md5!r} is no MD5 checksum: give 32 hexadecimal digits")
    return {digits}


def _checked_md5(url: str, part: Part, expected: set[str]) -> str:
    with part.file.open("rb") as file:
        if is_web_page(file.read(512)):
            raise DataError(
                f"{url} sent a web page instead of an archive, now removed: log in to the network if it asks for that, "
                "or give another address with --url"
            )
        file.seek(0)
        md5 = file_md5(file)
    if expected and md5 not in expected:
        raise DataError(
            f"{url} has the MD5 {md5} instead of {' or '.join(sorted(expected))}: the file was damaged on the way or "
            "is no official one, and was removed; run it again, or accept it with --no-verify"
        )
    return md5


def _unpack(url: str, part: Part, destination: Path, md5: str) -> tuple[Path, Layout]:
    """The folder of batch files, read once as a whole before it takes its place, and their layout."""
    layout: Layout | None = None
    temporary = destination / f"unpacking-{secrets.token_hex(4)}.tmp"
    temporary.mkdir()
    files: dict[str, str] = {}
    try:
        try:
            for found, name, content in archive_files(part.file):
                layout = layout or found
                if found is layout:  # these are our names, never the archive's
                    _write(temporary / name, content)
                    files |= {name: content_md5(content)} if name in layout.batch_files else {}
            if layout is None:
                raise DataError(f"{part.file} holds no batch file of CIFAR-10: give the address of its archive")
            read(Source(temporary, layout))
        except DataError as error:
            # The person knows the address, not the names of our temporary files.
            message = str(error).replace(f"{temporary}{os.sep}", "").replace(str(part.file), url)
            raise DataError(message.replace(str(temporary), url)) from None
        if md5 in _checksums(OFFICIAL):
            note = {"url": url, "archive_md5": md5, "size": part.file.stat().st_size, "files": files}
            _write(temporary / VERIFIED, json.dumps(note).encode())
        _put_in_place(temporary, destination / layout.folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return destination / layout.folder, layout


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename: the folder is the old one or the new one, never a mixture."""
    if folder.exists():
        old = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}.tmp")
        folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(folder)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """What the disk refuses, as a message with the cure. Errors of the network have become DataErrors before."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = "free 600 MB and run it again, or set KLCLI_CACHE to a folder on another disk"
            raise StoreError(f"no space is left for {folder}: {cure}") from None
        reason = error.strerror or str(error)
        raise StoreError(f"{folder} cannot be written ({reason}): set KLCLI_CACHE to a folder that can") from None
