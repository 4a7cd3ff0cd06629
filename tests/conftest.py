"""Fixtures that every test may use."""

import importlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from command import Klcli
from hypothesis import settings
from light import KLCLI, LIGHT

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy loads its library

import numpy as np
from machine import set_machine

from klcli import compiled
from klcli.compiled import Engine
from klcli.data.dataset import Dataset

# Compiled once for all processes of all tests, wherever the cache of a test is.
os.environ.setdefault("NUMBA_CACHE_DIR", str(compiled.code_folder().parent))
if compiled.is_new():
    compiled.why_not()  # takes 8 s, and commands would say so

os.environ |= dict.fromkeys(("no_proxy", "NO_PROXY"), "*")  # the servers of the tests are on this machine

if hasattr(signal, "SIGHUP"):  # `nohup` has it ignored, also in the processes of the tests that send it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The same examples everywhere, however busy the machine is; the fault harness is where new ones are looked for.
settings.register_profile("the suite", derandomize=True, deadline=None)
settings.load_profile("the suite")


@pytest.fixture(scope="session")
def small_dataset() -> Dataset:
    """6 files of 200 random images, with a pattern per class that a network can learn."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(1200) % 10).astype(np.uint8)
    patterns = rng.integers(0, 256, (10, 3072))
    images = (0.35 * patterns[labels] + 0.65 * rng.integers(0, 256, (1200, 3072))).astype(np.uint8)
    names = tuple(f"class {i}" for i in range(10))
    return Dataset("small", images, labels, names, "0" * 64, "tests", "built in", None, None)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache in which the first process prepares the synthetic set and all later ones find it."""
    cache = tmp_path_factory.mktemp("klcli-cache")
    yield cache  # 184 MB
    shutil.rmtree(cache, ignore_errors=True)


@pytest.fixture
def known_machine(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set this process and those that it starts, for one test."""
    set_machine(monkeypatch, shared_cache)


@pytest.fixture(params=["NumPy", "compiled"])
def change_forward(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Both engines, one after the other, of which this process trains and checks with one.

    `change_forward(BatchNorm, change)` replaces its `forward(layer, X, track=...)` by what `change` makes of it.
    """
    if request.param == "NumPy":
        monkeypatch.setattr(compiled, "why_not", lambda: "this test is about NumPy")
        return lambda kind, change: monkeypatch.setattr(kind, "forward", change(kind.forward))
    assert compiled.why_not() == ""
    table = importlib.import_module("klcli.compiled.layers").LAYERS

    def change_compiled(kind: type, change: Callable[..., Any]) -> None:
        right = table[kind]

        def wrong(team: Any, layer: Any, X: Any, track: bool) -> Any:
            own = change(lambda layer, X, *, track=False: right(team, layer, X, track))
            return own(layer, X, track=track)

        monkeypatch.setitem(table, kind, wrong)

    return change_compiled


@pytest.fixture(params=["NumPy", "compiled"])
def open_team(request: pytest.FixtureRequest) -> Callable[..., AbstractContextManager[Engine]]:
    """Both engines, one after the other: gives a team, or NUMPY, as `compiled.open_team`."""
    if request.param == "NumPy":
        return lambda dtype, **how: nullcontext(compiled.NUMPY)
    assert compiled.why_not() == ""
    return compiled.open_team


@pytest.fixture
def klcli(tmp_path: Path) -> Klcli:
    """Run the real command in a real process, in a folder of its own; returns the finished process."""
    return _runner(tmp_path, KLCLI)


@pytest.fixture
def light(tmp_path: Path) -> Klcli:
    """Like `klcli`, but without numba and without drawing."""
    return _runner(tmp_path, LIGHT)


def _runner(folder: Path, program: Sequence[str]) -> Klcli:
    def run(*args: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, *args],
            cwd=folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a file system of so many bytes; returns its folder."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        folder = tmp_path / f"disk {len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.name != "posix" or os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a small file system can only be mounted by root, where mounting is allowed")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The folder with both official layouts of CIFAR-10, where the environment names one."""
    folder = os.environ.get("KLCLI_TEST_CIFAR10")
    if not folder:
        pytest.skip("KLCLI_TEST_CIFAR10 does not name a folder with the real CIFAR-10")
    return Path(folder)
