"""Run lookup: find runs by the names that a user gives, and restore their images and networks."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from klcli.data.dataset import Dataset
from klcli.data.sources import exists, open_dataset
from klcli.errors import ConfigError, DataError
from klcli.evaluation.reevaluation import TrainedNetwork
from klcli.settings.setting import MAX_INTEGER, require
from klcli.settings.train_config import TrainConfig
from klcli.store.checkpoints import Checkpoint
from klcli.store.records import BEST_FIRST, Run, RunFilter
from klcli.store.store import Store
from klcli.text import path_of
from klcli.training.networks import restore
from klcli.training.result import snapshots_of

LAST, BEST = "last", "best"


def chosen_run(store: Store, which: str) -> Run:
    """Return a run by number, the `last` complete one, or the `best`. Raises ConfigError or StoreError.

    The best run has the highest validation accuracy on the most recently used images and their most common split.
    """
    if which not in (LAST, BEST):
        return store.runs.get(run_number(which, "run", "`last`, or `best`"))
    latest = "state = 'complete' ORDER BY id DESC LIMIT 1"
    for run in store.runs.where(latest) if which == LAST else best_runs(store, 1, RunFilter()):
        return run
    raise ConfigError(f"run {which}: {store.path} holds no complete run yet, begin with `klcli train`")


def run_number(which: str, asked: str, otherwise: str) -> int:
    """Parse the number of a run, which `asked` takes. Raises ConfigError for any other text, and beyond the largest."""
    try:
        number = int(which)
    except ValueError:
        raise ConfigError(f"{asked} {which!r}: give the number of a run, or {otherwise}") from None
    require(abs(number) <= MAX_INTEGER, f"{asked} {which}: there is no such run, the number is too large")
    return number


def best_runs(store: Store, n: int, chosen: RunFilter) -> list[Run]:
    """Return the best complete runs by validation accuracy on the most recent images and their most common split."""
    chosen = replace(chosen, state="complete")
    for images in store.runs.image_sets(chosen):
        return store.runs.query(chosen.on_images_of(images), BEST_FIRST, n)
    return []


def chosen_runs(store: Store, which: Sequence[str]) -> list[Run]:
    """Return every named run once, in the given order; `3,4` are two. Raises ConfigError if none is named."""
    found = [chosen_run(store, one) for text in which for one in text.split(",") if one]
    require(bool(found), f"run {' '.join(which)!r}: give the number of a run, or `last`, or `best`")
    return list({run.id: run for run in found}.values())


def images_of(run: Run, data: str | None, asked: str, say: Callable[[str], None] = lambda message: None) -> Dataset:
    """Open the images of a run, at `--data` or at their stored place. Raises DataError if they have changed."""
    if data is None:
        place = path_of(run.dataset_source)
        data = str(place) if place.is_absolute() and exists(place) else run.dataset
    dataset = open_dataset(data, say)
    if dataset.sha256 != run.dataset_sha256:
        found = f"those of {dataset.source} have {dataset.sha256[:8]}, name the right ones with --data"
        raise DataError(f"{asked}: its images had sha256 {run.dataset_sha256[:8]}, {found}")
    return dataset


def trained_networks(store: Store, run: Run, snapshots: bool = False) -> list[TrainedNetwork]:
    """Return the network of a run, or its snapshots. Raises ConfigError without any, StoreError for a changed file."""
    return networks_of(f"run {run.id}", run.config, store.runs.checkpoint(run), snapshots)


def networks_of(owner: str, config: TrainConfig, checkpoint: Checkpoint, snapshots: bool) -> list[TrainedNetwork]:
    """Return the network in the checkpoint of `owner`, or its snapshots. Raises ConfigError without any."""
    states = snapshots_of(checkpoint.state) if snapshots else [checkpoint.state]
    require(bool(states), f"--snapshots: {owner} has none, train with --snapshots to the end of a cycle")
    return [TrainedNetwork(owner, config, restore(config, one)) for one in states]
