"""Checkpoints: a trained network in one `.npz` file, written atomically."""

import errno
import hashlib
import io
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from klcli.errors import StoreError
from klcli.files import irregular, replacing
from klcli.settings.train_config import TrainConfig
from klcli.store.connection import Database, next_number
from klcli.store.reading import beside, rows
from klcli.store.records import Run, config_of
from klcli.text import one_line, path_text

if TYPE_CHECKING:  # a report must not import the training code
    import sqlite_utils

    from klcli.data.dataset import Inputs

RUNNING = (".running_mean", ".running_variance")
INPUTS = ("pixels.mean", "pixels.std", "class_names")  # keys of the Inputs, together or not at all
ORIGIN = ("dataset", "dataset_sha256")  # texts
VERSIONS = "versions"  # JSON; not in the checksum, which is that of the network wherever it was trained
LARGEST_REST = 1_000_000  # bytes of a file besides its networks
OPEN_ELSEWHERE = (5, 32)  # errors of Windows: access denied, sharing violation
# Errors of the system that a file can cause: it is not there, or its archive names a place before its first byte.
OF_FILE = (None, errno.ENOENT, errno.EINVAL)


class Unreadable(StoreError):
    """The system cannot read a checkpoint at the moment, which says nothing about its content."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of one file."""

    state: dict[str, np.ndarray]  # of the network, and of the state that its training needs to continue
    config: str  # JSON of the TrainConfig
    step: int  # updates done
    sha256: str  # of all other entries but the versions
    inputs: "Inputs | None" = None  # None in a checkpoint of an older klcli
    origin: dict[str, str] = field(default_factory=dict)  # by the keys of ORIGIN and VERSIONS


def file_of(folder: Path, run_id: int) -> Path:
    """Return the path of the checkpoint of a run."""
    return folder / f"run-{run_id:06d}.npz"


def folders(db: Database, *named: str) -> dict[str, Path]:
    """Return the folders of checkpoints beside a database as rows name them; one that is gone is now its own."""
    found = {path_text(one.name): one for one in sorted(db.real.parent.glob("*checkpoints"))}
    every = dict.fromkeys(named, db.folder("checkpoints")) | found
    return {text: one for text, one in every.items() if "/" not in text and f"-{text}".endswith("-checkpoints")}


def column_of(path: Path) -> str:
    """Return the path as the row of a run has it: relative to the database, so that both can be moved."""
    return path_text(f"{path.parent.name}/{path.name}")


def require_no_link(folder: Path) -> None:
    """Raise StoreError for a folder that is a link: in that of a foreign database, files elsewhere would be deleted."""
    if folder.is_symlink():
        cure = "move the whole folder of the database there, and link that"
        raise StoreError(f"{folder}: this is a link to another folder, which is not followed: {cure}")


def new_number(tables: "sqlite_utils.Database", db: Database) -> int:
    """Return a number that no run of a database has or had, inside a transaction, and whose checkpoint is not there.

    One that is there, or will be, is that of another database: of one that was renamed, or of `y.sqlite` beside `y.db`.
    Raises StoreError for a folder whose checkpoints could not be read.
    """
    require_no_link(folder := db.folder("checkpoints"))
    same_folder, number = [one for one in beside(db.real) if one.stem == db.real.stem], next_number(tables, "runs")
    while os.path.lexists(file_of(folder, number)) or any(_has_run(one, number) for one in same_folder):
        number = next_number(tables, "runs")
    return number


def _has_run(database: Path, number: int) -> bool:
    with suppress(StoreError):  # it cannot be read
        return rows(database, "SELECT 1 FROM runs WHERE id = ?", number, seconds=2) != []
    return False


