"""Setup: the images, database, cores and observer of a procedure."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klcli import second_core
from klcli.data.dataset import Dataset
from klcli.data.sources import open_dataset
from klcli.errors import StoreError
from klcli.procedures.observer import Observer
from klcli.settings.train_config import TrainConfig
from klcli.store.store import Store
from klcli.training.environment import pin_threads
from klcli.training.result import EpochMetrics

LARGEST_ETA_OF_ADAM = 0.01  # the length of its steps is eta, whatever the gradient: the 0.1 of SGD makes training fail
ROOM = 20_000_000  # bytes: the epochs, a picture and a checkpoint of a typical network


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The shared state of all procedures of a Lab; the docstring of Lab explains the fields."""

    db: Path
    data: str | None
    threads: int
    jobs: int | None
    executor: str | None
    observer: Observer
    command: str = ""  # stored with the results of the procedure
    on_evaluation: Callable[[EpochMetrics], None] | None = None  # called with the metrics of every evaluation

    def images(self) -> Dataset:
        """Open the images. Raises DataError if they are missing or damaged."""
        return open_dataset(self.data)

    def new_store(self) -> Store:
        """Open or create the database. Raises StoreError if its disk has no space for a run."""
        store = Store(self.db)
        free = shutil.disk_usage(store.path.parent).free
        if free < ROOM:
            raise StoreError(
                f"{store.path.parent}: only {free / 1e6:.0f} MB are free here and a run needs {ROOM / 1e6:.0f}, "
                "free some space or choose another place with --db"
            )
        return store

    def pinned(self, threads: int | None = None) -> AbstractContextManager[Any]:
        """Give BLAS its threads inside the block."""
        return pin_threads(self.threads if threads is None else threads)

    @contextmanager
    def second_core(self, wanted: bool) -> Iterator[None]:
        """Let this process use a second core inside the block, if requested and available."""
        second_core.use(wanted)
        try:
            yield
        finally:
            second_core.use(False)

    def warn_of_images(self, dataset: Dataset) -> None:
        """Warn that results on the built-in images say nothing about CIFAR-10."""
        if dataset.name == "synthetic":
            self.observer.warn(
                "SYNTHETIC IMAGES: CIFAR-10 is not in use, these results say nothing about it "
                "(`klcli data fetch` downloads it, --data PATH names it)"
            )

    def warn_of_settings(self, config: TrainConfig) -> None:
        """Warn of settings that are known to fail together, with the cure."""
        if config.optimizer == "adam" and config.eta_max > LARGEST_ETA_OF_ADAM:
            self.observer.warn(
                f"--optimizer adam with eta_max {config.eta_max:g}: above {LARGEST_ETA_OF_ADAM:g} it learns little "
                "or nothing, try --eta-max 0.001"
            )
