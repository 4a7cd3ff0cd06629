"""Checkpoints: a trained network in one `.npz` file, written so that no half file is ever seen."""

import contextlib
import hashlib
import io
import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from klcli.errors import StoreError

CONFIG = "config"  # the key of the TrainConfig's JSON among the arrays


def save(path: Path, state: dict[str, np.ndarray], config: str) -> str:
    """Write the arrays and the config's JSON to `path` and return the file's SHA-256.

    The bytes go to a temporary file beside it, are flushed to the disk and renamed into place.
    Raises StoreError where that fails; an older file at `path` is then intact.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{CONFIG: np.array(config)}, **state)
    write_atomically(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def load(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Return the arrays and the config's JSON. Raises StoreError where the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            state = {name: archive[name] for name in archive.files}
        config = str(state.pop(CONFIG))
        json.loads(config)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: this checkpoint is missing") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise StoreError(f"{path}: this checkpoint is damaged ({error})") from error
    return state, config


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
