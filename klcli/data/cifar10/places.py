"""The places where klcli searches for CIFAR-10, and its own cache."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from klcli.data.cifar10.layouts import LAYOUTS, PYTHON
from klcli.errors import DataError

CIFAR10 = "cifar10"  # CIFAR-10, from any place
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


def find(requested: str | None) -> Path | None:
    """Return the folder or archive to read: `requested`, `KLCLI_DATA`, or the first usual place that is complete.

    None if no path was requested and no place is complete. Raises DataError if a requested path does not exist.
    """
    variable = os.environ.get("KLCLI_DATA", "")
    if requested is None and variable in ("", *NAMES):
        return next(filter(_is_complete, usual_places()), None)
    origin, text = ("KLCLI_DATA", variable) if requested is None else ("--data", requested)
    path = user_path(text)
    try:
        found = bool(text) and path.exists()
    except (OSError, ValueError) as error:  # no permission, a name too long, a NUL in it
        raise DataError(f"{origin} {text!r} cannot be read ({error}): give a folder or archive that can be") from None
    if not found:
        cure = "give the folder or the .tar.gz of CIFAR-10, or run `klcli data fetch` and omit it"
        raise DataError(f"{origin} {text!r} does not exist: {cure}")
    return path.absolute()


def usual_places() -> Iterator[Path]:
    """Yield the folders and archives to try if no path was requested, in order."""
    cache, home = cache_folder(), user_path("~")
    # The archive of `klcli data fetch` precedes a folder beside it, which may be the damaged one that it replaces.
    yield from (cache / layout.archive for layout in LAYOUTS)
    # torchvision accepts any root; its examples and most programs use these.
    roots = [cache, Path(), Path("data"), Path("datasets")]
    if home.is_absolute():
        torch = home / ".cache" / "torch"
        roots += [home / "data", home / "datasets", Path(os.environ.get("TORCH_HOME") or torch), torch / "datasets"]
    yield from (root / name for root in roots for layout in LAYOUTS for name in (layout.folder, layout.archive))
    if home.is_absolute():
        keras = Path(os.environ.get("KERAS_HOME") or home / ".keras") / "datasets"
        # Keras names the download after the folder; since version 3 it unpacks into a folder named "target".
        name = PYTHON.folder
        yield from (keras / name, keras / f"{name}-target" / name, keras / f"{name}.tar.gz")


def _is_complete(place: Path) -> bool:
    """Whether `place` is an archive, or a folder with all six batch files; an incomplete folder is skipped."""
    forms = [[place]] if place.name.endswith(".tar.gz") else [layout.files_in(place) for layout in LAYOUTS]
    try:
        return any(all(map(Path.is_file, files)) for files in forms)
    except OSError:
        return False
