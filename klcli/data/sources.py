"""Open the requested data set: CIFAR-10 if it is found, else the built-in set."""

import os

from klcli.data import synthetic
from klcli.data.cifar10 import prepared
from klcli.data.cifar10.places import CIFAR10, NAMES, SYNTHETIC, find
from klcli.data.cifar10.reading import locate, read
from klcli.data.dataset import Dataset
from klcli.errors import DataError


def open_dataset(requested: str | None) -> Dataset:
    """Return the data set of `--data`: a path, "cifar10" (an error if not found), "synthetic", or None.

    None stands for KLCLI_DATA, which takes the same values, and if that is unset for CIFAR-10 if it is found, else the
    built-in set. Raises DataError for a path that does not exist, and never falls back to other images.
    """
    if requested is None and os.environ.get("KLCLI_DATA") in NAMES:
        requested = os.environ["KLCLI_DATA"]
    path = None if requested == SYNTHETIC else find(None if requested == CIFAR10 else requested)
    if path is None and requested == CIFAR10:
        cure = "run `klcli data fetch`, or give its folder or archive with --data PATH, or set KLCLI_DATA to it"
        raise DataError(f"CIFAR-10 is not on this machine: {cure}")
    source = None if path is None else locate(path)
    key = prepared.key_of_files(source.files()) if source else f"{SYNTHETIC}-{synthetic.SHA256}"
    return prepared.load(key) or prepared.save(key, read(source) if source else synthetic.make())
