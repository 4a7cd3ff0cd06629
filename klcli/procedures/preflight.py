"""What every command that trains does before it starts."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from klcli.cli.invocation import Invocation
from klcli.errors import StoreError

if TYPE_CHECKING:
    from klcli.data.dataset import Dataset
    from klcli.settings.train_config import TrainConfig

ETA_OF_ADAM = 0.01  # its steps are as long as eta, whatever the gradient: those of SGD's 0.1 lose all that was learnt
ROOM = 20_000_000  # bytes: the epochs, a picture and a checkpoint of a usual network


def warn_of_data(session: Invocation, dataset: "Dataset") -> None:
    """Say loudly that results on the built-in images are no results on CIFAR-10."""
    if dataset.name == "synthetic":
        session.warn(
            "SYNTHETIC IMAGES: no CIFAR-10 in use, these results say nothing about it "
            "(`klcli data fetch` gets it, --data PATH names it)"
        )


def warn_of_settings(session: Invocation, config: "TrainConfig") -> None:
    """Say which settings are known to go wrong together, and the cure."""
    if config.optimizer == "adam" and config.eta_max > ETA_OF_ADAM:
        session.warn(
            f"--optimizer adam with eta_max {config.eta_max:g}: above {ETA_OF_ADAM:g} it learns little or nothing, "
            "try --eta-max 0.001"
        )


def require_room(folder: Path) -> None:
    """Raise StoreError where the disk is too full to keep a run, before the run costs time."""
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise StoreError(
            f"{folder}: only {free / 1e6:.0f} MB are free here and a run needs {ROOM / 1e6:.0f}, "
            "free some space or choose another place with --db"
        )
