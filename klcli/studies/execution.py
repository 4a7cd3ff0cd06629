"""Execution: an executor trains the stacks of a plan; the number of workers changes no digit.

A plan is a list of configs. `stacks` divides it before the first worker starts, by the configs alone, so that the
same replicas are trained together on any worker.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import klcli
from klcli.data.cifar10.places import NAMES
from klcli.data.dataset import Dataset, split
from klcli.data.sources import open_dataset
from klcli.errors import ConfigError, DataError, KlcliError
from klcli.settings.sameness import stack_key
from klcli.settings.train_config import TrainConfig
from klcli.studies.worker_channel import WorkerChannel
from klcli.training.environment import pin_threads
from klcli.training.result import TrainResult
from klcli.training.trainer import train, train_chain

STACK_SIZE = 4  # replicas in lockstep: more of them gain little, and fewer stacks keep fewer workers busy
ATTEMPTS = 3  # how often a stack is started whose workers die
POLL_SECONDS = 0.2


class WorkersLost(KlcliError):
    """No worker is left that could train a stack."""


@dataclass(frozen=True)
class ImagesReference:
    """A data set by name: workers open it themselves, images are never sent."""

    requested: str | None  # of --data
    name: str
    sha256: str

    @classmethod
    def of(cls, dataset: Dataset, requested: str | None) -> "ImagesReference":
        """Return the reference by which a worker finds this data set."""
        path = requested if requested in (None, *NAMES) else str(Path(requested).expanduser().absolute())
        return cls(path, dataset.name, dataset.sha256)


@dataclass(frozen=True)
class StackTask:
    """What a worker needs to train one stack."""

    positions: tuple[int, ...]  # in the plan
    configs: tuple[TrainConfig, ...]
    images: ImagesReference
    look_at_test: bool
    threads: int
    version: str = klcli.__version__
    is_chain: bool = False  # trained one after another, each with the weights of the one before, not in lockstep


@dataclass(frozen=True)
class StackOutcome:
    """A trained stack, as a worker returns it to the parent."""

    positions: tuple[int, ...]
    results: list[TrainResult]
    seconds: float


def stacks(plan: Sequence[TrainConfig]) -> list[tuple[int, ...]]:
    """Divide the positions of a plan into stacks that can be trained in lockstep, in the order of the plan.

    Configs that agree in all that replicas must share form stacks of at most STACK_SIZE, of nearly the same size.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    for position, config in enumerate(plan):
        alike.setdefault(stack_key(config), []).append(position)
    divided = []
    for positions in alike.values():
        count = -(-len(positions) // STACK_SIZE)
        divided += [tuple(int(p) for p in part) for part in np.array_split(positions, count)]
    return sorted(divided)


def train_stack(task: StackTask, channel: WorkerChannel) -> StackOutcome:
    """Train one stack in the calling process: the parent, one of its processes, or a Dask worker.

    Raises DataError where the images of this host differ from the parent's, ConfigError where its version of klcli
    does, and Stopped where the parent asks for it through the channel.
    """
    if task.version != klcli.__version__:
        raise ConfigError(f"klcli {klcli.__version__} on the worker, {task.version} here: install the same on both")
    pin_threads(task.threads)
    splits = split(_open(task.images), task.configs[0].split)
    started = time.perf_counter()

    def on_evaluation(results: list[TrainResult]) -> None:
        channel.put_best(max((r.epochs[-1].validation.accuracy for r in results if r.epochs), default=0.0))

    procedure = train_chain if task.is_chain else train
    results = procedure(
        task.configs, splits, evaluate_test=task.look_at_test, on_update=channel.on_update, on_evaluation=on_evaluation
    )
    return StackOutcome(task.positions, results, time.perf_counter() - started)


@lru_cache(maxsize=2)
def _open(images: ImagesReference) -> Dataset:
    """Open the data set of a reference on this host, once per process. Raises DataError where it is another."""
    requested = images.requested
    if requested is not None and requested not in NAMES and not Path(requested).exists():
        requested = images.name  # another host has its images in another place
    dataset = open_dataset(requested)
    if dataset.sha256 != images.sha256:
        raise DataError(
            f"{dataset.source}: the worker's images (sha256 {dataset.sha256[:8]}) are not those of this command "
            f"({images.sha256[:8]}), give it the same with KLCLI_DATA"
        )
    return dataset


def execute(
    tasks: Sequence[StackTask],
    executor: Executor,
    *,
    check: Callable[[], None] = lambda: None,
    on_progress: Callable[[int, int, float], None] = lambda index, step, best: None,
) -> Iterator[StackOutcome]:
    """Train every stack and yield the outcomes in the order in which they end.

    `check` is called a few times a second; what it raises stops the workers and ends the execution.
    `on_progress(index of the task, updates done, best validation accuracy)` is called for stacks that are trained on
    this machine. A stack whose worker dies is started again, ATTEMPTS times in all. Raises WorkersLost after the last
    attempt, and where the Dask scheduler ends.
    """
    with tempfile.TemporaryDirectory(prefix="klcli-") as folder:
        channels = [WorkerChannel(Path(folder), index) for index in range(len(tasks))]
        attempts = [1] * len(tasks)
        running: dict[Future[StackOutcome], int] = {
            executor.submit(train_stack, task, channel): index
            for index, (task, channel) in enumerate(zip(tasks, channels, strict=True))
        }
        try:
            while running:
                done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for index in running.values():
                    on_progress(index, *channels[index].read())
                for future in done:
                    index = running.pop(future)
                    try:
                        outcome = future.result()
                    except CancelledError as error:
                        raise WorkersLost("the Dask scheduler is gone or has dropped this study") from error
                    except Exception as error:
                        if not _is_death_of_a_worker(error):
                            raise
                        if attempts[index] == ATTEMPTS:
                            raise WorkersLost(
                                f"{ATTEMPTS} workers died one after the other while they trained the same "
                                f"{len(tasks[index].configs)} networks, try fewer --jobs if the memory is too small"
                            ) from error
                        attempts[index] += 1
                        running[executor.submit(train_stack, tasks[index], channels[index])] = index
                    else:
                        yield outcome
                check()  # after the outcomes: a Ctrl-C loses no stack that has been trained
        finally:
            WorkerChannel.stop_all(Path(folder))
            for future in running:
                future.cancel()
            wait([future for future in running if not future.cancelled()], timeout=10)


def _is_death_of_a_worker(error: Exception) -> bool:
    """Whether the worker failed, not the task. Dask's error is recognised by name: Dask may not be installed."""
    if type(error).__name__ == "KilledWorker":
        return True
    from klcli.second_core.partner import PartnerLost

    return isinstance(error, BrokenExecutor | PartnerLost)
