"""Fixtures that every test may use."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy loads its library

import numpy as np

from klcli import second_core
from klcli.data.dataset import Dataset
from klcli.second_core import Part
from klcli.second_core.partner import Begun, Partner

# The same examples everywhere, however busy the machine is; the fault harness is where new ones are looked for.
settings.register_profile("the suite", derandomize=True, deadline=None)
settings.load_profile("the suite")

Klcli = Callable[..., subprocess.CompletedProcess[str]]


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
def use_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let this process use one or two cores for the rest of a test, whatever the machine has."""

    def use(number: int) -> None:
        monkeypatch.setattr(second_core, "cores", lambda: number)
        second_core.use()

    yield use
    second_core.use(False)
    second_core.stop()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken back: what is offered to the second core is done there, however busy the machine is."""

    def offers_what_is_held(self: Partner, begun: Begun) -> bool:
        if self._held is begun:
            self._held = None
            for _ in range(begun.parts):
                begun.slot.offered.release()
        return False

    monkeypatch.setattr(Partner, "drops", offers_what_is_held)
    monkeypatch.setattr(Begun, "takes_back", lambda begun: False)


@pytest.fixture
def pieces(patient: None, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each piece of work that was offered was done by the other process."""
    done: list[bool] = []
    finish, left = Begun.finish, Begun.left

    def watched(begun: Begun) -> bool:
        done.append(finish(begun))
        return done[-1]

    def watched_in_parts(begun: Begun) -> Iterator[Part]:
        parts = list(left(begun))
        done.append(not parts)
        return iter(parts)

    monkeypatch.setattr(Begun, "finish", watched)
    monkeypatch.setattr(Begun, "left", watched_in_parts)
    return done


@pytest.fixture
def klcli(tmp_path: Path) -> Klcli:
    """Run the real command in a real process, in a folder of its own; returns the finished process."""

    def run(*args: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "klcli", *args],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The folder with both official layouts of CIFAR-10, where the environment names one."""
    folder = os.environ.get("KLCLI_TEST_CIFAR10")
    if not folder:
        pytest.skip("KLCLI_TEST_CIFAR10 does not name a folder with the real CIFAR-10")
    return Path(folder)
