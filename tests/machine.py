"""The machine that a command finds in the tests' own process: nothing of the developer's, and nothing paid twice.

A process of klcli computes the SHA-256 of its prepared copy, 0.1 s for 184 MB, builds its options, 0.1 s, and waits for
the disk, 0.1 s: nearly all of a small training. Here the first two are done once, and no test cuts the power.
"""

import functools
import os
import sqlite3
from pathlib import Path

import light
import numpy as np
import pytest
import typer.main

from klcli.data.cifar10 import prepared
from klcli.data.dataset import content_sha256

FOREIGN = ("KLCLI_DATA", "KLCLI_DB", "TORCH_HOME", "KERAS_HOME", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "TERM")
checksums: dict[tuple[int, ...], str] = {}  # by the state of the file
get_command = functools.cache(typer.main.get_command)


def set_machine(patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Set this process, and the environment of those that it starts."""
    for name in FOREIGN:
        patch.delenv(name, raising=False)
    patch.setenv("KLCLI_CACHE", str(cache))
    patch.setattr(prepared, "content_sha256", checksum)
    patch.setattr(typer.main, "get_command", get_command)
    patch.setattr(sqlite3, "connect", light.connect)
    patch.setattr(os, "fsync", light.fsync)


def checksum(labels: np.ndarray, images: np.ndarray) -> str:
    """Return what `content_sha256` returns for a memory map."""
    assert isinstance(images, np.memmap)
    state = Path(str(images.filename)).stat()
    key = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    if key not in checksums:
        checksums[key] = content_sha256(labels, images)
    return checksums[key]
