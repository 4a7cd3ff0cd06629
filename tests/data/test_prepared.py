"""Prepared copies: made once, mapped afterwards, made again when the sources change or the copy is damaged."""

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from klcli.data import cifar10, prepared
from klcli.data.sources import open_dataset


def copies(cache: Path) -> list[Path]:
    return sorted((cache / "prepared").glob("*.npy"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that were read in full, one entry each time."""
    done: list[str] = []
    read = cifar10.read

    def counted(source: cifar10.Source) -> object:
        done.append(str(source.path))
        return read(source)

    monkeypatch.setattr(cifar10, "read", counted)
    return done


def test_the_second_load_is_mapped_and_fast(cifar, empty_machine: Path, reads: list[str]) -> None:
    first = open_dataset(str(cifar.binary))
    start = time.perf_counter()
    second = open_dataset(str(cifar.binary))
    seconds = time.perf_counter() - start
    assert len(reads) == 1
    assert seconds < 0.1
    assert copies(empty_machine) == [second.images_file]
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    for dataset in (first, second):
        assert np.array_equal(dataset.images, cifar.pixels)
        assert np.array_equal(dataset.labels, cifar.labels)
    for field in ("name", "class_names", "sha256", "source", "layout", "official", "images_file"):
        assert getattr(first, field) == getattr(second, field), field
    assert not list(empty_machine.rglob("*.tmp"))


def test_a_change_of_the_source_is_noticed(
    cifar, empty_machine: Path, reads: list[str], copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(cifar.binary)
    first = open_dataset(str(folder))
    content = bytearray((cifar.binary / "test_batch.bin").read_bytes())
    content[1] ^= 1  # a single bit of a pixel, the size unchanged
    (folder / "test_batch.bin").unlink()
    (folder / "test_batch.bin").write_bytes(content)
    second = open_dataset(str(folder))
    assert len(reads) == 2
    assert second.sha256 != first.sha256
    assert second.images[50_000, 0] == cifar.pixels[50_000, 0] ^ 1
    assert copies(empty_machine) == [second.images_file]  # the outdated copy is gone
    # The same size again, only the time of the file is another one.
    os.utime(folder / "test_batch.bin", ns=(1, 1))
    open_dataset(str(folder))
    assert len(reads) == 3


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> prepared.Dataset:
    """A set of 600 images, where that is what is expected of one: 184 MB for each kind of damage would be slow."""
    monkeypatch.setattr(prepared, "ROWS", 100)
    images = np.zeros((600, 3072), np.uint8)
    images[-1, -1] = 9
    labels = np.zeros(600, np.uint8)
    return prepared.Dataset("test", images, labels, tuple("abcdefghij"), "0" * 64, "here", "binary", None, None)


def cut(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 1)


def other_shape(file: Path) -> None:
    np.save(file, np.zeros((10, 3072), np.uint8))


def other_type(file: Path) -> None:
    np.save(file, np.zeros((600, 3072), np.int8))


def other_note(**change: object) -> Callable[[Path], None]:
    def apply(file: Path) -> None:
        note = file.with_suffix(".json")
        note.write_text(json.dumps(json.loads(note.read_text()) | change))

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        other_shape,
        other_type,
        Path.unlink,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\x93NUMPY garbage"),
        lambda file: file.with_suffix(".json").unlink(),
        lambda file: file.with_suffix(".json").write_text("{"),
        lambda file: file.with_suffix(".json").write_text("[]"),
        lambda file: file.with_suffix(".json").write_bytes(b"\xff\xfe\x00"),
        other_note(labels="0102"),
        other_note(labels=""),
        other_note(labels="ff" * 600),
        other_note(labels="zz"),
        other_note(class_names=["one"]),
        other_note(official="maybe"),
    ],
)
def test_a_damaged_copy_is_ignored(damage: Callable[[Path], None], made: prepared.Dataset, empty_machine: Path) -> None:
    kept = prepared.save("key", made)
    assert kept.images_file is not None
    assert prepared.load("key") is not None
    damage(kept.images_file)
    assert prepared.load("key") is None
    assert prepared.save("key", made).sha256 == made.sha256
    again = prepared.load("key")
    assert again is not None
    assert again.images[-1, -1] == 9


def test_a_damaged_copy_is_made_again(cifar, empty_machine: Path, reads: list[str]) -> None:
    open_dataset(str(cifar.binary))
    (copy,) = copies(empty_machine)
    cut(copy)
    assert np.array_equal(open_dataset(str(cifar.binary)).images, cifar.pixels)
    assert len(reads) == 2
    open_dataset(str(cifar.binary))
    assert len(reads) == 2


def test_without_a_writable_cache_the_images_stay_in_memory(
    cifar, empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_machine.write_text("a file where the folder should be")
    dataset = open_dataset(str(cifar.binary))
    assert dataset.images_file is None
    assert np.array_equal(dataset.images, cifar.pixels)
    empty_machine.unlink()


def test_a_full_disk_leaves_nothing_behind(
    made: prepared.Dataset, empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    kept = prepared.save("key", made)
    assert kept is made
    assert [file for file in empty_machine.rglob("*") if file.is_file()] == []


def test_what_killed_processes_left_is_removed(made: prepared.Dataset, empty_machine: Path) -> None:
    folder = empty_machine / "prepared"
    folder.mkdir(parents=True)
    old, young = folder / "x.npy.1.aa.tmp", folder / "y.npy.2.bb.tmp"
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    prepared.save("key", made)
    assert not old.exists()
    assert young.exists()  # its process may still be writing
