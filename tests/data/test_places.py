"""Which images are opened for which request: the order of the places, and never other images than requested."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lookalike import Cifar

from klcli.data import synthetic
from klcli.data.cifar10.places import cache_folder
from klcli.data.dataset import Dataset
from klcli.data.sources import open_dataset
from klcli.errors import DataError

Put = Callable[[Path], Path]


@pytest.fixture
def put(cifar: Cifar, small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Put a full set at a path, in the form that its name says; the built-in set is a small one."""
    small = replace(small_dataset, images=small_dataset.images[:120], labels=np.arange(120, dtype=np.uint8) % 10)
    monkeypatch.setattr(synthetic, "make", lambda: replace(small, name="synthetic", source="built in"))

    def copy(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith(".tar.gz"):
            shutil.copy(cifar.python_archive, path)
        else:
            shutil.copytree(cifar.binary if path.name.endswith("bin") else cifar.python, path)
        return path

    return copy


def test_the_order_of_the_places(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place added is preferred to all before it."""
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
        home / "data" / "cifar-10-batches-py",
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
