"""Checkpoints: a trained network in one `.npz` file, never half written."""

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

CONFIG, STEP, DIGEST = "config", "step", "sha256"  # keys among the arrays: beside those of the network


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds."""

    state: dict[str, np.ndarray]  # of the network and of what its training needs to go on
    config: str  # JSON of the TrainConfig
    step: int  # updates done
    sha256: str  # of all the others


def save(path: Path, state: dict[str, np.ndarray], config: str, step: int) -> str:
    """Write a checkpoint to `path` and return its checksum; the file that was there becomes the previous one.

    At every moment at least one of the two is whole. Raises StoreError where writing fails.
    """
    buffer, sha256 = io.BytesIO(), _digest(state, config, step)
    extra: Any = {CONFIG: np.array(config), STEP: np.array(step), DIGEST: np.array(sha256)}
    np.savez(buffer, **extra, **state)  # type: ignore[arg-type]
    with writing(path), replacing(path, previous=previous(path)) as file:
        file.write(buffer.getvalue())
    return sha256


def load(path: Path, run_id: int | None = None, *known: str | None) -> Checkpoint:
    """Return a checkpoint, one of the `known` checksums of a run. Raises StoreError where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            state = dict(archive)
        config, step, sha256 = str(state.pop(CONFIG)), int(state.pop(STEP)), str(state.pop(DIGEST))
        if sha256 != _digest(state, config, step):
            raise ValueError("its checksum is wrong")
    except FileNotFoundError as error:
        raise StoreError(f"{path}: this checkpoint is missing") from error
    # A damaged archive can make zipfile and NumPy raise almost anything.
    except Exception as error:
        raise StoreError(f"{path}: this checkpoint is damaged ({error})") from error
    if known and sha256 not in known:
        raise StoreError(f"{path}: this checkpoint is not the one of run {run_id}")
    return Checkpoint(state, config, step, sha256)


def previous(path: Path) -> Path:
    """Return where the checkpoint before the one at `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _digest(state: dict[str, np.ndarray], config: str, step: int) -> str:
    """Return the SHA-256 over names, types, shapes and bytes: the checksums of a zip omit its names."""
    digest = hashlib.sha256(f"{step} {config}".encode())
    for name, array in sorted(state.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either the old one or all of the new one. Raises StoreError."""
    with writing(path), replacing(path) as file:
        file.write(content)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, an OSError becomes a StoreError that names `path`."""
    try:
        yield
    except OSError as error:
        cure = "free some space or choose another --db"
        raise StoreError(f"{path}: cannot be written ({error.strerror}), {cure}") from error
