"""Setup: the images, database, cores and observer of a procedure."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from klcli import second_core
from klcli.data.dataset import Dataset
from klcli.data.sources import open_dataset
from klcli.errors import StoreError
from klcli.procedures.observer import Observer
from klcli.settings.train_config import TrainConfig
from klcli.store.store import Store
from klcli.training.blas_check import check_blas
from klcli.training.environment import pin_threads
from klcli.training.result import EpochMetrics

LARGEST_ETA_OF_ADAM = 0.01  # the length of its steps is eta, whatever the gradient: the 0.1 of SGD makes training fail
NEEDED = 20_000_000  # bytes: the epochs, a picture and a checkpoint of a typical network


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
        return open_dataset(self.data, self.observer.say)

    def new_store(self) -> Store:
        """Open or create the database. Raises StoreError if its disk has no space for a run."""
        store = Store(self.db)
        free = shutil.disk_usage(store.path.parent).free
        if free < NEEDED:
            raise StoreError(
                f"{store.path.parent}: only {free / 1e6:.0f} MB are free here and a run needs {NEEDED / 1e6:.0f}, "
                "free some space or choose another place with --db"
            )
        return store

    @contextmanager
    def pinned(self, threads: int | None = None) -> Iterator[None]:
        """Give BLAS its threads inside the block. Raises WrongBlas if its products are wrong."""
        with pin_threads(self.threads if threads is None else threads):
            check_blas()
            yield

    @contextmanager
    def second_core(self, wanted: bool) -> Iterator[None]:
        """Let this process use a second core inside the block, if requested and available."""
        second_core.use(wanted)
        try:
            yield
        finally:
            second_core.use(False)

    def warn_of_images(self, dataset: Dataset) -> None:
        """Warn of usual places whose images are incomplete, and that the built-in images are not CIFAR-10."""
        if dataset.passed_over:
            self.observer.warn(f"passed over in the search for CIFAR-10: {'; '.join(dataset.passed_over)}")
        if dataset.name == "synthetic":
            self.observer.warn(
                "SYNTHETIC IMAGES: CIFAR-10 is not in use, these results say nothing about it "
                "(`klcli data fetch` downloads it, --data PATH names it)"
            )

    def warn_of_locks(self, store: Store) -> None:
        """Warn if the file system of the database has no locks."""
        if store.locks.failure:
            self.observer.warn(
                f"{store.path.parent}: this file system has no locks ({store.locks.failure}), a run that is killed "
                "here stays `running` until `klcli train --resume RUN` takes it over"
            )

    def warn_of_settings(self, config: TrainConfig, n: int) -> None:
        """Warn of settings that are known to fail together, with the cure, and of unused ones of n training images."""
        rest = n % config.batch_size
        if rest and not config.shuffle:
            images = (
                f"the last {rest} of {n} training images are" if rest > 1 else f"the last of {n} training images is"
            )
            self.observer.warn(
                f"--no-shuffle with --batch-size {config.batch_size}: {images} in no minibatch, "
                f"omit --no-shuffle or give a batch size that divides {n}"
            )
        if config.optimizer == "adam" and config.eta_max > LARGEST_ETA_OF_ADAM:
            self.observer.warn(
                f"--optimizer adam with eta_max {config.eta_max:g}: above {LARGEST_ETA_OF_ADAM:g} it learns little "
                "or nothing, try --eta-max 0.001"
            )
