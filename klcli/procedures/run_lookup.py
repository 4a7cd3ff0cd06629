"""Stored networks: runs by the words of a person, their images, and their networks as they were."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from klcli.errors import ConfigError, DataError

if TYPE_CHECKING:
    from klcli.data.dataset import Dataset
    from klcli.evaluation.reevaluation import TrainedNetwork
    from klcli.store.store import Store
    from klcli.store.transition import Row

LAST, BEST = "last", "best"


def chosen_run(store: "Store", which: str) -> "Row":
    """Return the run of a number, the `last` complete one, or the `best`. Raises ConfigError or StoreError.

    The best one has the highest validation accuracy on the images used last, divided as most runs on them.
    """
    from klcli.store.runs import BEST_FIRST, RunFilter

    if which == LAST:
        found = store.runs.latest_complete()
        runs = [] if found is None else [found]
    elif which == BEST:
        chosen = RunFilter(state="complete")
        sets = store.runs.image_sets(chosen)
        same = [RunFilter(state="complete", dataset_sha256=s["dataset_sha256"], split=s["split"]) for s in sets[:1]]
        runs = [run for one in same for run in store.runs.query(one, BEST_FIRST, 1)]
    else:
        try:
            return store.runs.get(int(which))
        except ValueError:
            raise ConfigError(f"run {which!r}: give the number of a run, or `last`, or `best`") from None
    if not runs:
        raise ConfigError(f"run {which}: {store.path} holds no complete run yet, begin with `klcli train`")
    return runs[0]


def chosen_runs(store: "Store", which: Sequence[str]) -> "list[Row]":
    """Return every run once, in the order in which they were named; `3,4` are two."""
    found = [chosen_run(store, one) for text in which for one in text.split(",") if one]
    return list({run["id"]: run for run in found}.values())


def images_of(run: "Row", data: str | None, asked: str) -> "Dataset":
    """Open the images of a run, named or where they were. Raises DataError where they are others now."""
    from klcli.data.sources import open_dataset

    if data is None:
        data = run["dataset_source"] if Path(run["dataset_source"]).exists() else run["dataset"]
    dataset = open_dataset(data)
    if dataset.sha256 != run["dataset_sha256"]:
        raise DataError(
            f"{asked}: its images had sha256 {run['dataset_sha256'][:8]}, those of {dataset.source} have "
            f"{dataset.sha256[:8]}, name the right ones with --data"
        )
    return dataset


def trained_networks(store: "Store", run: "Row", snapshots: bool) -> "list[TrainedNetwork]":
    """Return the network of a run, or those at the ends of its cycles.

    Raises ConfigError where it kept none of those, and StoreError where its checkpoint is not what it was.
    """
    from klcli.evaluation.reevaluation import TrainedNetwork
    from klcli.settings.train_config import TrainConfig
    from klcli.training.networks import restore
    from klcli.training.result import snapshots_of

    config, state = TrainConfig.from_json(run["config"]), store.runs.checkpoint(run).state
    states = snapshots_of(state) if snapshots else [state]
    if not states:
        raise ConfigError(f"--snapshots: run {run['id']} kept none, train with --snapshots to the end of a cycle")
    return [TrainedNetwork(f"run {run['id']}", config, restore(config, one)) for one in states]
