"""Checkpoints: a trained network in one `.npz` file, written atomically."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from klcli.errors import StoreError
from klcli.files import replacing

CONFIG, STEP, DIGEST = "config", "step", "sha256"  # keys in the file besides those of the network


@dataclass(frozen=True)
class Checkpoint:
    """The content of one file."""

    state: dict[str, np.ndarray]  # of the network, and of the state that its training needs to continue
    config: str  # JSON of the TrainConfig
    step: int  # updates done
    sha256: str  # of all other entries


def save(path: Path, state: dict[str, np.ndarray], config: str, step: int) -> str:
    """Write a checkpoint to `path` and return its checksum; an existing file becomes the previous checkpoint.

    At any time, at least one of the two is complete. Raises StoreError if writing fails.
    """
    buffer, sha256 = io.BytesIO(), _digest(state, config, step)
    extra: Any = {CONFIG: np.array(config), STEP: np.array(step), DIGEST: np.array(sha256)}
    np.savez(buffer, **extra, **state)  # type: ignore[arg-type]
    with writing(path), replacing(path, previous=previous(path)) as file:
        file.write(buffer.getvalue())
    return sha256


def load(path: Path, run_id: int | None = None, *known: str | None) -> Checkpoint:
    """Read a checkpoint with one of the `known` checksums of a run. Raises StoreError if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            state = dict(archive)
        config, step, sha256 = str(state.pop(CONFIG)), int(state.pop(STEP)), str(state.pop(DIGEST))
        if sha256 != _digest(state, config, step):
            raise ValueError("its checksum is wrong")
    except FileNotFoundError as error:
        raise StoreError(f"{path}: this checkpoint is missing") from error
    # With a damaged archive, zipfile and NumPy can raise almost any exception.
    except Exception as error:
        raise StoreError(f"{path}: this checkpoint is damaged ({error})") from error
    if known and sha256 not in known:
        raise StoreError(f"{path}: this checkpoint is not the one of run {run_id}")
    return Checkpoint(state, config, step, sha256)


def previous(path: Path) -> Path:
    """Return the path of the checkpoint before the one at `path`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


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
    """Convert an OSError inside the block to a StoreError that names `path`."""
    try:
        yield
    except OSError as error:
        cure = "free some space or choose another --db"
        raise StoreError(f"{path}: cannot be written ({error.strerror}), {cure}") from error
