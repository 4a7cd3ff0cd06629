"""Where CIFAR-10 is looked for, and where klcli keeps its own copies."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from klcli.data.layouts import LAYOUTS
from klcli.errors import DataError

CIFAR10 = "cifar10"  # the images, wherever they are found
SYNTHETIC = "synthetic"  # the built-in stand-in
NAMES = (CIFAR10, SYNTHETIC)  # what stands for a data set in place of a path


def cache_folder() -> Path:
    """klcli's own cache: `KLCLI_CACHE`, else the place that the system has for caches. It may not exist yet."""
    chosen = os.environ.get("KLCLI_CACHE")
    if chosen:
        return user_path(chosen).absolute()
    # A user without a home, in a container with a bare uid: platformdirs raises, or leaves a "~" that must not
    # become a folder here.
    with contextlib.suppress(RuntimeError):
        folder = platformdirs.user_cache_path("klcli")
        if folder.is_absolute():
            return folder
    return Path(tempfile.gettempdir()) / f"klcli-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"


def user_path(text: str) -> Path:
    """The path that a person wrote, with `~` expanded: shells leave it alone in `--data=~/cifar`."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user, or no home: then it is a name like any other
        return Path(text)


def find(requested: str | None) -> Path | None:
    """The folder or archive to read: `requested`, `KLCLI_DATA`, klcli's cache, the places of torchvision and Keras.

    None where nothing was asked for and nothing was found. Raises DataError where a path that was asked for
    does not exist: falling back to other images would answer another question.
    """
    if requested is not None:
        return _existing(requested, "--data")
    chosen = os.environ.get("KLCLI_DATA")
    if chosen and chosen not in NAMES:
        return _existing(chosen, "KLCLI_DATA")
    return next((place for place in usual_places() if _is_complete(place)), None)


def usual_places() -> Iterator[Path]:
    """Every folder and archive that is looked at when nobody says where the images are, in that order."""
    for root in _roots():
        for layout in LAYOUTS:
            yield root / layout.folder
            yield root / layout.archive
    for home in _homes():
        keras = Path(os.environ.get("KERAS_HOME") or home / ".keras") / "datasets"
        # Keras names the download after the folder; since version 3 it unpacks into a folder named "target".
        yield keras / "cifar-10-batches-py"
        yield keras / "cifar-10-batches-py-target" / "cifar-10-batches-py"
        yield keras / "cifar-10-batches-py.tar.gz"


def _roots() -> Iterator[Path]:
    yield cache_folder()
    # torchvision takes any root; these are the ones its examples and most programs take.
    here = Path()
    yield from (here, here / "data", here / "datasets")
    for home in _homes():
        yield from (home / "data", home / "datasets", Path(os.environ.get("TORCH_HOME") or home / ".cache" / "torch"))
        yield home / ".cache" / "torch" / "datasets"


def _homes() -> Iterator[Path]:
    home = user_path("~")
    if home.is_absolute():
        yield home


def _existing(text: str, origin: str) -> Path:
    path = user_path(text)
    try:
        found = bool(text) and path.exists()
    except (OSError, ValueError) as error:  # no permission, a name too long, a NUL in it
        raise DataError(f"{origin} {text!r} cannot be read ({error}): give a folder or archive that can be") from None
    if not found:
        raise DataError(
            f"{origin} {text!r} does not exist: give the folder or the .tar.gz of CIFAR-10, "
            "or run `klcli data fetch` and leave it out"
        )
    return path.absolute()


def _is_complete(place: Path) -> bool:
    """Whether `place` is an archive, or a folder with all six batch files: half a folder is no find."""
    try:
        if place.name.endswith(".tar.gz"):
            return place.is_file()
        return any(all((place / name).is_file() for name in layout.batch_files) for layout in LAYOUTS)
    except OSError:
        return False
