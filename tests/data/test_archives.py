"""Archives that are damaged or made to harm: refused with one line, in bounded time and memory."""

import bz2
import gzip
import io
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from lookalike import BINARY, Cifar, refusal, tar, tar_gz, zipped
from thinning import mostly_slow

from klcli.data.sources import open_dataset

Write = Callable[[Path, dict[str, bytes]], Path]
PACKED = {"tar": tar, "gz": tar_gz, "zip": zipped} | {
    kind: lambda path, files, kind=kind: tar(path, files, kind) for kind in ("xz", "bz2")
}


@pytest.fixture
def files(cifar: Cifar) -> dict[str, bytes]:
    return {name: (cifar.binary / name).read_bytes() for name in BINARY}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("kept", mostly_slow([0.3, 0.001, 0.9], 3))
def test_a_part_of_an_archive(files: dict[str, bytes], tmp_path: Path, kind: str, kept: float) -> None:
    path = PACKED[kind](tmp_path / "a", files)
    os.truncate(path, int(path.stat().st_size * kept))
    message = refusal(path)
    assert message.startswith(str(path))
    assert "archive" in message or "lacks" in message


@pytest.mark.parametrize("kind", ["gz", "zip", "xz", "bz2"])
def test_changed_bytes_in_an_archive_with_checksums(files: dict[str, bytes], tmp_path: Path, kind: str) -> None:
    path = PACKED[kind](tmp_path / "a", files)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "is a damaged or incomplete archive" in refusal(path)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(format=tarfile.GNU_FORMAT)


def zip_of_one(name: str, size: int) -> bytes:
    """A zip file of one file of this size, all zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open(name, "w") as one:
        for _ in range(size // 2**20):
            one.write(bytes(2**20))
    return file.getvalue()


def many_zipped() -> bytes:
    """The list of 300 000 files: the same one each time, which takes no time to write."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("name", b"")
    content = file.getvalue()
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    count = 300_000
    entries = content[start:end] * count
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entries), start, 0)
    return content[:start] + entries + tail


def encrypted() -> bytes:
    content = bytearray(zip_of_one("data_batch_1", 2**20))
    for magic, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(magic) + at] |= 1
    return bytes(content)


def unknown_method() -> bytes:
    content = bytearray(zip_of_one("data_batch_1", 2**20))
    for magic, at in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        content[content.index(magic) + at] = 97
    return bytes(content)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (lambda: header("x/data_batch_1", 2**40) + bytes(4096), "x/data_batch_1 has 1099511627776 bytes"),
        (lambda: header("x/data_batch_1", 2**28) + bytes(4096), "x/data_batch_1 in"),
        (lambda: header("x/other", 2**40) + bytes(4096), "x/other has 1099511627776 bytes"),
        (lambda: header("x", 2**33, tarfile.XHDTYPE) + bytes(4096), "x has 8589934592 bytes"),
        (lambda: header("x", 2**28, tarfile.GNUTYPE_LONGNAME) + bytes(4096), "x has 268435456 bytes"),
        (lambda: header("x", -512) + bytes(4096), "has -512 bytes"),
        pytest.param(
            lambda: gzip.compress(header("x", 0) * 100_100, 1), "more than 100000 files", marks=pytest.mark.slow
        ),
        (lambda: zip_of_one("data_batch_1", 129 * 2**20), "data_batch_1 in"),
        (many_zipped, "more than 8388608 bytes of names"),
        (encrypted, "password"),
        (unknown_method, "is a damaged or incomplete archive"),
        (lambda: gzip.compress(b""), "is a damaged or incomplete archive"),
        (lambda: bz2.compress(b"no tar"), "is a damaged or incomplete archive"),
        (lambda: lzma.compress(b"no tar"), "is a damaged or incomplete archive"),
        (lambda: b"PK\5\6" + bytes(18), "holds no CIFAR-10"),
    ],
)
def test_a_hostile_archive_is_refused(cifar: Cifar, tmp_path: Path, content: Callable[[], bytes], named: str) -> None:
    path = tmp_path / "archive"
    path.write_bytes(content())
    message = refusal(path)
    assert str(path) in message
    assert named in message


def test_links_in_an_archive_lead_nowhere(files: dict[str, bytes], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(files["data_batch_1.bin"])
    path = tmp_path / "a.tar"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        with tarfile.open(path, "w") as archive:
            link = tarfile.TarInfo("data_batch_1.bin")
            link.type, link.linkname = kind, str(secret)
            archive.addfile(link)
            for name in BINARY[1:]:
                entry = tarfile.TarInfo(name)
                entry.size = len(files[name])
                archive.addfile(entry, io.BytesIO(files[name]))
        assert f"{path} lacks data_batch_1.bin:" in refusal(path)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("data_batch_1.bin")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
        for name in BINARY[1:]:
            archive.writestr(name, files[name])
    assert f"{path} lacks data_batch_1.bin:" in refusal(path)


def test_the_first_file_of_a_name_counts(cifar: Cifar, files: dict[str, bytes], tmp_path: Path) -> None:
    """So that the same 128 MB cannot be read again and again."""
    path = tmp_path / "a.zip"
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        for name, content in [*files.items(), ("test_batch.bin", b"short")]:
            archive.writestr(name, content)
    assert (open_dataset(str(path)).images == cifar.pixels).all()


READ = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))
from klcli.data.sources import open_dataset
from klcli.errors import DataError
try:
    open_dataset(sys.argv[1])
except DataError as error:
    print(error)
"""


@pytest.mark.slow  # 3 to 5 s each
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_that_expands_without_end(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """Three files of 512 MB, each of 32 equal parts, as several compressed streams in a row."""
    path = tmp_path / "bomb"
    path.write_bytes((compress(header("x/other", 2**29)) + compress(bytes(2**24)) * 32) * 3)
    assert path.stat().st_size < 2**23
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, timeout=250, check=True)
    assert done.stderr == ""
    assert f"{path} has more than {2**30} bytes when unpacked" in done.stdout
