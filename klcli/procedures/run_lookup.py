"""Run lookup: find runs by the names that a user gives, and restore their images and networks."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from klcli.errors import ConfigError, DataError, StoreError
from klcli.files import exists
from klcli.settings.run_command import in_database
from klcli.settings.run_names import LAST, parsed, parsed_study
from klcli.settings.setting import require
from klcli.settings.train_config import TrainConfig
from klcli.store.checkpoints import Checkpoint
from klcli.store.records import BEST_FIRST, NEWEST_FIRST, ImageSet, Run, RunFilter, Study
from klcli.store.store import Store
from klcli.text import path_of

if TYPE_CHECKING:  # a report must not import the training code
    from klcli.data.dataset import Dataset
    from klcli.evaluation.reevaluation import TrainedNetwork

NEWEST = f"ORDER BY {NEWEST_FIRST.sql()} LIMIT 1"  # by time: the numbers of a merged database are those of the merge


def chosen_run(store: Store, which: str, asked: str = "run") -> Run:
    """Return the run of a name. Raises ConfigError for a name that no run can have, StoreError if there is no such run.

    The `last` run is the newest complete one, -1 the newest in any state. The `best` run has the highest validation
    accuracy of those that are ranked, on the first of `image_sets`.
    """
    found = _named(store, which, asked)
    require(len(found) == 1, f"{asked} {which}: give one run, these are {len(found)}")
    return found[0]


def chosen_runs(store: Store, which: Sequence[str], asked: str = "run") -> list[Run]:
    """Return every named run once, in the given order; `3,4` are two. Raises ConfigError if none is named."""
    found = [run for text in which for one in text.split(",") if one for run in _named(store, one, asked)]
    require(bool(found), f"{asked} {' '.join(which)!r}: give the number of a run, or `last`, or `best`")
    return list({run.id: run for run in found}.values())


def _named(store: Store, which: str, asked: str) -> list[Run]:
    name = parsed(which, asked)
    if isinstance(name, str):
        latest = f"+state = 'complete' {NEWEST}"  # with the plus, SQLite takes the index of times and sorts nothing
        if found := store.runs.where(latest) if name == LAST else best_runs(store, 1, RunFilter()):
            return found
        kind = "complete run" if name == LAST else "run to rank"
        begin = in_database("klcli train", store.path)
        raise ConfigError(f"{asked} {which}: {store.path} holds no {kind} yet, begin with `{begin}`")
    first, last = name
    if first < 0:
        found = store.runs.where(f"1 {NEWEST} OFFSET ?", [-1 - first])
    elif first == last:
        return [store.runs.get(first)]
    else:
        found = store.runs.where("id BETWEEN ? AND ? ORDER BY id", [first, last])
    if not found:
        raise store.runs.missing(which)
    return found


def chosen_study(store: Store, which: str, asked: str = "study", among: Sequence[Study] | None = None) -> Study:
    """Return the study of a name: `last` is the newest complete one, -1 the newest, -2 the one before it.

    The names other than numbers choose from `among`, by default all.

    Raises ConfigError for a name that no study can have, StoreError if there is no such study.
    """
    if (number := parsed_study(which, asked)) >= 0:
        return store.studies.get(number)
    every = store.studies.all() if among is None else among
    found = [one for one in every if which != LAST or one.state == "complete"]
    require(bool(found) or which != LAST, f"{asked} last: {store.path} holds no complete study, give -1 or a number")
    return found[number] if -len(found) <= number else store.studies.get(number)


def best_runs(store: Store, n: int, chosen: RunFilter) -> list[Run]:
    """Return the best complete runs by validation accuracy on the first of `image_sets`."""
    chosen = replace(chosen, state="complete")
    for images in store.runs.image_sets(chosen):
        return store.runs.query(chosen.on_images_of(images), BEST_FIRST, n)
    return []


def images_of_run(store: Store, run: Run) -> ImageSet:
    """Return the images and the split of a run, with all runs that have them."""
    found = store.runs.image_sets(RunFilter(dataset_sha256=run.dataset_sha256))
    return next(one for one in found if run.split_json in (one.split_json, *one.splits))


def images_of(run: Run, data: str | None, asked: str, *shown: Callable[..., Any]) -> "Dataset":
    """Open the images of a run, at `--data` or at their stored place; `shown` are `say` and `step` of `open_dataset`.

    Raises DataError if they have changed.
    """
    from klcli.data.sources import open_dataset

    dataset = open_dataset(place_of(run, data), *shown)
    if dataset.sha256 != run.dataset_sha256:
        found = f"those of {dataset.source} have {dataset.sha256[:8]}, name the right ones with --data"
        raise DataError(f"{asked}: its images had sha256 {run.dataset_sha256[:8]}, {found}")
    return dataset


def place_of(run: Run, data: str | None) -> str:
    """Return the place of the images of a run, or their name if they are elsewhere now, as `--data` takes it.

    It is `data` if given; the synthetic images are in no such place.
    """
    if data is not None and run.dataset != "synthetic":
        return data
    place = path_of(run.dataset_source)
    return str(place) if place.is_absolute() and exists(place) else run.dataset


def trained_networks(store: Store, run: Run, snapshots: bool = False) -> "list[TrainedNetwork]":
    """Return the network of a run, or its snapshots. Raises ConfigError without any, StoreError for a changed file."""
    return networks_of(f"run {run.id}", run.config, store.runs.checkpoint(run), snapshots)


def same_bits(store: Store, old: Run, new: Run) -> bool | None:
    """Whether two runs have the same network, bit for bit; None if a checkpoint cannot be read.

    The checksums of equal networks differ if an older klcli wrote one of the files, with fewer settings.
    """
    if old.checkpoint_sha256 is not None and old.checkpoint_sha256 == new.checkpoint_sha256:
        return True
    try:
        mine, other = (store.runs.checkpoint(run) for run in (old, new))
    except StoreError:
        return None
    arrays, others = ({name: array.tobytes() for name, array in one.state.items()} for one in (mine, other))
    return mine.step == other.step and arrays == others


def networks_of(owner: str, config: TrainConfig, checkpoint: Checkpoint, snapshots: bool) -> "list[TrainedNetwork]":
    """Return the network in the checkpoint of `owner`, or its snapshots. Raises ConfigError without any.

    One from before the last update has running averages, whatever its settings say, and no other BN statistics.
    """
    from klcli.evaluation.reevaluation import TrainedNetwork
    from klcli.training.budget import budget_of
    from klcli.training.networks import restore
    from klcli.training.result import snapshots_of

    states = snapshots_of(checkpoint.state) if snapshots else [checkpoint.state]
    require(bool(states), f"--snapshots: {owner} has none, train with --snapshots to the end of a cycle")
    if not snapshots and checkpoint.step < budget_of(config).total_updates:
        config = replace(config, bn_statistics="ema", bn_samples=None)
    return [TrainedNetwork(owner, config, restore(config, one)) for one in states]
