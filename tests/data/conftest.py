"""A small CIFAR-10 look-alike for each test, on a machine that holds no other images."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from lookalike import ROWS, Cifar

from klcli.data.cifar10 import layouts


@pytest.fixture(scope="session")
def written_once(tmp_path_factory: pytest.TempPathFactory) -> Cifar:
    made = Cifar.written(tmp_path_factory.mktemp("lookalike") / "cifar")
    for array in (made.pixels, made.labels):
        array.flags.writeable = False
    return made


@pytest.fixture
def cifar(written_once: Cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cifar:
    """A full set in every layout, as folders and as archives; a test may damage it."""
    monkeypatch.setattr(layouts, "ROWS", ROWS)
    return replace(written_once, root=shutil.copytree(written_once.root, tmp_path / "cifar"))


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data anywhere: an empty home, working directory and cache. Returns the cache folder."""
    for name in ("KLCLI_DATA", "TORCH_HOME", "KERAS_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KLCLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cache"
