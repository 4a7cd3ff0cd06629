"""Prepared copies: made once, mapped afterwards, made again when the source changes or the copy is damaged."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lookalike import ROWS, Cifar

from klcli.data import sources
from klcli.data.sources import open_dataset


def copies(cache: Path) -> list[Path]:
    return sorted((cache / "prepared").glob("*.npy"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that were read in full, one entry each time."""
    done: list[str] = []
    read = sources.read

    def counted(source: object) -> object:
        done.append(str(source.path))  # type: ignore[attr-defined]
        return read(source)  # type: ignore[arg-type]

    monkeypatch.setattr(sources, "read", counted)
    return done


def test_the_second_load_is_mapped(cifar: Cifar, empty_machine: Path, reads: list[str]) -> None:
    first, second = open_dataset(str(cifar.binary)), open_dataset(str(cifar.binary))
    assert len(reads) == 1
    assert copies(empty_machine) == [second.images_file]
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    for dataset in (first, second):
        assert np.array_equal(dataset.images, cifar.pixels)
        assert np.array_equal(dataset.labels, cifar.labels)
    for field in ("name", "class_names", "sha256", "source", "layout", "official", "images_file"):
        assert getattr(first, field) == getattr(second, field), field
    assert len(list((empty_machine / "prepared").iterdir())) == 2


def test_a_change_of_the_source_is_noticed(cifar: Cifar, empty_machine: Path, reads: list[str]) -> None:
    first = open_dataset(str(cifar.binary))
    file = cifar.binary / "test_batch.bin"
    content = bytearray(file.read_bytes())
    content[1] ^= 1  # a single bit of a pixel, the size unchanged
    file.write_bytes(content)
    second = open_dataset(str(cifar.binary))
    assert len(reads) == 2
    assert second.sha256 != first.sha256
    assert second.images[5 * ROWS, 0] == cifar.pixels[5 * ROWS, 0] ^ 1
    assert copies(empty_machine) == [second.images_file]  # the outdated copy is gone
    # The same size again, only the time of the file is another one.
    os.utime(file, ns=(1, 1))
    open_dataset(str(cifar.binary))
    assert len(reads) == 3


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def other_note(**change: object) -> Callable[[Path], None]:
    def apply(file: Path) -> None:
        note = file.with_suffix(".json")
        note.write_text(json.dumps(json.loads(note.read_text()) | change))

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        lambda file: np.save(file, np.zeros((10, 3072), np.uint8)),
        lambda file: np.save(file, np.zeros((6 * ROWS, 3072), np.int8)),
        Path.unlink,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\x93NUMPY garbage"),
        lambda file: file.with_suffix(".json").unlink(),
        lambda file: file.with_suffix(".json").write_text("{"),
        lambda file: file.with_suffix(".json").write_text("[]"),
        lambda file: file.with_suffix(".json").write_bytes(b"\xff\xfe\x00"),
        other_note(labels="0102"),
        other_note(labels=""),
        other_note(labels="ff" * 6 * ROWS),
        other_note(labels="zz"),
        other_note(class_names=["one"]),
        other_note(official="maybe"),
    ],
)
def test_a_damaged_copy_is_made_again(
    damage: Callable[[Path], None], cifar: Cifar, empty_machine: Path, reads: list[str]
) -> None:
    open_dataset(str(cifar.binary))
    (copy,) = copies(empty_machine)
    damage(copy)
    for _ in range(2):
        again = open_dataset(str(cifar.binary))
        assert np.array_equal(again.images, cifar.pixels)
        assert np.array_equal(again.labels, cifar.labels)
        assert len(reads) == 2


def test_without_a_writable_cache_the_images_stay_in_memory(cifar: Cifar, empty_machine: Path) -> None:
    empty_machine.write_text("a file where the folder should be")
    dataset = open_dataset(str(cifar.binary))
    assert dataset.images_file is None
    assert np.array_equal(dataset.images, cifar.pixels)


def test_a_full_disk_leaves_nothing_behind(cifar: Cifar, empty_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert open_dataset(str(cifar.binary)).images_file is None
    assert [file for file in empty_machine.rglob("*") if file.is_file()] == []


def test_what_killed_processes_left_is_removed(cifar: Cifar, empty_machine: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = empty_machine / "prepared"
    folder.mkdir(parents=True)
    left, written = folder / f".x.npy.00aa.{ended.pid}", folder / f".y.npy.00bb.{os.getpid()}"
    left.touch()
    written.touch()
    open_dataset(str(cifar.binary))
    assert not left.exists()
    assert written.exists()  # its process may still be writing
