"""Execution: an executor trains a plan, a list of configs, in stacks; the number of workers changes no digit."""

import pickle
import struct
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import klcli
from klcli.data.dataset import Dataset, Splits, split
from klcli.data.sources import NAMES, open_dataset
from klcli.engine.network import Network
from klcli.errors import ConfigError, DataError
from klcli.files import exists, temporary_folder
from klcli.settings.sameness import stack_key
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.studies.executors import ProcessesExecutor, WorkersLost
from klcli.text import user_path
from klcli.training.blas_check import check_blas
from klcli.training.environment import environment, pin_threads
from klcli.training.result import Snapshot, TrainResult
from klcli.training.trainer import Quirk, train, train_chain

STACK_SIZE = 4  # replicas per stack: more gain little, and fewer stacks occupy fewer workers
ATTEMPTS = 3  # to train a stack if its worker dies
POLL_SECONDS = 0.2
STOP_SECONDS = 5  # for the current updates in this process or of Dask, after which the study is marked without them

STOP = "stop"
PERIOD = 0.2  # seconds between two accesses to the folder
RESULT_SECONDS = 5.0  # between two results that a worker hands over: less training costs more to store than to repeat
PROGRESS = struct.Struct("<qd")  # updates done, best validation accuracy


class Stopped(Exception):
    """The parent no longer waits for the result."""


@dataclass
class WorkerChannel:
    """Connects the parent and the worker of one stack. On another host it has no effect, and Dask stops the worker."""

    folder: Path
    index: int
    best: float = 0.0  # validation accuracy
    _has_seen_folder: bool = False  # a folder that never exists on another host
    _next: float = 0.0  # time of the next access
    _next_result: float | None = None  # its time, from the first update on

    def on_update(self, step: int) -> None:
        """Report the step, at most once per PERIOD. Raises Stopped if the parent requests it."""
        now = time.monotonic()
        self._next_result = self._next_result or now + RESULT_SECONDS
        if now < self._next:
            return
        self._next = now + PERIOD
        is_there = exists(self.folder)
        # The parent removes the folder after a while, perhaps before a slow worker has read the stop request.
        if exists(self.folder / STOP) or (self._has_seen_folder and not is_there) or _dropped_by_dask():
            raise Stopped
        self._has_seen_folder = is_there
        self._put(str(self.index), PROGRESS.pack(step, self.best))

    def _put(self, name: str, content: bytes) -> None:
        """Write a file that is never seen incomplete; nothing where the folder is not."""
        with suppress(OSError):
            temporary = self.folder / f"{name}.new"
            temporary.write_bytes(content)
            temporary.replace(self.folder / name)

    def put_result(self, result: TrainResult) -> None:
        """Hand over the result so far of a training that has one replica, unless the one before is not read yet."""
        now, file = time.monotonic(), self.folder / f"{self.index}.result"
        if now < (self._next_result or 0.0) or exists(file) or not exists(self.folder):
            return
        self._next_result = now + RESULT_SECONDS
        self._put(file.name, pickle.dumps(replace(result, network=Network(result.network.layers))))

    def take_result(self) -> TrainResult | None:
        file = self.folder / f"{self.index}.result"
        with suppress(OSError):
            content = file.read_bytes()
            file.unlink()
            found: TrainResult = pickle.loads(content)
            return found
        return None

    def read(self) -> tuple[int, float]:
        with suppress(OSError, struct.error):
            step, best = PROGRESS.unpack((self.folder / str(self.index)).read_bytes())
            return step, best
        return 0, 0.0

    def stop_all(self) -> None:
        with suppress(OSError):
            (self.folder / STOP).touch()


def _dropped_by_dask() -> bool:
    """Whether this code runs in a cancelled task of a Dask worker, on any host."""
    try:
        worker = sys.modules["distributed"].get_worker()
    except (KeyError, ValueError):  # Dask is not loaded, or this is not one of its tasks
        return False
    task = worker.state.tasks.get(worker.get_current_task())
    return task is None or task.state == "cancelled"


@dataclass(frozen=True)
class ImagesReference:
    """A reference to a data set, which a worker opens by itself: images are never sent."""

    requested: str | None  # of --data
    name: str
    sha256: str

    @classmethod
    def of(cls, dataset: Dataset, requested: str | None) -> "ImagesReference":
        path = requested if requested in (None, *NAMES) else str(user_path(requested).absolute())
        return cls(path, dataset.name, dataset.sha256)


@dataclass(frozen=True)
class StackTask:
    """The input of a worker that trains one stack."""

    positions: tuple[int, ...]  # in the plan
    configs: tuple[TrainConfig, ...]
    images: ImagesReference
    evaluate_test: bool
    threads: int
    cores: int = 1  # for this stack
    version: str = klcli.__version__
    is_chain: bool = False  # trained in sequence, each from the weights of the previous network, not in lockstep
    snapshot: Snapshot | None = None  # from which a single replica continues
    quirks: tuple[Quirk, ...] = ()  # functions of a module, which the worker imports


@dataclass(frozen=True)
class StackOutcome:
    """A trained stack, as a worker returns it to the parent."""

    positions: tuple[int, ...]
    results: list[TrainResult]
    seconds: float
    versions: dict[str, str]  # of the environment that trained it
    since: float = 0.0  # the epoch after which it continued


