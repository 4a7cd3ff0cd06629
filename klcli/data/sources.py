"""From what a person asks for to a data set: CIFAR-10 where it is found, the built-in one where it is not."""

import os
from pathlib import Path

from klcli.data import cifar10, prepared, synthetic
from klcli.data.dataset import Dataset
from klcli.data.places import CIFAR10, NAMES, SYNTHETIC, find
from klcli.errors import DataError


def open_dataset(requested: str | None) -> Dataset:
    """The data set of `--data`: a path, "cifar10" (found somewhere, or an error), "synthetic", or None.

    None is KLCLI_DATA, which takes the same values, and without it CIFAR-10 where it is found and the built-in
    set elsewhere. Raises DataError for a path that does not exist, never falling back to other images.
    """
    if requested is None and os.environ.get("KLCLI_DATA") in NAMES:
        requested = os.environ["KLCLI_DATA"]
    if requested == SYNTHETIC:
        return synthetic.open_synthetic()
    path = find(None if requested == CIFAR10 else requested)
    if path is not None:
        return _open_cifar10(path)
    if requested == CIFAR10:
        raise DataError(
            "CIFAR-10 is not on this machine: run `klcli data fetch`, or give its folder or archive with --data PATH, "
            "or set KLCLI_DATA to it"
        )
    return synthetic.open_synthetic()


def _open_cifar10(path: Path) -> Dataset:
    """The images at `path`, mapped from their prepared copy where there is one, else read and prepared."""
    source = cifar10.locate(path)
    key = prepared.key_of_files(source.files())
    return prepared.load(key) or prepared.save(key, cifar10.read(source))
