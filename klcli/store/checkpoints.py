"""Checkpoints: a trained network in one `.npz` file, written so that no half file is ever seen."""

import contextlib
import hashlib
import io
import os
from pathlib import Path

import numpy as np

from klcli.errors import StoreError

CONFIG = "config"  # the key of the TrainConfig's JSON among the arrays
DIGEST = "sha256"  # the key of the checksum over all the rest


def save(path: Path, state: dict[str, np.ndarray], config: str) -> str:
    """Write the arrays and the config's JSON to `path` and return the SHA-256 of the content.

    The bytes go to a temporary file beside it, are flushed to the disk and renamed into place.
    Raises StoreError where that fails; an older file at `path` is then intact.
    """
    buffer = io.BytesIO()
    digest = _digest(state, config)
    np.savez(buffer, **{CONFIG: np.array(config), DIGEST: np.array(digest)}, **state)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())
    return digest


def load(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Return the arrays and the config's JSON. Raises StoreError where the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            state = {name: archive[name] for name in archive.files}
        config, digest = str(state.pop(CONFIG)), str(state.pop(DIGEST))
        if digest != _digest(state, config):
            raise ValueError("its checksum is wrong")
    except FileNotFoundError as error:
        raise StoreError(f"{path}: this checkpoint is missing") from error
    # A damaged archive can make zipfile and NumPy raise almost anything.
    except Exception as error:
        raise StoreError(f"{path}: this checkpoint is damaged ({error})") from error
    return state, config


def _digest(state: dict[str, np.ndarray], config: str) -> str:
    """Return the SHA-256 over names, types, shapes and bytes: the checksums of a zip leave out its names."""
    digest = hashlib.sha256(config.encode())
    for name, array in sorted(state.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either the old one or all of the new one. Raises StoreError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: cannot be written ({error.strerror}), free some space or choose another --db"
        ) from error
