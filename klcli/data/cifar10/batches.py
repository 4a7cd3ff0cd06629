"""One batch file of CIFAR-10 of either layout, parsed from its bytes."""

import numpy as np

from klcli.data.cifar10 import layouts
from klcli.data.cifar10.layouts import PYTHON, Layout
from klcli.data.cifar10.pickles import load_pickle
from klcli.data.dataset import CLASSES, PIXELS
from klcli.errors import DataError

AGAIN = "the file is damaged, download the data set again"


def parse_batch(layout: Layout, content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (10000, 3072) uint8 and labels (10000,) uint8. `where` names the file in messages.

    Raises DataError where the content is not exactly that, or of a single class.
    """
    pixels, labels = (_parse_python if layout == PYTHON else _parse_binary)(content, where)
    wrong = np.flatnonzero((labels < 0) | (labels >= CLASSES))
    for row in wrong[:1]:
        raise DataError(f"{where}: label {labels[row]} in row {row} is not one of 0 to {CLASSES - 1}: {AGAIN}")
    # A download that stopped after its space on the disk was reserved leaves zeros: a file of the right size.
    if (labels == labels[0]).all():
        raise DataError(f"{where}: all {len(labels)} labels are {labels[0]}: {AGAIN}")
    return pixels, labels.astype(np.uint8)


def _parse_binary(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Parse 10 000 records of one label byte and 3072 pixel bytes: red, green and blue plane."""
    expected = layouts.ROWS * (1 + PIXELS)
    if len(content) != expected:
        raise DataError(f"{where} has {len(content)} bytes where {expected} are expected: {AGAIN}")
    records = np.frombuffer(content, np.uint8).reshape(layouts.ROWS, 1 + PIXELS)
    return records[:, 1:], records[:, 0]


def _parse_python(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Parse a pickled dictionary: `data`, an array (10000, 3072) uint8, and `labels`, a list of 10 000 integers."""
    batch = load_pickle(content, where)
    if "fine_labels" in batch:
        raise DataError(f"{where} belongs to CIFAR-100: give the folder or archive of CIFAR-10")
    pixels = _checked(batch, "data", np.uint8, (layouts.ROWS, PIXELS), where)
    return pixels, _checked(batch, "labels", np.integer, (layouts.ROWS,), where)


def _checked(batch: dict[str, object], key: str, kind: type, shape: tuple[int, ...], where: str) -> np.ndarray:
    if key not in batch:
        raise DataError(f"{where} has no entry {key!r}: {AGAIN}")
    try:
        found = np.asarray(batch[key])
    except (ValueError, OverflowError) as error:  # lists of different lengths
        raise DataError(f"{where}: {key!r} is no array ({error}): {AGAIN}") from None
    if not np.issubdtype(found.dtype, kind) or found.shape != shape:
        wanted = f"where {kind.__name__} of shape {shape} is expected"
        raise DataError(f"{where}: {key!r} is {found.dtype} of shape {found.shape} {wanted}: {AGAIN}")
    return found
