"""CIFAR-10 look-alikes in both official layouts, written here byte by byte, and a machine that holds nothing else."""

import gzip
import io
import shutil
import struct
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

FILES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def binary_batch(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """A batch of the binary layout: records of a label byte and 3072 pixel bytes."""
    return np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1).tobytes()


def python_batch(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """A batch of the python layout with the instructions that Python 2 and its NumPy wrote, spelt out."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    content = pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    array += b"(" + number(1) + number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86" + dtype + b"\x89"
    array += b"T" + struct.pack("<i", len(content)) + content + b"tb"
    listed = b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


def tar_gz(path: Path, members: Mapping[str, bytes]) -> Path:
    """An archive of these members, compressed quickly."""
    with gzip.open(path, "wb", compresslevel=1) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@dataclass(frozen=True)
class Cifar:
    """A full set: what is in it, and where it lies in each form."""

    pixels: np.ndarray  # (60000, 3072) uint8
    labels: np.ndarray  # (60000,) uint8
    root: Path

    python = property(lambda self: self.root / "cifar-10-batches-py")
    binary = property(lambda self: self.root / "cifar-10-batches-bin")
    python_archive = property(lambda self: self.root / "cifar-10-python.tar.gz")
    binary_archive = property(lambda self: self.root / "cifar-10-binary.tar.gz")


@pytest.fixture(scope="session")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cifar]:
    """A full set in both layouts, as folders and as archives. Read only: tests that damage a file use `copy_of`."""
    rng = np.random.default_rng(7)
    # Runs of equal rows compress in no time; the row's own number in its first pixels makes every row different.
    pixels = np.repeat(rng.integers(0, 256, (600, 3072), dtype=np.uint8), 100, axis=0)
    pixels[:, :4] = np.arange(60_000, dtype="<u4").view(np.uint8).reshape(-1, 4)
    labels = rng.integers(0, 10, 60_000).astype(np.uint8)
    made = Cifar(pixels, labels, tmp_path_factory.mktemp("cifar"))
    for folder, archive, suffix, batch, meta in (
        (made.python, made.python_archive, "", python_batch, None),
        (
            made.binary,
            made.binary_archive,
            ".bin",
            binary_batch,
            ("batches.meta.txt", "\n".join(NAMES).encode() + b"\n\n"),
        ),
    ):
        contents = {
            f"{name}{suffix}": batch(pixels[10_000 * i : 10_000 * (i + 1)], labels[10_000 * i : 10_000 * (i + 1)])
            for i, name in enumerate(FILES)
        } | ({meta[0]: meta[1]} if meta else {})
        folder.mkdir()
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        tar_gz(archive, {f"{folder.name}/{name}": content for name, content in contents.items()})
    yield made
    shutil.rmtree(made.root)


@pytest.fixture
def copy_of(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """A copy of a folder, links apart from the files that a test replaces: 180 MB a test would be too slow."""
    target = tmp_path / "copy"

    def copy(folder: Path) -> Path:
        (target / folder.name).mkdir(parents=True)
        for file in folder.iterdir():
            (target / folder.name / file.name).symlink_to(file)
        return target / folder.name

    yield copy
    shutil.rmtree(target, ignore_errors=True)


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No data anywhere: an empty home, working directory and cache. Returns the cache folder."""
    home, here, cache = tmp_path / "home", tmp_path / "here", tmp_path / "cache"
    home.mkdir()
    here.mkdir()
    for name in ("KLCLI_DATA", "TORCH_HOME", "KERAS_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KLCLI_CACHE", str(cache))
    monkeypatch.chdir(here)
    yield cache
    shutil.rmtree(cache, ignore_errors=True)


@pytest.fixture(scope="session")
def writers() -> tuple[Callable[..., bytes], Callable[..., bytes], Callable[..., Path]]:
    """`python_batch`, `binary_batch` and `tar_gz`, for tests that write a damaged file of their own."""
    return python_batch, binary_batch, tar_gz
