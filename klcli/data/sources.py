"""Open the requested data set: CIFAR-10 if it is found, else the built-in set. Every command uses this function."""

import os
from collections.abc import Callable
from dataclasses import replace

from klcli.data import synthetic
from klcli.data.cifar10 import layouts, prepared
from klcli.data.cifar10.places import NAMES, SYNTHETIC, find, search
from klcli.data.cifar10.reading import Source, read, unreadable
from klcli.data.dataset import BUILT_IN, Dataset
from klcli.errors import DataError
from klcli.text import path_text


def open_dataset(requested: str | None, say: Callable[[str], None] = lambda message: None) -> Dataset:
    """Return the data set of `--data`: a path, "cifar10" (an error if not found), "synthetic", or None.

    None stands for KLCLI_DATA, which takes the same values, or without it for CIFAR-10 if found, else the built-in set.
    `say` is called before a copy is written. Raises DataError for a path without images; no others replace them.
    """
    variable = os.environ.get("KLCLI_DATA") or None
    wanted = variable if requested is None else requested
    path, origin = (variable, "KLCLI_DATA") if requested in (None, layouts.CIFAR10) else (requested, "--data")
    source: Source | None = None
    passed_over: tuple[str, ...] = ()
    if path is None or (path in NAMES and wanted != SYNTHETIC):
        source, passed_over = search()
    elif wanted != SYNTHETIC:
        source = find(path, origin)
    if source is None and wanted == layouts.CIFAR10:
        cure = "run `klcli data fetch`, or give its folder or archive with --data PATH, or set KLCLI_DATA to it"
        raise DataError(f"CIFAR-10 is not on this machine: {'; '.join((*passed_over, cure))}")
    if source is None:
        key, named = f"{SYNTHETIC}-{synthetic.SHA256}", (SYNTHETIC, synthetic.CLASS_NAMES, BUILT_IN)
    else:
        named = layouts.CIFAR10, layouts.CLASS_NAMES, path_text(source.path)
        try:
            key = prepared.key_of_files(source.files())
        except OSError as error:
            raise unreadable(source.path, error) from None
    dataset = prepared.load(key, *named)
    if dataset is None:
        new = read(source) if source else synthetic.make()
        say(f"preparing the images ({named[-1]}) once: 184 MB in {path_text(prepared.folder())}")
        dataset = prepared.save(key, new)
    return replace(dataset, passed_over=passed_over)
