"""One batch file of CIFAR-10, of either layout, from its bytes: 10 000 images with their labels."""

from collections.abc import Sequence

import numpy as np

from klcli.data.dataset import CLASSES, PIXELS
from klcli.data.layouts import PYTHON, ROWS, Layout
from klcli.data.pickles import load_pickle
from klcli.errors import DataError

AGAIN = "the file is damaged, download the data set again"


def parse_batch(layout: Layout, content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (10000, 3072) uint8 and labels (10000,) uint8 of one batch file. `where` names it in messages.

    Raises DataError where the content is not exactly that, or of a single class.
    """
    if is_web_page(content):
        raise DataError(f"{where} is a web page, not a batch of CIFAR-10: download the data set again")
    pixels, labels = (_parse_python if layout.name == PYTHON.name else _parse_binary)(content, where)
    wrong = np.flatnonzero((labels < 0) | (labels >= CLASSES))
    if len(wrong):
        raise DataError(
            f"{where}: label {labels[wrong[0]]} in row {wrong[0]} is not one of 0 to {CLASSES - 1}: {AGAIN}"
        )
    # A download that stopped after its place on the disk was reserved leaves zeros, which are bytes of the right size.
    if len(labels) > 1 and (labels == labels[0]).all():
        raise DataError(f"{where}: all {len(labels)} labels are {labels[0]}: {AGAIN}")
    return pixels, labels.astype(np.uint8)


def parse_class_names(layout: Layout, content: bytes, where: str) -> tuple[str, ...]:
    """The ten class names of a `batches.meta` (a pickle) or `batches.meta.txt` (one name per line)."""
    try:
        if layout.name == PYTHON.name:
            listed = load_pickle(content, where).get("label_names", ())
            names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in listed)
        else:
            names = tuple(line.strip() for line in content.decode().splitlines() if line.strip())
    except (UnicodeDecodeError, TypeError):
        names = ()
    if len(names) != CLASSES:
        raise DataError(f"{where} does not name {CLASSES} classes: {AGAIN}, or delete this one file")
    return names


def _parse_binary(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """10 000 records of one label byte and 3072 pixel bytes: red, green and blue plane."""
    expected = ROWS * (1 + PIXELS)
    if len(content) != expected:
        raise DataError(f"{where} has {len(content)} bytes where {expected} are expected: {AGAIN}")
    records = np.frombuffer(content, np.uint8).reshape(ROWS, 1 + PIXELS)
    return records[:, 1:], records[:, 0]


def _parse_python(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """A pickled dictionary: `data`, an array (10000, 3072) uint8, and `labels`, a list of 10 000 integers."""
    least = ROWS * PIXELS
    if len(content) < least:
        raise DataError(f"{where} has {len(content)} bytes where at least {least} are expected: {AGAIN}")
    batch = load_pickle(content, where)
    if "fine_labels" in batch:
        raise DataError(f"{where} belongs to CIFAR-100: give the folder or archive of CIFAR-10")
    for key in ("data", "labels"):
        if key not in batch:
            raise DataError(f"{where} has no entry {key!r}: {AGAIN}")
    return _checked_pixels(batch["data"], where), _checked_labels(batch["labels"], where)


def _checked_pixels(pixels: object, where: str) -> np.ndarray:
    if not isinstance(pixels, np.ndarray):
        raise DataError(f"{where}: the pixels are a {type(pixels).__name__} instead of an array: {AGAIN}")
    if pixels.dtype != np.uint8 or pixels.shape != (ROWS, PIXELS):
        raise DataError(
            f"{where}: the pixels are {pixels.dtype} of shape {pixels.shape} where uint8 of shape {(ROWS, PIXELS)} "
            f"is expected: {AGAIN}"
        )
    return pixels


def _checked_labels(labels: object, where: str) -> np.ndarray:
    """Labels as (10000,) integers of any size, so that a label of 300 is still one when it is named."""
    if not isinstance(labels, Sequence | np.ndarray) or len(labels) != ROWS:
        found = len(labels) if isinstance(labels, Sequence | np.ndarray) else type(labels).__name__
        raise DataError(f"{where}: {found} labels where {ROWS} are expected: {AGAIN}")
    for row, label in enumerate(labels):
        if not isinstance(label, int | np.integer) or abs(int(label)) > np.iinfo(np.int32).max:
            raise DataError(f"{where}: label {str(label)[:40]!r} in row {row} is no small integer: {AGAIN}")
    return np.array([int(label) for label in labels], np.int64)


def is_web_page(content: bytes) -> bool:
    """Whether these first bytes are HTML: what a proxy or an error page leaves under the name of a download."""
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml"))
