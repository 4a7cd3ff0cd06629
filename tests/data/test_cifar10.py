"""Whole sets: both layouts, folder and archive, and what is wrong with an incomplete one."""

import gzip
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from klcli.data import cifar10
from klcli.data.cifar10 import locate, read
from klcli.data.layouts import BINARY, PYTHON
from klcli.errors import DataError

REAL = os.environ.get("KLCLI_TEST_CIFAR10")


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(locate(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_form_gives_the_written_images(cifar) -> None:
    expected = hashlib.sha256(cifar.labels.tobytes() + cifar.pixels.tobytes()).hexdigest()
    for path, layout, official in (
        (cifar.python, "python", False),
        (cifar.binary, "binary", None),
        (cifar.python_archive, "python archive", False),
        (cifar.binary_archive, "binary archive", False),
    ):
        dataset = read(locate(path))
        assert np.array_equal(dataset.images, cifar.pixels), path
        assert np.array_equal(dataset.labels, cifar.labels), path
        assert dataset.sha256 == expected
        assert (dataset.name, dataset.layout, dataset.official) == ("cifar10", layout, official)
        assert dataset.source == str(path)
        assert dataset.class_names[:2] == ("airplane", "automobile")


def test_a_set_is_found_below_its_parent(cifar, copy_of: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = copy_of(cifar.binary)
    assert locate(folder.parent).path == folder
    # A complete folder is better than an incomplete one of the other layout.
    other = copy_of(cifar.python)
    (other / "data_batch_3").unlink()
    assert locate(folder.parent).path == folder
    # An archive is better than half a folder.
    (folder / "test_batch.bin").unlink()
    archive = folder.parent / "cifar-10-binary.tar.gz"
    archive.symlink_to(cifar.binary_archive)
    assert locate(folder.parent).path == archive


def test_what_lacks_is_named(cifar, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(cifar.binary)
    (folder / "data_batch_4.bin").unlink()
    assert f"{folder} lacks data_batch_4.bin:" in refusal(folder)
    (folder / "data_batch_4.bin").mkdir()
    assert "data_batch_4.bin is a folder" in refusal(folder)


def test_an_archive_that_lacks_a_file(cifar, tmp_path: Path, writers) -> None:
    members = {f"x/{name}": (cifar.binary / name).read_bytes() for name in BINARY.batch_files[1:]}
    path = writers[2](tmp_path / "a.tar.gz", members)
    assert f"{path} lacks data_batch_1.bin" in refusal(path)
    path = writers[2](tmp_path / "b.tar.gz", {"readme.txt": b"hello"})
    assert "holds no batch file" in refusal(path)


def test_a_damaged_member_is_named_with_its_archive(tmp_path: Path, writers) -> None:
    path = writers[2](tmp_path / "a.tar.gz", {"cifar-10-batches-bin/data_batch_1.bin": bytes(10)})
    assert f"data_batch_1.bin in {path} has 10 bytes where 30730000" in refusal(path)


def test_names_that_point_elsewhere_have_no_effect(cifar, tmp_path: Path, writers) -> None:
    """Only the last part of a name counts, and nothing is written."""
    members = {f"../../{name}": (cifar.binary / name).read_bytes() for name in BINARY.batch_files}
    (tmp_path / "deep" / "er").mkdir(parents=True)
    path = writers[2](tmp_path / "deep" / "er" / "a.tar.gz", members)
    before = sorted(str(file) for file in tmp_path.rglob("*"))
    assert np.array_equal(read(locate(path)).labels, cifar.labels)
    assert sorted(str(file) for file in tmp_path.rglob("*")) == before


def test_a_broken_archive_is_called_so(cifar, tmp_path: Path) -> None:
    content = cifar.binary_archive.read_bytes()
    path = tmp_path / "cifar-10-binary.tar.gz"
    for damaged in (
        content[: len(content) // 2],
        content[:100],
        content[:5000] + b"garbage" * 100 + content[5700:],
        gzip.compress(b"no tar"),
        gzip.compress(b""),
    ):
        path.write_bytes(damaged)
        message = refusal(path)
        assert str(path) in message
        assert "archive" in message


def test_files_that_are_something_else(cifar, tmp_path: Path) -> None:
    page = tmp_path / "cifar-10-python.tar.gz"
    page.write_text("<!DOCTYPE html>\n<html><body>404")
    assert "is a web page" in refusal(page)
    page.write_bytes(b"")
    assert "is no .tar.gz archive" in refusal(page)
    assert "is one batch file: give the folder" in refusal(cifar.python / "data_batch_1")
    assert "No such file" in refusal(tmp_path / "nowhere")
    page.unlink()
    assert "holds no CIFAR-10" in refusal(tmp_path)


def test_a_huge_file_is_not_read(cifar, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(cifar.binary)
    (folder / "test_batch.bin").unlink()
    with (folder / "test_batch.bin").open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no room
    assert f"{2**40} bytes" in refusal(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"\x1f\x8b")
    path.chmod(0)
    assert "Permission denied" in refusal(path)


def test_an_unreadable_batch_is_named(cifar, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of(cifar.binary)

    def deny(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", deny)
    assert f"{folder / 'data_batch_1.bin'} cannot be read (Permission denied)" in refusal(folder)


def test_the_published_checksums_make_a_copy_official(
    cifar, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the checksums of this set in place of CIFAR-10's, every form can tell that it is the official one."""
    md5 = tuple(hashlib.md5((cifar.python / name).read_bytes()).hexdigest() for name in PYTHON.batch_files)
    archive_md5 = hashlib.md5(cifar.binary_archive.read_bytes()).hexdigest()
    python, binary = replace(PYTHON, batch_md5=md5), replace(BINARY, archive_md5=archive_md5)
    monkeypatch.setattr(cifar10, "LAYOUTS", (python, binary))
    for path in (cifar.python, cifar.binary_archive):
        assert read(locate(path)).official is True, path

    folder = copy_of(cifar.binary)
    files = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in BINARY.batch_files}
    note = folder / "verified.json"
    note.write_text(json.dumps({"archive_md5": archive_md5, "files": files}))
    assert read(locate(folder)).official is True
    note.write_text(json.dumps({"archive_md5": archive_md5, "files": files | {"test_batch.bin": "0"}}))
    assert read(locate(folder)).official is None


@pytest.mark.skipif(not REAL, reason="KLCLI_TEST_CIFAR10 names no folder with both layouts of CIFAR-10")
def test_real_images_are_the_same_in_both_layouts() -> None:
    assert REAL
    python, binary = (read(locate(Path(REAL) / layout.folder)) for layout in (PYTHON, BINARY))
    assert python.sha256 == binary.sha256
    assert python.class_names == binary.class_names
    assert np.bincount(python.labels[:50_000]).tolist() == [5000] * 10
    assert np.bincount(python.labels[50_000:]).tolist() == [1000] * 10
