"""Which images are opened for which request: the order of the places, and never other images than requested."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lookalike import Cifar

from klcli.data import synthetic
from klcli.data.cifar10.prepared import cache_folder
from klcli.data.dataset import Dataset
from klcli.data.sources import open_dataset
from klcli.errors import DataError
from klcli.text import path_of, path_text

Put = Callable[[Path], Path]


@pytest.fixture
def put(cifar: Cifar, small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Put a full set at a path, in the form that its name says; the built-in set is a small one."""
    small = replace(small_dataset, images=small_dataset.images[:120], labels=np.arange(120, dtype=np.uint8) % 10)
    monkeypatch.setattr(synthetic, "make", lambda advance: replace(small, name="synthetic", source="built in"))

    def copy(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith(".tar.gz"):
            shutil.copy(cifar.python_archive, path)
        else:
            shutil.copytree(cifar.binary if path.name.endswith("bin") else cifar.python, path)
        return path

    return copy


def test_the_order_of_the_places(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place added is preferred to all before it, as `klcli help data` says."""
    home, here, cache = tmp_path / "home", tmp_path / "here", tmp_path / "cache"
    assert open_dataset(None).source == "built in"
    with pytest.raises(DataError, match=r"klcli data fetch.*--data PATH.*KLCLI_DATA"):
        open_dataset("cifar10")
    keras = home / ".keras" / "datasets"
    for place in (
        keras / "cifar-10-batches-py.tar.gz",
        keras / "cifar-10-batches-py-target" / "cifar-10-batches-py",
        keras / "cifar-10-batches-py",
        home / ".cache" / "torch" / "datasets" / "cifar-10-batches-bin",
        home / "datasets" / "cifar-10-batches-py",
        home / "data" / "cifar-10-batches-py",
        here / "cifar10" / "cifar-10-batches-py",
        here / "datasets" / "cifar-10-batches-py",
        here / "data" / "cifar-10-batches-py",
        here / "cifar-10-batches-bin",
        cache / "cifar-10-batches-bin",
        cache / "cifar-10-python.tar.gz",  # from `klcli data fetch`, which a damaged folder beside it must not hide
    ):
        put(place)
        assert open_dataset(None).source == str(place)
        assert open_dataset("cifar10").source == str(place)
    monkeypatch.setenv("KLCLI_DATA", str(put(tmp_path / "env")))
    assert open_dataset(None).source == str(tmp_path / "env")
    assert open_dataset(str(put(tmp_path / "asked"))).source == str(tmp_path / "asked")
    assert open_dataset("cifar10").source == str(tmp_path / "env")
    assert open_dataset("synthetic").source == "built in"


def test_of_the_archives_in_the_cache_the_one_fetched_last_is_used(put: Put, cifar: Cifar, tmp_path: Path) -> None:
    """Else `klcli data fetch` would end well, and the commands would use the images of an earlier one."""
    python, binary = put(tmp_path / "cache/cifar-10-python.tar.gz"), tmp_path / "cache/cifar-10-binary.tar.gz"
    shutil.copy(cifar.binary_archive, binary)
    for seconds, used in ((999, python), (1000, python), (1001, binary)):
        os.utime(python, (1000, 1000))
        os.utime(binary, (seconds, seconds))
        assert open_dataset(None).source == open_dataset("cifar10").source == str(used)


def test_half_a_folder_is_passed_over(put: Put, tmp_path: Path) -> None:
    (put(tmp_path / "here" / "data" / "cifar-10-batches-py") / "test_batch").unlink()
    assert open_dataset(None).source == "built in"


def test_a_path_that_does_not_exist_is_an_error(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "here" / "cifar-10-batches-py")  # there is something to fall back to
    for requested in ("nowhere", str(tmp_path / "nowhere"), "", "a\0b", "x" * 5000):
        with pytest.raises(DataError, match="--data"):
            open_dataset(requested)
    monkeypatch.setenv("KLCLI_DATA", "/nowhere/cifar")
    for name in (None, "cifar10"):
        with pytest.raises(DataError, match="KLCLI_DATA '/nowhere/cifar' does not exist"):
            open_dataset(name)
    assert open_dataset("synthetic").source == "built in"


def test_the_variable_takes_names_too(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(tmp_path / "here" / "cifar-10-batches-py")
    for value, source in (("synthetic", "built in"), ("cifar10", str(folder)), ("", str(folder))):
        monkeypatch.setenv("KLCLI_DATA", value)
        assert open_dataset(None).source == source
        assert open_dataset("cifar10").source == str(folder)


def test_the_home_of_a_path_is_expanded(put: Put, tmp_path: Path) -> None:
    folder = put(tmp_path / "home" / "cifar")
    assert open_dataset("~/cifar").source == str(folder)


def test_the_cache_folder(put: Put, empty_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == empty_machine
    monkeypatch.setenv("KLCLI_CACHE", "relative")
    assert cache_folder() == tmp_path / "here" / "relative"
    monkeypatch.delenv("KLCLI_CACHE")
    assert cache_folder().is_relative_to(tmp_path / "home")
    monkeypatch.delenv("HOME")
    assert cache_folder().is_absolute()
    # A user that the system does not know has no home to expand "~" to.
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert cache_folder().is_absolute()
    monkeypatch.setenv("KLCLI_CACHE", str(empty_machine))
    assert open_dataset(None).source == "built in"


def test_a_half_filled_folder_is_named_and_the_search_goes_on(put: Put, tmp_path: Path) -> None:
    half = put(tmp_path / "here" / "data" / "cifar-10-batches-py")
    for name in ("data_batch_2", "test_batch"):
        (half / name).unlink()
    (tmp_path / "here" / "datasets" / "cifar-10-batches-bin").mkdir(parents=True)
    dataset = open_dataset(None)
    assert dataset.source == "built in"
    first, second = dataset.passed_over
    assert first.startswith(f"{half} lacks data_batch_2, test_batch: ")
    assert second.startswith(f"{tmp_path}/here/datasets/cifar-10-batches-bin holds no CIFAR-10")
    with pytest.raises(DataError, match=r"not on this machine: .*lacks data_batch_2, test_batch"):
        open_dataset("cifar10")
    whole = put(tmp_path / "home" / "data" / "cifar-10-batches-bin")
    dataset = open_dataset(None)
    assert dataset.source == str(whole)
    assert len(dataset.passed_over) == 2
    assert open_dataset(str(whole)).passed_over == open_dataset("synthetic").passed_over == ()


def test_a_place_with_two_names_is_named_once(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (put(tmp_path / "home" / "data" / "cifar-10-batches-py") / "test_batch").unlink()
    monkeypatch.chdir(tmp_path / "home")
    assert len(open_dataset(None).passed_over) == 1


@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_the_search_is_not_stopped_by_what_is_no_file(put: Put, tmp_path: Path) -> None:
    data = tmp_path / "here" / "data"
    data.mkdir()
    os.mkfifo(data / "cifar-10-python.tar.gz")
    (data / "cifar-10-binary.tar.gz").mkdir()
    (data / "cifar-10-matlab.tar.gz").symlink_to("/dev/zero")
    (data / "cifar-10-batches-py").symlink_to("cifar-10-batches-py")
    pipes = put(data / "cifar-10-batches-bin")
    (pipes / "data_batch_1.bin").unlink()
    os.mkfifo(pipes / "data_batch_1.bin")
    whole = put(tmp_path / "home" / "data" / "cifar-10-batches-py")
    dataset = open_dataset(None)
    assert dataset.source == str(whole)
    assert len(dataset.passed_over) == 4
    assert any(f"{pipes} lacks data_batch_1.bin (no regular file)" in one for one in dataset.passed_over)


@pytest.mark.parametrize(
    "name",
    [
        "cifar-10-batches-py/cifar-10-batches-py",
        "cifar-10-batches-py-target/cifar-10-batches-py",
        "cifar-10-batches-py.tar.gz",
        "cifar-10-batches-py_archive",
        "cifar-10-batches-py-target_archive",
    ],
)
def test_the_cache_of_keras(put: Put, cifar: Cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    place = tmp_path / "keras" / "datasets" / name
    if name.endswith("_archive"):
        place.parent.mkdir(parents=True)
        shutil.copy(cifar.python_archive, place)
    else:
        put(place)
    assert open_dataset(None).source == str(place)


@pytest.mark.parametrize(
    "folder", ["data", "datasets", "Datasets/cifar-10-batches-mat", "cifar10", "cifar10/cifar-10-batches-bin"]
)
def test_the_folders_of_a_course(put: Put, cifar: Cifar, tmp_path: Path, folder: str) -> None:
    """The batch files directly in ./data, Matlab's in ./Datasets, or the root="cifar10" of a program of torchvision."""
    place = tmp_path / "here" / folder
    shutil.copytree(cifar.matlab if folder.endswith("mat") else cifar.binary, place)
    assert open_dataset(None).source == open_dataset("cifar10").source == str(place)


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="other systems refuse such a name")
@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines", b"\x1b[31m", "数据".encode()])
def test_a_path_of_any_bytes(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    folder = put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)) / "real")
    for dataset in (open_dataset(str(folder)), open_dataset(str(folder.parent))):
        assert dataset.source.isprintable()
        assert path_of(dataset.source) == folder
    monkeypatch.setenv("KLCLI_DATA", str(folder))
    assert path_of(open_dataset(None).source) == folder
    monkeypatch.chdir(folder.parent)
    assert path_of(open_dataset("real").source) == folder
    (folder / "test_batch").unlink()
    for requested in (str(folder), str(folder / "data_batch_1"), str(folder / "nowhere")):
        with pytest.raises(DataError) as caught:
            open_dataset(requested)
        assert str(caught.value).isprintable()
        assert path_text(folder) in str(caught.value)
