"""Checkpoints: a trained network in one `.npz` file, written atomically."""

import errno
import hashlib
import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from klcli.errors import StoreError
from klcli.files import irregular, replacing
from klcli.store.records import Run

RUNNING = (".running_mean", ".running_variance")


@dataclass(frozen=True)
class Checkpoint:
    """The content of one file."""

    state: dict[str, np.ndarray]  # of the network, and of the state that its training needs to continue
    config: str  # JSON of the TrainConfig
    step: int  # updates done
    sha256: str  # of all other entries


def save(path: Path, state: dict[str, np.ndarray], config: str, step: int) -> str:
    """Write a checkpoint and return its checksum. The file before it is kept as `previous`. Raises StoreError."""
    buffer, sha256 = io.BytesIO(), _digest(state, config, step)
    np.savez(buffer, config=config, step=step, sha256=sha256, **state)  # type: ignore[arg-type]
    with writing(path), replacing(path, previous=previous(path), is_only_writer=True) as file:
        file.write(buffer.getvalue())
    return sha256


def load(path: Path, run: Run | None = None, *known: str | None) -> Checkpoint:
    """Read a checkpoint. Raises StoreError unless it is complete, fits `run` and has one of the `known` checksums."""
    from klcli.training.networks import network_shapes  # a report must not import the training code

    try:
        shapes = network_shapes(run.config) if run else {}
        if run:
            run.require_length()
        if what := irregular(path) or (path.is_symlink() and "a link to another file"):
            raise StoreError(f"{path}: this is {what}, not a checkpoint")
        size = path.stat().st_size
        # The network in float64 and its raw form, two arrays of Adam for each of its own, a snapshot per cycle.
        weights = sum(map(math.prod, shapes.values()))
        largest = 1_000_000 + 8 * (4 + math.ceil(run.cycles)) * weights if run else size
        if size > largest:
            raise ValueError(f"it has {size} bytes, a network of this run has at most {largest}")
        with zipfile.ZipFile(path) as archive:
            if sum(one.file_size for one in archive.infolist()) > size:
                raise ValueError("it is compressed, which no checkpoint is")
        with np.load(path, allow_pickle=False) as archive:
            state = dict(archive)
        config, step, sha256 = str(state.pop("config")), int(state.pop("step")), str(state.pop("sha256"))
        if sha256 != _digest(state, config, step):
            raise ValueError("its checksum is wrong")
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise StoreError(f"{path}: this checkpoint is missing") from error
    except Exception as error:  # with a damaged archive, zipfile and NumPy can raise almost any
        if isinstance(error, OSError) and error.errno is not None:  # from the system, not from NumPy
            raise StoreError(f"{path}: this checkpoint cannot be read ({error.strerror})") from error
        raise StoreError(f"{path}: this checkpoint is damaged ({error})") from error
    if run and known and sha256 not in known:
        raise StoreError(f"{path}: this checkpoint is not the one of run {run.id}")
    if run and (wrong := _wrong_array(state, shapes)):
        raise StoreError(f"{path}: this checkpoint is not a network of run {run.id} ({wrong})")
    return Checkpoint(state, config, step, sha256)


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
    return path.parent / f"{path.stem}.previous{path.suffix}"


def _digest(state: dict[str, np.ndarray], config: str, step: int) -> str:
    """Return the SHA-256 over names, types, shapes and bytes: the checksums in a zip file do not cover the names."""
    digest = hashlib.sha256(f"{step} {config}".encode())
    for name, array in sorted(state.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file as a whole, or leave the old one. Raises StoreError."""
    with writing(path), replacing(path) as file:
        file.write(content)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert an OSError inside the block to a StoreError that names `path`; refuse to replace a pipe or a device."""
    try:
        if what := irregular(path):
            raise StoreError(f"{path}: this is {what}, name a regular file")
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space" if full else "choose a folder that can be written"
        raise StoreError(f"{path}: cannot be written ({error.strerror}), {cure}") from error
