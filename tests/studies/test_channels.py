"""The channel of a worker: complete reports, and a stop that reaches every worker that sees the folder."""

import errno
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from klcli.data.dataset import Splits
from klcli.engine.network import Network
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.studies import execution as module
from klcli.studies.execution import ImagesReference, StackTask, Stopped, WorkerChannel, train_stack
from klcli.training.result import TrainResult

Tasks = Callable[..., list[StackTask]]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every update accesses the folder."""
    monkeypatch.setattr(module, "PERIOD", 0.0)


def test_reports_arrive_with_the_best_so_far(tmp_path: Path) -> None:
    parent = WorkerChannel(tmp_path, 3)
    worker = pickle.loads(pickle.dumps(parent))
    assert parent.read() == (0, 0.0)
    worker.on_update(7)
    assert parent.read() == (7, 0.0)
    worker.best = 0.5
    worker.on_update(8)
    assert parent.read() == (8, 0.5)
    assert WorkerChannel(tmp_path, 2).read() == (0, 0.0)


def test_the_folder_is_accessed_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERIOD", 60.0)
    worker = WorkerChannel(tmp_path, 0)
    worker.on_update(1)
    WorkerChannel(tmp_path, 0).stop_all()
    worker.on_update(2)
    assert worker.read() == (1, 0.0)


def test_stop_reaches_every_worker_of_the_folder(tmp_path: Path) -> None:
    workers = [WorkerChannel(tmp_path, index) for index in range(3)]
    WorkerChannel(tmp_path, 0).stop_all()
    for worker in workers:
        with pytest.raises(Stopped):
            worker.on_update(1)


def test_a_folder_that_has_gone_is_a_stop(tmp_path: Path) -> None:
    """A worker whose evaluation lasts longer than the parent waits finds no folder any more."""
    folder = tmp_path / "folder"
    folder.mkdir()
    worker = WorkerChannel(folder, 0)
    worker.on_update(1)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    with pytest.raises(Stopped):
        worker.on_update(2)


def test_a_worker_on_another_host_reports_nothing_and_continues(tmp_path: Path) -> None:
    worker = WorkerChannel(tmp_path / "not on this host", 0)
    for step in range(3):
        worker.on_update(step)
    assert worker.read() == (0, 0.0)
    assert not (tmp_path / "not on this host").exists()
    WorkerChannel(tmp_path / "not on this host", 0).stop_all()


@pytest.mark.parametrize("hidden", ["parent", "parent/of the study"], ids=["above", "of the study"])
def test_a_worker_of_another_user_continues_without_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    """On the host of the parent, a worker of Dask may run as another user, to whom a folder of mode 0700 is closed."""
    worker, stat = WorkerChannel(tmp_path / "parent" / "of the study", 0), os.stat
    worker.folder.mkdir(parents=True)

    def refuse(path: Any, *args: Any, **how: Any) -> os.stat_result:
        if isinstance(path, str | os.PathLike) and tmp_path / hidden in Path(os.fspath(path)).parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *args, **how)

    monkeypatch.setattr("os.stat", refuse)  # chmod refuses nothing to the superuser
    for step in range(3):
        worker.on_update(step)
    worker.put_result(TrainResult(TrainConfig(), Network({}), []))


def test_reports_are_complete(tmp_path: Path) -> None:
    """The reader meets a writer at any moment; step and best always belong together."""
    worker, done = WorkerChannel(tmp_path, 0), threading.Event()

    def write() -> None:
        step = 0
        while not done.is_set():
            step += 1
            worker.best = step / 1e6
            worker.on_update(step)

    writer = threading.Thread(target=write)
    writer.start()
    seen: set[tuple[int, float]] = set()
    while len(seen) < 100:
        seen.add(worker.read())
    done.set()
    writer.join()
    assert all(best == step / 1e6 for step, best in seen)


def test_a_damaged_report_is_none(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"half")
    assert WorkerChannel(tmp_path, 0).read() == (0, 0.0)


def test_a_folder_that_is_removed_while_images_are_prepared_stops_the_worker(
    tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, splits_of = WorkerChannel(tmp_path / "of the study", 0), module.splits_of
    channel.folder.mkdir()

    def prepared(images: ImagesReference, division: SplitConfig) -> Splits:
        shutil.rmtree(channel.folder)
        return splits_of(images, division)

    monkeypatch.setattr(module, "splits_of", prepared)
    with pytest.raises(Stopped):
        train_stack(tasks()[0], channel)
