"""The places where klcli searches for CIFAR-10, and its own cache."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from klcli.data.cifar10.layouts import CIFAR10, LAYOUT_OF, LAYOUTS, PYTHON
from klcli.data.cifar10.reading import Source, locate
from klcli.errors import DataError
from klcli.text import path_text

SYNTHETIC = "synthetic"  # the built-in set
NAMES = (CIFAR10, SYNTHETIC)  # values of --data and KLCLI_DATA other than a path


def cache_folder() -> Path:
    """Return klcli's own cache: `KLCLI_CACHE`, else in the system's cache folder. It may not exist yet."""
    chosen = os.environ.get("KLCLI_CACHE")
    if chosen:
        return user_path(chosen).absolute()
    # Without a home folder (in a container) platformdirs raises, or returns a literal "~", which must not be created.
    with contextlib.suppress(RuntimeError):
        folder = platformdirs.user_cache_path("klcli")
        if folder.is_absolute():
            return folder
    return Path(tempfile.gettempdir()) / f"klcli-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"


def user_path(text: str) -> Path:
    """Return a path with `~` expanded, which a shell does not do in `--data=~/cifar`."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user, or no home folder: "~" is then an ordinary name
        return Path(text)


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


def search() -> tuple[Source | None, tuple[str, ...]]:
    """Return the set at the first usual place that has one, and what is wrong with the places passed over."""
    passed_over: dict[str, None] = {}  # a set in order
    for place in filter(exists, usual_places()):
        try:
            return locate(place), tuple(passed_over)
        except DataError as error:
            passed_over[str(error)] = None
    return None, tuple(passed_over)


def usual_places() -> Iterator[Path]:
    """Yield the folders and archives to try if no path was requested, in order."""
    cache, home = cache_folder(), user_path("~")
    # The archive of `klcli data fetch` precedes a folder beside it, which may be the damaged one that it replaces.
    yield from (cache / layout.archive for layout in LAYOUTS)
    # torchvision accepts any root; its examples and most programs use these.
    roots = [cache, Path(), *map(Path, ("data", "datasets", "Datasets"))]
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


def exists(path: Path) -> bool:
    """Return whether there is a file or folder that this user may see."""
    try:
        return path.exists()
    except OSError:  # in another user's folder
        return False