def stacks(plan: Sequence[TrainConfig]) -> list[tuple[int, ...]]:
    """Divide the positions of a plan into stacks of at most STACK_SIZE configs that can be replicas of one stack."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for position, config in enumerate(plan):
        alike.setdefault(stack_key(config), []).append(position)
    parts = [part for own in alike.values() for part in np.array_split(own, -(-len(own) // STACK_SIZE))]
    return sorted(tuple(part.tolist()) for part in parts)


def train_stack(task: StackTask, channel: WorkerChannel) -> StackOutcome:
    """Train one stack. Raises DataError or ConfigError if images or klcli are not the parent's, Stopped on request."""
    if task.version != klcli.__version__:
        raise ConfigError(f"klcli {klcli.__version__} on the worker, {task.version} here: install the same on both")
    # At once: the folder may be removed while this worker prepares its images.
    channel.on_update(task.snapshot.step if task.snapshot else 0)

    def on_evaluation(results: list[TrainResult]) -> None:
        channel.best = max([channel.best, *(r.epochs[-1].validation.accuracy for r in results if r.epochs)])
        # The untrained network is no checkpoint: its seed gives it again.
        if len(task.configs) == 1 and results[0].diverged_at is None and results[0].step:
            channel.put_result(results[0])

    how: dict[str, Any] = {"evaluate_test": task.evaluate_test, "cores": task.cores, "quirks": task.quirks}
    how |= {"on_update": channel.on_update, "evaluate_untrained": True}
    with pin_threads(task.threads):
        check_blas()
        splits = splits_of(task.images, task.configs[0].split)
        if task.is_chain:
            results = train_chain(task.configs, splits, on_evaluation=on_evaluation, **how)
        else:
            results = train(task.configs, splits, on_evaluation=on_evaluation, snapshot=task.snapshot, **how)
    seconds = sum(one.seconds for one in (results if task.is_chain else results[:1]))
    since = task.snapshot.epochs[-1].epoch if task.snapshot and task.snapshot.epochs else 0.0
    return StackOutcome(task.positions, results, seconds, environment().versions, since)


@lru_cache(maxsize=2)  # the stacks of a study share the splits, and the standardisation takes 0.2 s
def splits_of(images: ImagesReference, division: SplitConfig) -> Splits:
    """Open the data set of a reference on this host and divide it. Raises DataError if it is a different one."""
    path = images.requested
    # Another host may have its images in another place.
    is_here = path is None or path in NAMES or exists(Path(path))
    dataset = open_dataset(path if is_here else images.name)
    if dataset.sha256 != images.sha256:
        own, wanted = dataset.sha256[:8], images.sha256[:8]
        differ = f"the worker's images (sha256 {own}) are not those of this command ({wanted})"
        raise DataError(f"{dataset.source}: {differ}, give it the same with KLCLI_DATA")
    return split(dataset, division)


def execute(
    tasks: Sequence[StackTask], executor: Executor, *, check: Callable[[], None] = lambda: None,
    on_progress: Callable[[int, int, float], None] = lambda index, step, best: None,
    on_result: Callable[[int, TrainResult], None] = lambda index, result: None,
) -> Iterator[StackOutcome]:  # fmt: skip
    """Train every stack and yield the outcomes in the order of completion.

    A few times a second, `check` may raise to stop the workers, and `on_progress(index of the task, updates done, best
    validation accuracy)` is called. `on_result(index of the task, result so far)` gets a state from which a stack of
    one replica can continue, after evaluations that are RESULT_SECONDS apart; if its worker dies, another one continues
    from it. Raises WorkersLost if ATTEMPTS workers of a stack die or the Dask scheduler ends.
    """
    tasks = list(tasks)
    attempts = [0] * len(tasks)
    running: dict[Future[StackOutcome], int] = {}
    waiting = list(range(len(tasks)))
    with temporary_folder() as folder:
        channels = [WorkerChannel(folder, index) for index in range(len(tasks))]
        try:
            while running or waiting:
                for index in waiting:
                    attempts[index] += 1
                    running[executor.submit(train_stack, tasks[index], channels[index])] = index
                waiting = []
                done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for index in running.values():
                    on_progress(index, *channels[index].read())
                    if result := channels[index].take_result():
                        tasks[index] = replace(tasks[index], snapshot=result.snapshot())
                        on_result(index, result)
                # Outcomes before errors, so that an error loses no trained stack.
                for future in sorted(done, key=lambda one: one.cancelled() or one.exception() is not None):
                    index = running.pop(future)
                    try:
                        outcome = future.result()
                    except CancelledError as error:
                        raise WorkersLost("the Dask scheduler has ended or has dropped this study") from error
                    except Exception as error:
                        # All other errors are those of the task. KilledWorker is of Dask, which may not be installed.
                        is_dask = type(error).__name__ == "KilledWorker"
                        if not isinstance(error, BrokenExecutor) and not is_dask:
                            raise
                        if attempts[index] == ATTEMPTS:
                            died = f"{ATTEMPTS} workers died one after the other while they trained the same"
                            cure = f"give {'`dask worker` fewer --nthreads' if is_dask else 'fewer --jobs'}"
                            words = f"{len(tasks[index].configs)} networks, {cure} if the memory is too small"
                            raise WorkersLost(f"{died} {words}") from error
                        waiting.append(index)
                    else:
                        tasks[index] = replace(tasks[index], snapshot=None)  # as large as a checkpoint
                        yield outcome
                check()  # after the outcomes, so that Ctrl-C loses no trained stack
        finally:
            if running:
                _stop(running, executor, channels[0])


def _stop(running: Collection[Future[StackOutcome]], executor: Executor, channel: WorkerChannel) -> None:
    channel.stop_all()
    for future in running:
        future.cancel()
    if isinstance(executor, ProcessesExecutor):
        executor.kill()
    wait([future for future in running if not future.cancelled()], timeout=STOP_SECONDS)
