"""A small CIFAR-10 look-alike for each test, on a machine that holds no other images."""

from pathlib import Path

import pytest
from lookalike import ROWS, Cifar

from klcli.data.cifar10 import layouts


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cifar:
    """A full set in every layout, as folders and as archives; a test may damage it."""
    monkeypatch.setattr(layouts, "ROWS", ROWS)
    return Cifar.written(tmp_path / "cifar")


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
