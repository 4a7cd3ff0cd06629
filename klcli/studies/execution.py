"""Execution: an executor trains a plan, a list of configs, in stacks; the number of workers changes no digit."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import klcli
from klcli.data.cifar10.places import NAMES, user_path
from klcli.data.dataset import Dataset, Splits, split
from klcli.data.sources import open_dataset
from klcli.errors import ConfigError, DataError, KlcliError
from klcli.settings.sameness import stack_key
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.studies.worker_channel import WorkerChannel
from klcli.termination import at_the_end
from klcli.training.blas_check import check_blas
from klcli.training.environment import pin_threads
from klcli.training.result import TrainResult
from klcli.training.trainer import train, train_chain

STACK_SIZE = 4  # replicas per stack: more gain little, and fewer stacks occupy fewer workers
ATTEMPTS = 3  # to train a stack if its worker dies
POLL_SECONDS = 0.2
STOP_SECONDS = 5  # for the current updates of the workers, after which the study is marked without them


class WorkersLost(KlcliError):
    """A stack cannot be trained: its workers die, or the Dask scheduler has ended."""


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


@dataclass(frozen=True)
class StackOutcome:
    """A trained stack, as a worker returns it to the parent."""

    positions: tuple[int, ...]
    results: list[TrainResult]
    seconds: float


def stacks(plan: Sequence[TrainConfig]) -> list[tuple[int, ...]]:
    """Divide the positions of a plan into stacks of at most STACK_SIZE configs that can be replicas of one stack."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for position, config in enumerate(plan):
        alike.setdefault(stack_key(config), []).append(position)
    parts = [part for own in alike.values() for part in np.array_split(own, -(-len(own) // STACK_SIZE))]
    return sorted(tuple(part.tolist()) for part in parts)


def train_stack(task: StackTask, channel: WorkerChannel) -> StackOutcome:
    """Train one stack in this process: the parent, one of its processes, or a Dask worker.

    Raises DataError or ConfigError if the images or klcli differ from the parent's, Stopped if the parent requests it.
    """
    if task.version != klcli.__version__:
        raise ConfigError(f"klcli {klcli.__version__} on the worker, {task.version} here: install the same on both")
    pin_threads(task.threads)
    check_blas()
    splits = splits_of(task.images, task.configs[0].split)
    started = time.perf_counter()

    def on_evaluation(results: list[TrainResult]) -> None:
        channel.put_best(max((r.epochs[-1].validation.accuracy for r in results if r.epochs), default=0.0))

    results = (train_chain if task.is_chain else train)(
        task.configs, splits, evaluate_test=task.evaluate_test, cores=task.cores,
        on_update=channel.on_update, on_evaluation=on_evaluation,
    )  # fmt: skip
    return StackOutcome(task.positions, results, time.perf_counter() - started)


@lru_cache(maxsize=2)  # the stacks of a study share the splits, and the standardisation takes 0.2 s
def splits_of(images: ImagesReference, division: SplitConfig) -> Splits:
    """Open the data set of a reference on this host and divide it. Raises DataError if it is a different one."""
    requested = images.requested
    if requested is not None and requested not in NAMES and not Path(requested).exists():
        requested = images.name  # another host may have its images in another place
    dataset = open_dataset(requested)
    if dataset.sha256 != images.sha256:
        raise DataError(
            f"{dataset.source}: the worker's images (sha256 {dataset.sha256[:8]}) are not those of this command "
            f"({images.sha256[:8]}), give it the same with KLCLI_DATA"
        )
    return split(dataset, division)


def execute(
    tasks: Sequence[StackTask],
    executor: Executor,
    *,
    check: Callable[[], None] = lambda: None,
    on_progress: Callable[[int, int, float], None] = lambda index, step, best: None,
) -> Iterator[StackOutcome]:
    """Train every stack and yield the outcomes in the order of completion.

    A few times a second, `check` may raise to stop the workers, and `on_progress(index of the task, updates done, best
    validation accuracy)` is called for stacks on this machine. A stack whose worker dies is restarted; raises
    WorkersLost after ATTEMPTS in all, or if the Dask scheduler ends.
    """
    with _temporary_folder() as folder:
        channels = [WorkerChannel(folder, index) for index in range(len(tasks))]
        attempts = [0] * len(tasks)
        running: dict[Future[StackOutcome], int] = {}
        waiting = list(range(len(tasks)))
        try:
            while running or waiting:
                for index in waiting:
                    attempts[index] += 1
                    running[executor.submit(train_stack, tasks[index], channels[index])] = index
                waiting = []
                done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for index in running.values():
                    on_progress(index, *channels[index].read())
                for future in done:
                    index = running.pop(future)
                    try:
                        outcome = future.result()
                    except CancelledError as error:
                        raise WorkersLost("the Dask scheduler has ended or has dropped this study") from error
                    except Exception as error:
                        # All other errors are those of the task. KilledWorker is of Dask, which may not be installed.
                        died = isinstance(error, BrokenExecutor)
                        if not died and type(error).__name__ != "KilledWorker":
                            raise
                        if attempts[index] == ATTEMPTS:
                            raise WorkersLost(
                                f"{ATTEMPTS} workers died one after the other while they trained the same "
                                f"{len(tasks[index].configs)} networks, try fewer --jobs if the memory is too small"
                            ) from error
                        waiting.append(index)
                    else:
                        yield outcome
                check()  # after the outcomes, so that Ctrl-C loses no trained stack
        finally:
            WorkerChannel.stop_all(folder)
            for future in running:
                future.cancel()
            wait([future for future in running if not future.cancelled()], timeout=STOP_SECONDS)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="klcli-"))

    def remove() -> None:
        with suppress(OSError):  # a worker that still writes does not find it by another name
            shutil.rmtree(folder.rename(f"{folder}-ended"), ignore_errors=True)

    with at_the_end(remove):
        try:
            yield folder
        finally:
            remove()
