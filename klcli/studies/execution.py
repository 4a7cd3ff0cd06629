"""Execution: groups of members go to an executor; how many workers there are changes no digit.

A plan is a list of configs. `groups` divides it before the first worker starts, by the configs alone,
so that the same members are trained together wherever they are trained.
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
from klcli.studies.worker_channel import Mailbox
from klcli.training.environment import pin_threads
from klcli.training.result import TrainResult
from klcli.training.trainer import train, train_chain

GROUP_SIZE = 4  # members in lockstep: more of them gain little, and fewer groups keep fewer workers busy
ATTEMPTS = 3  # how often a group is started whose worker dies
POLL_SECONDS = 0.2


class WorkersLost(KlcliError):
    """Nobody is left who could train a group."""


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
class GroupTask:
    """What a worker needs to train one group."""

    positions: tuple[int, ...]  # in the plan
    configs: tuple[TrainConfig, ...]
    images: ImagesReference
    look_at_test: bool
    threads: int
    version: str = klcli.__version__
    is_chain: bool = False  # trained one after another, each with the weights of the one before, not in lockstep


@dataclass(frozen=True)
class GroupOutcome:
    """A trained group, as it travels from a worker to the parent."""

    positions: tuple[int, ...]
    results: list[TrainResult]
    seconds: float


def groups(plan: Sequence[TrainConfig]) -> list[tuple[int, ...]]:
    """Divide the positions of a plan into groups that can be trained in lockstep, in the order of the plan.

    Configs that agree in all that members must share go together, at most GROUP_SIZE of them, in
    groups of nearly the same size.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    for position, config in enumerate(plan):
        alike.setdefault(stack_key(config), []).append(position)
    divided = []
    for positions in alike.values():
        count = -(-len(positions) // GROUP_SIZE)
        divided += [tuple(int(p) for p in part) for part in np.array_split(positions, count)]
    return sorted(divided)


def train_group(task: GroupTask, mailbox: Mailbox) -> GroupOutcome:
    """Train one group where this is called: in the parent, in a process, on a Dask worker.

    Raises DataError where this host's images are others than the parent's, ConfigError where its
    klcli is, and Stopped where the parent asks for it through the mailbox.
    """
    if task.version != klcli.__version__:
        raise ConfigError(f"klcli {klcli.__version__} on the worker, {task.version} here: install the same on both")
    pin_threads(task.threads)
    splits = split(_open(task.images), task.configs[0].split)
    started = time.perf_counter()

    def on_evaluation(results: list[TrainResult]) -> None:
        mailbox.put_best(max((r.epochs[-1].validation.accuracy for r in results if r.epochs), default=0.0))

    procedure = train_chain if task.is_chain else train
    results = procedure(
        task.configs, splits, look_at_test=task.look_at_test, on_update=mailbox.on_update, on_evaluation=on_evaluation
    )
    return GroupOutcome(task.positions, results, time.perf_counter() - started)


@lru_cache(maxsize=2)
def _open(images: ImagesReference) -> Dataset:
    """Open the data set of a reference on this host, once per process. Raises DataError where it is another."""
    requested = images.requested
    if requested is not None and requested not in NAMES and not Path(requested).exists():
        requested = images.name  # another host keeps its images elsewhere
    dataset = open_dataset(requested)
    if dataset.sha256 != images.sha256:
        raise DataError(
            f"{dataset.source}: the worker's images (sha256 {dataset.sha256[:8]}) are not those of this command "
            f"({images.sha256[:8]}), give it the same with KLCLI_DATA"
        )
    return dataset


def execute(
    tasks: Sequence[GroupTask],
    executor: Executor,
    *,
    check: Callable[[], None] = lambda: None,
    on_progress: Callable[[int, int, float], None] = lambda index, step, best: None,
) -> Iterator[GroupOutcome]:
    """Train every group and yield their outcomes as they come.

    `check` is called a few times a second; what it raises stops the workers and ends the execution.
    `on_progress(index of the task, updates done, best validation accuracy)` hears of groups that are
    trained on this machine. A group whose worker dies is started again, ATTEMPTS times in all; then
    WorkersLost is raised, as where the Dask scheduler goes away.
    """
    with tempfile.TemporaryDirectory(prefix="klcli-") as folder:
        mailboxes = [Mailbox(Path(folder), index) for index in range(len(tasks))]
        attempts = [1] * len(tasks)
        running: dict[Future[GroupOutcome], int] = {
            executor.submit(train_group, task, mailbox): index
            for index, (task, mailbox) in enumerate(zip(tasks, mailboxes, strict=True))
        }
        try:
            while running:
                done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for index in running.values():
                    on_progress(index, *mailboxes[index].read())
                for future in done:
                    index = running.pop(future)
                    try:
                        outcome = future.result()
                    except CancelledError as error:
                        raise WorkersLost("the Dask scheduler is gone, or has forgotten this study") from error
                    except Exception as error:
                        if not _is_death_of_a_worker(error):
                            raise
                        if attempts[index] == ATTEMPTS:
                            raise WorkersLost(
                                f"{ATTEMPTS} workers died one after the other over the same group of "
                                f"{len(tasks[index].configs)} networks, try fewer --jobs if the memory is too small"
                            ) from error
                        attempts[index] += 1
                        running[executor.submit(train_group, tasks[index], mailboxes[index])] = index
                    else:
                        yield outcome
                check()  # after the outcomes: what has been trained is not lost to a Ctrl-C
        finally:
            Mailbox.stop_all(Path(folder))
            for future in running:
                future.cancel()
            wait([future for future in running if not future.cancelled()], timeout=10)


def _is_death_of_a_worker(error: Exception) -> bool:
    """Whether the worker is at fault, not the task. Dask's own error is known by name: Dask may not be installed."""
    if type(error).__name__ == "KilledWorker":
        return True
    from klcli.second_core.partner import PartnerLost

    return isinstance(error, BrokenExecutor | PartnerLost)
