"""What the tests of the store share: a run to record, and the numbers of an evaluation."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from klcli.data.dataset import Dataset
from klcli.experiments.config import TrainConfig
from klcli.experiments.environment import Environment
from klcli.experiments.timetable import timetable
from klcli.store.run_store import RunStore


class Recorder:
    """A store with a short way to begin a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = RunStore(path)

    def begin(
        self, *, sha256: str = "a" * 64, name: str = "small", command: str = "klcli train", **fields: object
    ) -> int:
        config = TrainConfig(**fields)  # type: ignore[arg-type]
        nothing = np.empty((0, 3072), np.uint8), np.empty(0, np.uint8)
        dataset = Dataset(name, *nothing, ("a",), sha256, "tests", "built in", None, None)
        return self.store.begin(config, timetable(config, 45_000), dataset, Environment(1, {"numpy": "2"}), command)


@pytest.fixture(scope="session")
def new_recorder() -> Callable[[Path], Recorder]:
    return Recorder


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(tmp_path / "results" / "klcli.db")
    yield recorder
    recorder.store.close()
