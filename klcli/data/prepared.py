"""Prepared copies: images once read and checked, kept as one file that later processes map into memory."""

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from klcli.data.dataset import CLASSES, PIXELS, Dataset
from klcli.data.layouts import ROWS
from klcli.data.places import cache_folder
from klcli.settings.split_config import FILES

FORMAT = 1  # part of every key: a new format never meets an old file
ABANDONED = 24 * 3600  # seconds after which a temporary file belongs to a process that is gone


def key_of_files(files: list[Path]) -> str:
    """The key of what these files hold now: over the resolved path, size and modification time of each.

    Raises OSError where one of them is gone.
    """
    digest = hashlib.sha256(f"klcli {FORMAT}".encode())
    for path in files:
        stat = path.stat()
        digest.update(repr((str(path.resolve()), stat.st_size, stat.st_mtime_ns)).encode())
    return digest.hexdigest()


def load(key: str) -> Dataset | None:
    """The prepared copy `key`, its images mapped read-only; None where there is none or it is damaged."""
    images_file, note_file = _paths(key)
    try:
        note = json.loads(note_file.read_text(encoding="utf-8"))
        labels = np.frombuffer(bytes.fromhex(note["labels"]), np.uint8)
        images = np.load(images_file, mmap_mode="r")
        dataset = Dataset(
            name=str(note["name"]),
            images=images,
            labels=labels,
            class_names=tuple(str(name) for name in note["class_names"]),
            sha256=str(note["sha256"]),
            source=str(note["source"]),
            layout=str(note["layout"]),
            official=note["official"],
            images_file=images_file,
        )
    # Whatever is wrong with it, the sources are still there to make it again.
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return dataset if _is_sound(dataset) else None


def save(key: str, dataset: Dataset) -> Dataset:
    """Keep `dataset` under `key` and return it with its images mapped from the copy.

    Where the cache cannot be written (read-only, full), the data set itself comes back: a copy is only for speed.
    """
    images_file, note_file = _paths(key)
    note = {
        "name": dataset.name,
        "class_names": dataset.class_names,
        "sha256": dataset.sha256,
        "source": dataset.source,
        "layout": dataset.layout,
        "official": dataset.official,
        "labels": dataset.labels.tobytes().hex(),
    }
    try:
        images_file.parent.mkdir(parents=True, exist_ok=True)
        _write(images_file, lambda file: np.save(file, dataset.images, allow_pickle=False))
        _write(note_file, lambda file: file.write(json.dumps(note).encode()))
        _remove_outdated(images_file.parent, key, dataset.source)
        images = np.load(images_file, mmap_mode="r")
    except (OSError, ValueError):
        return dataset
    return replace(dataset, images=images, images_file=images_file)


def _paths(key: str) -> tuple[Path, Path]:
    folder = cache_folder() / "prepared"
    return folder / f"{key}.npy", folder / f"{key}.json"


def _write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write beside, flush, rename: the name never stands for half a file, whenever the machine stops."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _is_sound(dataset: Dataset) -> bool:
    return (
        dataset.images.shape == (FILES * ROWS, PIXELS)
        and dataset.images.dtype == np.uint8
        and dataset.labels.shape == (FILES * ROWS,)
        and int(dataset.labels.max()) < CLASSES
        and len(dataset.class_names) == CLASSES
        and dataset.official in (True, False, None)
    )


def _remove_outdated(folder: Path, key: str, source: str) -> None:
    """Remove the copies of what `source` was before it changed, 184 MB each, and what killed processes left."""
    for note_file in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if note_file.stem != key and json.loads(note_file.read_text(encoding="utf-8"))["source"] == source:
                note_file.unlink()
                note_file.with_suffix(".npy").unlink()
    for temporary in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - temporary.stat().st_mtime > ABANDONED:
                temporary.unlink()
