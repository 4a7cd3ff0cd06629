"""Stored networks that stand alone: of a run, or of a checkpoint without its database."""

from dataclasses import dataclass
from pathlib import Path

from klcli.data.dataset import Inputs, split
from klcli.evaluation.reevaluation import TrainedNetwork
from klcli.procedures.run_lookup import chosen_run, networks_of
from klcli.procedures.setup import Setup
from klcli.settings.train_config import TrainConfig
from klcli.store.checkpoints import Checkpoint, load_alone
from klcli.store.records import Run
from klcli.text import path_text


@dataclass(frozen=True)
class StoredNetwork:
    """A checkpoint, with what its inputs and outputs mean."""

    name: str  # `run 3`, or the path of the checkpoint
    run: Run | None  # None without a database
    config: TrainConfig
    checkpoint: Checkpoint
    networks: list[TrainedNetwork]  # one, or the snapshots
    inputs: Inputs
    dataset: str  # name of the images that it was trained on

    @property
    def has_batch_statistics(self) -> bool:
        """Whether it was evaluated with the statistics of the evaluated images, which a single image has not."""
        return self.config.batch_norm and self.config.bn_statistics == "batch"


def network_of_run(setup: Setup, which: str, snapshots: bool = False) -> StoredNetwork:
    """Return the network of a run. The images are opened only if `--data` names some or an older klcli trained the run.

    Raises ConfigError or StoreError for the run, DataError for the images.
    """
    store = setup.store()
    run = chosen_run(store, which)
    checkpoint, config, name = store.runs.checkpoint(run), run.config, f"run {run.id}"
    networks, inputs = networks_of(name, config, checkpoint, snapshots), checkpoint.inputs
    if inputs is None or setup.data is not None:
        dataset = setup.images(run, name)
        setup.warn_of(dataset)
        inputs = split(dataset, config.split).inputs
    else:
        setup.warn_of_synthetic(run.dataset)
    return StoredNetwork(name, run, config, checkpoint, networks, inputs, run.dataset)


def network_of_file(setup: Setup, path: Path, snapshots: bool = False) -> StoredNetwork:
    """Return the network in a checkpoint file, which needs no database and no images. Raises StoreError."""
    checkpoint, config, inputs = load_alone(path)
    name, dataset = path_text(path), checkpoint.origin.get("dataset", "unknown images")
    networks = networks_of(name, config, checkpoint, snapshots)
    setup.warn_of_synthetic(dataset)
    return StoredNetwork(name, None, config, checkpoint, networks, inputs, dataset)
