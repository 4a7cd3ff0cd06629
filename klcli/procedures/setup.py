"""Setup: the images, database, cores and observer of a procedure."""

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from klcli import compiled
from klcli.data.dataset import Dataset
from klcli.data.sources import open_dataset
from klcli.errors import Interrupted, StoreError
from klcli.procedures.observer import Observer
from klcli.procedures.run_lookup import images_of
from klcli.settings.sameness import SETTINGS
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Run
from klcli.store.store import Store
from klcli.studies.executors import WorkersLost
from klcli.text import one_line, path_text, storable
from klcli.training.blas_check import check_blas
from klcli.training.budget import budget_of
from klcli.training.cores import cores
from klcli.training.environment import pin_threads
from klcli.training.result import EpochMetrics

# By whether the network has BN. The length of Adam's steps is eta, whatever the gradient: SGD's 0.1 is too much.
LARGEST_ETA_OF_ADAM = {False: 0.01, True: 0.03}
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

    def images(self, run: Run | None = None, asked: str = "") -> Dataset:
        """Open the images, or those of a run that was `asked` for. Raises DataError if they are missing or damaged."""
        shown = self.observer.say, self.observer.step
        return images_of(run, self.data, asked, *shown) if run else open_dataset(self.data, *shown)

    def store(self) -> Store:
        """Open the database, which can be locked for a minute. Raises StoreError if there is none."""
        with self.observer.step("opening the database"):
            return Store.existing(self.db)

    def new_store(self) -> Store:
        """Open or create the database. Raises StoreError if its disk has no space for a run."""
        with self.observer.step("opening the database"):
            store = Store(self.db)
        folder = store.folder("checkpoints").parent  # of the file itself, if `db` is a link to it
        if (free := shutil.disk_usage(folder).free) < NEEDED:
            short = f"only {free / 1e6:.0f} MB are free here and a run needs {NEEDED / 1e6:.0f}"
            raise StoreError(f"{folder}: {short}, free some space or choose another place with --db")
        return store

    @contextmanager
    def pinned(self, threads: int | None = None) -> Iterator[None]:
        """Give BLAS its threads inside the block. Raises WrongBlas if its products are wrong."""
        with pin_threads(self.threads if threads is None else threads):
            check_blas()
            yield

    def cores_of(self, stacks: int) -> list[int]:
        """Return the number of cores for each of so many stacks, which are trained together."""
        workers = min(jobs := self.jobs or cores(), stacks)
        # A core without a stack of its own helps one that has. Those of Dask's workers are not known here.
        helped = 0 if self.threads > 1 or self.executor else min(jobs - workers, workers)
        return [2] * helped + [1] * (stacks - helped)

    def prepare_engine(self) -> None:
        """Begin to load, or to compile, the code that trains, while this thread opens the images."""
        if compiled.is_new():
            often, cure, folder = "once", "", str(compiled.code_folder())
            if not compiled.writable(folder):
                often = "at every start"
                cure = f" ({path_text(folder)} cannot be written, set KLCLI_CACHE to a folder that can be)"
            self.observer.say(f"compiling the arithmetic for this processor, {often}: about 8 s{cure}")
        with suppress(RuntimeError):  # no more threads for this user: `why_no_engine` does it
            threading.Thread(target=compiled.why_not, daemon=True, name="klcli compiler").start()

    def why_no_engine(self) -> str:
        """Wait for the code that trains, and return why there is none, else ""."""
        with self.observer.step("loading the compiled arithmetic"):
            return compiled.why_not()

    def warn_of_locks(self, store: Store) -> None:
        if why := store.locks.failure:
            cure = "a run that is killed here stays `running` until it is resumed"
            self.observer.warn(f"{store.locks.folder.parent}: this file system has no locks ({why}), {cure}")

    def warn_of_state(self, run: Run) -> None:
        """Warn of a network whose training is not complete."""
        if run.state != "complete":
            network = f"this is its network after epoch {run.epochs_done:g} of {run.epochs:g}"
            self.observer.warn(f"run {run.id} is not complete, but {run.state}: {network}")

    def warn_of_synthetic(self, dataset: str | None) -> None:
        if dataset == "synthetic":
            cure = "(`klcli data fetch` downloads it, --data PATH names it)"
            self.observer.warn(f"SYNTHETIC IMAGES: CIFAR-10 is not in use, these results say nothing about it {cure}")

    def warn_of(self, dataset: Dataset, config: TrainConfig | None = None) -> None:
        """Warn of images that are incomplete or no CIFAR-10, of settings that fail together and of unused images."""
        n, warn = config.split.sizes()[0] if config else 0, self.observer.warn
        if dataset.passed_over:
            warn(f"passed over in the search for CIFAR-10: {'; '.join(dataset.passed_over)}")
        self.warn_of_synthetic(dataset.name)
        if config is None:
            return
        if reason := self.why_no_engine():
            warn(f"no compiled code ({reason}): NumPy does the work, more slowly")
        rest = n % config.batch_size
        if rest and not config.shuffle:
            last = f"the last {rest} of {n} training images are" if rest > 1 else f"the last of {n} training images is"
            cure = f"omit --no-shuffle or give a batch size that divides {n}"
            warn(f"--no-shuffle with --batch-size {config.batch_size}: {last} in no minibatch, {cure}")
        largest = LARGEST_ETA_OF_ADAM[config.batch_norm]
        # A range test shall find where eta is too large.
        if config.optimizer == "adam" and config.eta_max > largest and config.schedule != "range":
            why = f"above {largest:g} it learns little or nothing, try --eta-max 0.001"
            warn(f"--optimizer adam with eta_max {config.eta_max:g}: {why}")

    def warn_of_precision(self, configs: Iterable[TrainConfig]) -> None:
        """Warn of settings that float32 rounds to 0 or infinity."""
        for config in configs:
            for key, word in config.lost_in_float32.items():
                cure = f"give a {'larger' if word == '0' else 'smaller'} one, or --dtype float64"
                self.observer.warn(f"{SETTINGS[key].option} {getattr(config, key):g} is {word} in float32, {cure}")

    def warn_of_cycles(self, config: TrainConfig) -> None:
        """Warn of a training that ends within a cycle, and of one too short for its decay of eta or its snapshots."""
        budget = budget_of(config)
        if not budget.ends_a_cycle:
            eta = f"eta is {budget.learning_rate(budget.total_updates, config):.2g}"
            cure = "networks are best compared at the end of a whole cycle"
            self.observer.warn(f"{budget.cycles:.2f} cycles: training ends where {eta}, {cure}")
        if config.eta_decay != 1 and budget.cycles <= 1:
            self.observer.warn(f"--eta-decay {config.eta_decay:g}: no effect, the training ends with its first cycle")
        if config.snapshots and budget.cycles < 1:
            self.observer.warn("--snapshots: no network is kept, the training ends before the first cycle does")


@contextmanager
def ending_in_a_state(end: Callable[[str, str], None], how_to_continue: Callable[[], str]) -> Iterator[None]:
    """Call `end` with the state and the reason if the block raises; earlier records stay.

    Interrupted and WorkersLost are raised again with the command that continues.
    """
    try:
        yield
    except Interrupted as error:
        end("interrupted", str(error))
        raise Interrupted(f"{error}: {how_to_continue()}", error.signum) from None
    except Exception as error:
        # If the store itself failed, the next opening of the database marks the runs that did not end.
        with suppress(StoreError):
            end("failed", storable(f"{type(error).__name__}: {one_line(error)}"))
        if isinstance(error, WorkersLost):
            raise WorkersLost(f"{error}: {how_to_continue()}") from None
        raise
    except BaseException:  # SystemExit, CancelledError and others, by a callback of a program that imports klcli
        end("interrupted", "interrupted")
        raise
