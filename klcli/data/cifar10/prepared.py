"""Prepared copies: checked images, cached as one file that later processes map into memory."""

import contextlib
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from klcli.data.cifar10 import layouts
from klcli.data.cifar10.places import cache_folder
from klcli.data.dataset import CLASSES, PIXELS, Dataset
from klcli.files import remove_leftovers, replacing
from klcli.settings.split_config import FILES

FORMAT = 2  # part of the key of files: a copy in an older format is never read
NOTED = ("name", "class_names", "sha256", "source", "layout", "official")  # beside the labels


def key_of_files(files: list[Path]) -> str:
    """Return a key from the resolved path, size and modification time of each. Raises OSError if one is missing."""
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(f"klcli {FORMAT} {states}".encode()).hexdigest()


def load(key: str) -> Dataset | None:
    """Return the prepared copy `key` with its images mapped read-only; None if it is missing or damaged."""
    images_file, note_file = _paths(key)
    try:
        note = json.loads(note_file.read_text(encoding="utf-8"))
        labels = np.frombuffer(bytes.fromhex(note["labels"]), np.uint8)
        named = {name: note[name] for name in NOTED} | {"class_names": tuple(note["class_names"])}
        dataset = Dataset(images=np.load(images_file, mmap_mode="r"), labels=labels, images_file=images_file, **named)
    # Whatever the damage, the copy can be made again from the source.
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    n = FILES * layouts.ROWS
    has_form = (dataset.images.shape, dataset.images.dtype.name, labels.shape) == ((n, PIXELS), "uint8", (n,))
    has_classes = len(dataset.class_names) == CLASSES and dataset.official in (True, False, None)
    return dataset if has_form and has_classes and int(labels.max()) < CLASSES else None


def save(key: str, dataset: Dataset) -> Dataset:
    """Store `dataset` under `key` and return it with its images mapped from the copy.

    If the cache cannot be written (read-only, full), return the data set itself: the copy only saves time.
    """
    images_file, note_file = _paths(key)
    note = {name: getattr(dataset, name) for name in NOTED} | {"labels": dataset.labels.tobytes().hex()}
    try:
        with replacing(images_file) as file:
            np.save(file, dataset.images, allow_pickle=False)
        with replacing(note_file) as file:
            file.write(json.dumps(note).encode())
        for other in set(note_file.parent.glob("*.json")) - {note_file}:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                # Remove the copy from before the source changed, 184 MB.
                if json.loads(other.read_text(encoding="utf-8"))["source"] == dataset.source:
                    other.unlink()
                    other.with_suffix(".npy").unlink()
        remove_leftovers(note_file.parent)
        images = np.load(images_file, mmap_mode="r")
    except (OSError, ValueError):
        return dataset
    return replace(dataset, images=images, images_file=images_file)


def _paths(key: str) -> tuple[Path, Path]:
    folder = cache_folder() / "prepared"
    return folder / f"{key}.npy", folder / f"{key}.json"