def save(
    path: Path, state: Mapping[str, np.ndarray], config: str, step: int, inputs: "Inputs | None" = None,
    origin: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """Write a checkpoint and return its checksum. The file before it is kept as `previous`. Raises StoreError."""
    texts = {key: np.array(text) for key, text in (origin or {}).items()}
    own = (inputs.mean, inputs.std, np.array(inputs.class_names)) if inputs else ()
    arrays = {**state, **dict(zip(INPUTS, own, strict=False)), **texts}
    sha256 = _digest(arrays, config, step)
    write_atomically(path, npz({"config": config, "step": step, "sha256": sha256, **arrays}), previous(path))
    return sha256


def npz(arrays: Mapping[str, Any]) -> bytes:
    """Return the content of an `.npz` file with these arrays by their keys."""
    np.savez(buffer := io.BytesIO(), **arrays)
    return buffer.getvalue()


def load(path: Path, run: Run | None = None, *known: str | None) -> Checkpoint:
    """Read a checkpoint. Raises StoreError unless it is complete, fits `run` and has one of the `known` checksums."""
    from klcli.training.networks import network_shapes  # a report must not import the training code

    if run is None:
        return _read(path)
    shapes = network_shapes(run.config)
    run.require_length()
    # The network in float64, its raw form, two arrays of Adam for each, and snapshots.
    found = _read(path, LARGEST_REST + 8 * (4 + math.ceil(run.cycles)) * sum(map(math.prod, shapes.values())))
    if known and found.sha256 not in known:
        raise StoreError(f"{path}: this checkpoint is not the one of run {run.id}")
    if wrong := _wrong_array(found.state, shapes):
        raise StoreError(f"{path}: this checkpoint is not a network of run {run.id} ({wrong})")
    return found


def named(path: Path, sha256: str | None, run: Run | None = None) -> Checkpoint | None:
    """Return the checkpoint that the row of a run names: the previous file, until the row of a new one is written."""
    for file in (path, previous(path)):
        with suppress(StoreError):
            if (found := load(file, run)).sha256 == sha256:
                return found
    return None


def says(path: Path, sha256: str | None) -> bool:
    """Whether a file says that it is the checkpoint of this checksum. Unlike `load`, it reads nothing else of it."""
    with suppress(Exception):  # with a damaged archive, zipfile and NumPy can raise almost any
        if not irregular(path):
            with np.load(path, allow_pickle=False) as archive:
                is_short = archive.zip.getinfo("sha256.npy").file_size <= LARGEST_REST
                return is_short and str(archive["sha256"]) == sha256
    return False


def load_alone(path: Path) -> tuple[Checkpoint, TrainConfig, "Inputs"]:
    """Read a checkpoint that a user has named, its settings and its Inputs. Raises StoreError unless it is complete."""
    from klcli.training.networks import network_shapes

    try:
        found = _read(path, may_be_link=True)
        config = config_of(found.config, str(path))
        if wrong := _wrong_array(found.state, network_shapes(config)):
            raise StoreError(f"{path}: this checkpoint is not a network of its settings ({wrong})")
    except StoreError as error:
        cure = "name one that klcli has trained, for example results/checkpoints/run-000007.npz"
        raise StoreError(f"{error}: {cure}") from error
    if found.inputs is None:
        cure = "name its run in the database with --run, whose images must be there"
        raise StoreError(f"{path}: an older klcli wrote this checkpoint, without the mean of the pixels: {cure}")
    return found, config, found.inputs


def _read(path: Path, most: float = math.inf, *, may_be_link: bool = False) -> Checkpoint:
    """Read a file of at most so many bytes. Raises StoreError."""
    size = 1
    try:
        if what := irregular(path) or (path.is_symlink() and not may_be_link and "a link to another file"):
            raise StoreError(f"{path}: this is {what}, not a checkpoint")
        if (size := path.stat().st_size) > most:
            raise ValueError(f"it has {size} bytes, a network of this run has at most {most}")
        with zipfile.ZipFile(path) as archive:
            if sum(one.file_size for one in archive.infolist()) > size:
                raise ValueError("it is compressed, which no checkpoint is")
        with np.load(path, allow_pickle=False) as archive:
            if "config" not in archive:  # an exported network, for example
                raise StoreError(f"{path}: this is not a checkpoint")
            state = dict(archive)
        config, step, sha256 = str(state.pop("config")), int(state.pop("step")), str(state.pop("sha256"))
        if sha256 != _digest(state, config, step):
            raise ValueError("its checksum is wrong")
        origin = {key: str(state.pop(key)) for key in (*ORIGIN, VERSIONS) if key in state}
        inputs = _inputs(state) if INPUTS[0] in state else None
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise StoreError(f"{path}: this checkpoint is missing") from error
    except Exception as error:  # with a damaged archive, zipfile and NumPy can raise almost any
        if isinstance(error, OSError) and error.errno == errno.EMFILE:  # which says nothing about the file
            raise
        if isinstance(error, OSError) and error.errno not in OF_FILE:
            cure = "make it readable or remove it"
            raise Unreadable(f"{path}: this checkpoint cannot be read ({error.strerror}), {cure}") from error
        # A damaged header can claim more numbers than the file has bytes.
        if isinstance(error, MemoryError) and math.prod(getattr(error, "shape", ())) <= size:
            raise
        raise StoreError(f"{path}: this checkpoint is damaged ({one_line(error)})") from error
    return Checkpoint(state, config, step, sha256, inputs, origin)


def _inputs(state: dict[str, np.ndarray]) -> "Inputs":
    """Take the Inputs from the arrays of a file. Raises KeyError, or ValueError for values that no images have."""
    from klcli.data.dataset import CLASSES, PIXELS, Inputs

    mean, std, names = (state.pop(key) for key in INPUTS)
    is_sound = mean.dtype == std.dtype == np.float64 and mean.shape == std.shape == (PIXELS,)
    is_sound &= names.dtype.kind == "U" and names.shape == (CLASSES,) and len({*names.tolist()}) == CLASSES
    if not (is_sound and ((mean >= 0) & (mean <= 255) & (std > 0) & (std <= 255)).all()):  # false for NaN
        raise ValueError(f"its {', '.join(INPUTS)} are not those of images")
    return Inputs(mean, std, tuple(names.tolist()))


def _wrong_array(state: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> str | None:
    from klcli.training.result import OPTIMIZER

    missing = [name for name in sorted(shapes.keys() - state.keys()) if not name.endswith(RUNNING)]
    if missing:  # other than averages, which there are none of before the first update
        return f"{missing[0]} is missing"
    for name, array in state.items():
        shape, is_of_optimizer = shapes.get(".".join(name.split(".")[-2:])), name.startswith(f"{OPTIMIZER}.")
        allowed = (shape, (1, *shape)) if shape and is_of_optimizer and len(shape) == 1 else (shape,)  # b of a stack
        if array.shape not in allowed or array.dtype.kind != "f":
            return f"{name} is {array.dtype} of shape {array.shape}, where {shape} is expected"
        if not is_of_optimizer and not np.isfinite(array).all():
            return f"{name} holds numbers that are not finite"
    return None


def previous(path: Path) -> Path:
    """Return the path of the checkpoint before the one at `path`."""
    return path.with_suffix(f".previous{path.suffix}")


def _digest(state: dict[str, np.ndarray], config: str, step: int) -> str:
    """Return the SHA-256 over names, types, shapes and bytes: the checksums in a zip file do not cover the names."""
    digest = hashlib.sha256(f"{step} {config}".encode())
    for name, array in sorted(one for one in state.items() if one[0] != VERSIONS):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes, kept: Path | None = None) -> None:
    """Replace a file as a whole, or leave the old one, which is `kept` if given a path. Raises StoreError."""
    with writing(path), replacing(path, previous=kept) as file:
        file.write(content)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert an OSError inside the block to a StoreError that names `path`; refuse to replace a pipe or a device."""
    try:
        if what := irregular(path):
            raise StoreError(f"{path}: this is {what}, name a regular file")
        yield
    except OSError as error:
        full, is_open = error.errno in (errno.ENOSPC, errno.EDQUOT), getattr(error, "winerror", None) in OPEN_ELSEWHERE
        cure = "free some space" if full else "choose a folder that can be written"
        cure = "close the program that has it open, or choose another name" if is_open and path.exists() else cure
        raise StoreError(f"{path}: cannot be written ({error.strerror}), {cure}") from error
