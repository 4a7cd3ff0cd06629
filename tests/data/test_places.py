"""What is opened for which request: the order of the places, and never other images than those asked for."""

from pathlib import Path

import numpy as np
import pytest

from klcli.data import sources
from klcli.data.dataset import Dataset
from klcli.data.places import cache_folder, find, usual_places
from klcli.data.sources import open_dataset
from klcli.errors import DataError


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name what would be opened instead of reading it."""

    def stand_in(source: str) -> Dataset:
        return Dataset("", np.empty(0), np.empty(0), (), "", source, "", None, None)

    monkeypatch.setattr(sources, "_open_cifar10", lambda path: stand_in(str(path.absolute())))
    monkeypatch.setattr(sources.synthetic, "open_synthetic", lambda: stand_in("built in"))


def complete(folder: Path, suffix: str = "") -> Path:
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / f"{name}{suffix}").touch()
    return folder


def test_the_order_of_the_places(
    opened: None, empty_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place added is preferred to all before it."""
    home, here = tmp_path / "home", tmp_path / "here"
    assert open_dataset(None).source == "built in"
    with pytest.raises(DataError, match=r"klcli data fetch.*--data PATH.*KLCLI_DATA"):
        open_dataset("cifar10")

    archive = home / ".keras" / "datasets" / "cifar-10-batches-py.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.touch()
    assert open_dataset("cifar10").source == str(archive)
    keras = home / ".keras" / "datasets"
    for place, suffix in (
        (keras / "cifar-10-batches-py-target" / "cifar-10-batches-py", ""),
        (keras / "cifar-10-batches-py", ""),
        (home / "data" / "cifar-10-batches-py", ""),
        (here / "data" / "cifar-10-batches-py", ""),
        (here / "cifar-10-batches-bin", ".bin"),
        (empty_machine / "cifar-10-batches-bin", ".bin"),
    ):
        complete(place, suffix)
        assert open_dataset(None).source == str(place)
        assert open_dataset("cifar10").source == str(place)
    monkeypatch.setenv("KLCLI_DATA", str(complete(tmp_path / "env")))
    assert open_dataset(None).source == str(tmp_path / "env")
    assert open_dataset(str(complete(tmp_path / "asked"))).source == str(tmp_path / "asked")
    assert open_dataset("cifar10").source == str(tmp_path / "env")
    assert open_dataset("synthetic").source == "built in"


def test_half_a_folder_is_no_find(opened: None, tmp_path: Path) -> None:
    folder = complete(tmp_path / "here" / "data" / "cifar-10-batches-py")
    (folder / "test_batch").unlink()
    assert find(None) is None


def test_a_path_that_does_not_exist_is_an_error(opened: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete(tmp_path / "here" / "cifar-10-batches-py")  # there is something to fall back to
    for requested in ("nowhere", str(tmp_path / "nowhere"), "", "a\0b", "x" * 5000):
        with pytest.raises(DataError, match="--data"):
            open_dataset(requested)
    monkeypatch.setenv("KLCLI_DATA", "/nowhere/cifar")
    for requested in (None, "cifar10"):
        with pytest.raises(DataError, match="KLCLI_DATA '/nowhere/cifar' does not exist"):
            open_dataset(requested)
    assert open_dataset("synthetic").source == "built in"


def test_the_variable_takes_names_too(opened: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = complete(tmp_path / "here" / "cifar-10-batches-py")
    monkeypatch.setenv("KLCLI_DATA", "synthetic")
    assert open_dataset(None).source == "built in"
    assert open_dataset("cifar10").source == str(folder)
    monkeypatch.setenv("KLCLI_DATA", "cifar10")
    assert open_dataset(None).source == str(folder)
    monkeypatch.setenv("KLCLI_DATA", "")
    assert open_dataset(None).source == str(folder)


def test_the_home_of_a_path_is_expanded(opened: None, tmp_path: Path) -> None:
    folder = complete(tmp_path / "home" / "cifar")
    assert open_dataset("~/cifar").source == str(folder)


def test_the_cache_folder(empty_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert list(usual_places())
    assert find(None) is None
