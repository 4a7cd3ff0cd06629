"""Shared fixtures of the store tests: a run to record, and the metrics of an evaluation."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from klcli.data.dataset import Dataset, split
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.store import Store
from klcli.training.budget import budget_of
from klcli.training.environment import Environment
from klcli.training.trainer import train


@pytest.fixture(autouse=True)
def known_machine(known_machine: None) -> None:
    """Every test of the store has it: 10 flushes of each new database were half of the time."""


class Recorder:
    """A store with a short way to begin a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Store(path)

    def begin(
        self, *, sha256: str = "a" * 64, name: str = "small", command: str = "klcli train", **fields: object
    ) -> int:
        config = TrainConfig(**fields)  # type: ignore[arg-type]
        nothing = np.empty((0, 3072), np.uint8), np.empty(0, np.uint8)
        dataset = Dataset(name, *nothing, ("a",), sha256, "tests", "built in", None, None)
        return self.store.runs.begin(
            config, budget_of(config, 45_000), dataset, Environment(1, {"numpy": "2"}), command
        )


@pytest.fixture(scope="session")
def new_recorder() -> Callable[[Path], Recorder]:
    return Recorder


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; returns its exit code, stdout and stderr."""
    from klcli.cli.app import main  # no process that begins a run with Recorder needs it

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*args])
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(tmp_path / "results" / "klcli.db")
    yield recorder
    recorder.store.close()


@pytest.fixture(scope="session")
def trained_store(small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a database with three complete runs, their checkpoints and pictures that are none."""
    folder = tmp_path_factory.mktemp("trained")
    store = Store(folder / "klcli.db")
    splits = split(small_dataset, SplitConfig(validation=100))
    (folder / "plots").mkdir()
    for seed in (1, 2, 3):
        config = TrainConfig(hidden=(5,), epochs=1, seed=seed, split=SplitConfig(validation=100))
        times = budget_of(config, len(splits.train))
        run = store.runs.begin(config, times, small_dataset, Environment(1, {"numpy": "2"}), "klcli train")
        [result] = train([config], splits)
        store.runs.record_epochs(run, result.epochs[-1], result=result)
        store.runs.finish(run, "complete", result, 1.0)
        (folder / "plots" / f"run-{run:06d}.png").write_text("a picture")
    store.close()
    return folder


@pytest.fixture
def three_runs_here(trained_store: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return shutil.copytree(trained_store, tmp_path / "three-runs")
