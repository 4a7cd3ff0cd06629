"""The places where klcli searches for CIFAR-10, and the one function with which every command opens a data set."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from klcli.data import synthetic
from klcli.data.cifar10 import layouts, prepared
from klcli.data.cifar10.layouts import CIFAR10, LAYOUT_OF, LAYOUTS, PYTHON
from klcli.data.cifar10.prepared import cache_folder
from klcli.data.cifar10.reading import Source, locate, read, unreadable
from klcli.data.dataset import BUILT_IN, SYNTHETIC, Dataset
from klcli.errors import DataError
from klcli.files import exists
from klcli.settings.split_config import FILES
from klcli.text import path_text, user_path

Step = Callable[..., AbstractContextManager[Callable[[float], None]]]  # as that of an Observer
FORMAT = 3  # part of every key: a copy in an older format is never read
NAMES = (CIFAR10, SYNTHETIC)  # values of --data and KLCLI_DATA other than a path


def open_dataset(
    requested: str | None, say: Callable[[str], None] = lambda message: None,
    step: Step = lambda *about: nullcontext(lambda done: None),
) -> Dataset:  # fmt: skip
    """Return the data set of `--data`: a path, "cifar10", "synthetic", or None, which stands for KLCLI_DATA, or without
    it for CIFAR-10 if found, else the built-in set. `say` is called before a copy is written, and `step` shows
    what takes seconds.

    Raises DataError for a path without images, which no others replace, and for "cifar10" if it is not found.
    """
    variable = os.environ.get("KLCLI_DATA") or None
    wanted = variable if requested is None else requested
    path, origin = (variable, "KLCLI_DATA") if requested in (None, CIFAR10) else (requested, "--data")
    source: Source | None = None
    passed_over: dict[str, None] = {}  # what is wrong with the places before, a set in order
    if path is None or (path in NAMES and wanted != SYNTHETIC):
        for place in filter(exists, usual_places()):
            try:
                source = locate(place)
                break
            except DataError as error:
                passed_over[str(error)] = None
    elif wanted != SYNTHETIC:
        source = find(path, origin)
    if source is None and wanted == CIFAR10:
        cure = "run `klcli data fetch`, or give its folder or archive with --data PATH, or set KLCLI_DATA to it"
        raise DataError(f"CIFAR-10 is not on this machine: {'; '.join((*passed_over, cure))}")
    if source is None:
        named = SYNTHETIC, synthetic.CLASS_NAMES, BUILT_IN
    else:
        named = CIFAR10, layouts.CLASS_NAMES, path_text(source.path)
    key = key_of(source)
    with step("checking the prepared images"):
        dataset = prepared.load(key, *named)
    if dataset is None:
        with step("reading images", FILES * layouts.ROWS) as advance:
            new = read(source, advance) if source else synthetic.make(advance)
        say(f"preparing the images ({named[-1]}) once: 184 MB in {path_text(prepared.folder())}")
        with step("writing the prepared images"):
            dataset = prepared.save(key, new, say)
    return replace(dataset, passed_over=tuple(passed_over))


def key_of(source: Source | None) -> str:
    """Return the key of the prepared copy of a source, of the built-in set for None. Raises DataError."""
    if source is None:
        return f"{SYNTHETIC}-{synthetic.SHA256}"
    try:
        found = [*map(Path.stat, source.files())]
    except OSError as error:
        raise unreadable(source.path, error) from None
    # ctime, which no program can set, reveals an edit that restores size and mtime, the inode another file.
    parts = [(one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found]
    return hashlib.sha256(f"klcli {FORMAT} {parts}".encode()).hexdigest()


def find(text: str, origin: str) -> Source:
    """Return the set at a path given by `origin`, an option or a variable. Raises DataError if there is none."""
    path, named = user_path(text), f"{origin} '{path_text(text)}'"
    try:
        found = bool(text) and path.exists()
    except (OSError, ValueError) as error:  # no permission, a name too long, a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{named} cannot be read ({reason}): give a folder or archive that can be") from None
    if not found:
        cure = "give the folder or the archive of CIFAR-10, or run `klcli data fetch` and omit it"
        raise DataError(f"{named} does not exist: {cure}")
    return locate(path)


def usual_places() -> Iterator[Path]:
    """Yield the folders and archives to try if no path was requested, in order."""
    cache, home = cache_folder(), user_path("~")
    # The archive of `klcli data fetch` precedes a folder beside it, which may be the damaged one that it replaces.
    yield from layouts.fetched(cache)
    # torchvision accepts any root; its examples and most programs use these.
    roots = [cache, Path(), *map(Path, ("data", "datasets", "Datasets", CIFAR10))]
    if home.is_absolute():
        torch = home / ".cache" / "torch"
        roots += [home / "data", home / "datasets", Path(os.environ.get("TORCH_HOME") or torch), torch / "datasets"]
    for root in roots:
        yield from (root / name for layout in LAYOUTS for name in (layout.folder, layout.archive))
        if any(exists(root / name) for name in LAYOUT_OF):
            yield root
    if home.is_absolute():
        keras = Path(os.environ.get("KERAS_HOME") or home / ".keras") / "datasets"
        # Keras names the download after the folder. Since version 3 it unpacks into a folder named "target", and keeps
        # the download as "_archive".
        names = PYTHON.folder, f"{PYTHON.folder}-target"
        yield from (keras / f"{name}{end}" for end in ("", ".tar.gz", "_archive") for name in names)
