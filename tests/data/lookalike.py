"""CIFAR-10 look-alikes in the official layouts: 20 images in a batch file instead of 10 000.

The python and binary layouts are written byte by byte, Matlab's by SciPy.
"""

import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from klcli.data.sources import open_dataset
from klcli.errors import DataError, ExitCode

ROWS = 20  # images in a batch file; `cifar` of conftest.py tells klcli
PYTHON = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
BINARY = tuple(f"{name}.bin" for name in PYTHON)
MATLAB = tuple(f"{name}.mat" for name in PYTHON)


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


def matlab_batch(pixels: np.ndarray, labels: np.ndarray, /, **others: Any) -> bytes:
    """A batch of Matlab's layout: as published, the labels are a column, and everything is compressed."""
    file = io.BytesIO()
    content = {"data": pixels, "labels": labels[:, None].astype(np.uint8), "batch_label": "training batch 1 of 5"}
    savemat(file, content | others, do_compression=True)
    return file.getvalue()


def tar(path: Path, files: Mapping[str, bytes], packed: str = "") -> Path:
    """An archive of these files, packed with gz, xz, bz2 or not at all."""
    with tarfile.open(path, f"w:{packed}", **{} if packed in ("", "xz") else {"compresslevel": 1}) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def tar_gz(path: Path, files: Mapping[str, bytes]) -> Path:
    return tar(path, files, "gz")


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@dataclass(frozen=True)
class Cifar:
    """A full set: its content, and its place in each form."""

    pixels: np.ndarray  # (6 * ROWS, 3072) uint8
    labels: np.ndarray  # (6 * ROWS,) uint8
    root: Path

    matlab = property(lambda self: self.root / "cifar-10-batches-mat")
    python = property(lambda self: self.root / "cifar-10-batches-py")
    binary = property(lambda self: self.root / "cifar-10-batches-bin")
    python_archive = property(lambda self: self.root / "cifar-10-python.tar.gz")
    binary_archive = property(lambda self: self.root / "cifar-10-binary.tar.gz")
    matlab_archive = property(lambda self: self.root / "cifar-10-matlab.tar.gz")

    @classmethod
    def written(cls, root: Path) -> "Cifar":
        """Random images below `root`, in every layout, as folders and as archives."""
        rng = np.random.default_rng(7)
        pixels = rng.integers(0, 256, (6 * ROWS, 3072), dtype=np.uint8)
        labels = rng.integers(0, 10, 6 * ROWS).astype(np.uint8)
        made = cls(pixels, labels, root)
        for folder, archive, names, batch in (
            (made.python, made.python_archive, PYTHON, python_batch),
            (made.binary, made.binary_archive, BINARY, binary_batch),
            (made.matlab, made.matlab_archive, MATLAB, matlab_batch),
        ):
            folder.mkdir(parents=True)
            files = [slice(ROWS * file, ROWS * (file + 1)) for file in range(6)]
            contents = {name: batch(pixels[rows], labels[rows]) for name, rows in zip(names, files, strict=True)}
            for name, content in contents.items():
                (folder / name).write_bytes(content)
            tar_gz(archive, {f"{folder.name}/{name}": content for name, content in contents.items()})
        return made


def refusal(path: Path) -> str:
    """Return the one line that refuses a path, which it names."""
    with pytest.raises(DataError) as caught:
        open_dataset(str(path))
    message = str(caught.value)
    assert caught.value.exit_code == ExitCode.DATA
    assert str(path) in message and "\n" not in message
    return message
