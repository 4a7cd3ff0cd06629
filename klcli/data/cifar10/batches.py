"""Parse one batch file of CIFAR-10, in any layout, without executing code that it may contain."""

import io
import pickle
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np

from klcli.data.cifar10 import layouts
from klcli.data.dataset import CLASSES, PIXELS
from klcli.errors import DataError
from klcli.text import one_line

AGAIN = "the file is damaged, download the data set again"
COMPRESSED = 15  # type of an element in a file of Matlab
LARGEST_MATLAB = 64 * 2**20  # bytes, unpacked: twice an official batch file


def parse_batch(layout: layouts.Layout, content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (10000, 3072) and labels (10000,), uint8. Raises DataError, which names the file by `where`."""
    n, is_pickle = layouts.ROWS, layout.name == "python"
    if layout.name == "binary":  # records of one label byte and 3072 pixel bytes: red, green and blue plane
        if len(content) != (expected := n * (1 + PIXELS)):
            raise DataError(f"{where} has {len(content)} bytes where {expected} are expected: {AGAIN}")
        labels, pixels = np.split(np.frombuffer(content, np.uint8).reshape(n, -1), [1], axis=1)
    else:
        batch = _load(content, where, is_pickle=is_pickle)
        if "fine_labels" in batch:
            raise DataError(f"{where} belongs to CIFAR-100: give the folder or archive of CIFAR-10")
        pixels = _checked(batch, "data", np.uint8, (n, PIXELS), where)
        labels = _checked(batch, "labels", np.integer, (n,) if is_pickle else (n, 1), where)
    labels = labels.reshape(n)
    wrong = np.flatnonzero((labels < 0) | (labels >= CLASSES))
    for row in wrong[:1]:
        raise DataError(f"{where}: label {labels[row]} in row {row} is not one of 0 to {CLASSES - 1}: {AGAIN}")
    # A download that stops after its disk space was reserved leaves a file of the right size, full of zeros.
    if (labels == labels[0]).all():
        raise DataError(f"{where}: all {len(labels)} labels are {labels[0]}: {AGAIN}")
    return pixels, labels.astype(np.uint8)


def _load(content: bytes, where: str, *, is_pickle: bool) -> dict[str, Any]:
    """Return the entries of a pickle or of a file in Matlab's formats 5 to 7.

    They are `data` (10000, 3072) uint8, and `labels`, a list of 10 000 integers, in Matlab (10000, 1) uint8.
    """
    try:
        if is_pickle:
            loaded = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        else:
            from scipy.io import loadmat  # slow to import, and only this layout needs it

            file: Any = io.BytesIO(_unpacked_matlab(content))
            loaded = loadmat(file, variable_names=("data", "labels", "fine_labels"))
    except Exception as error:  # a pickle is a program, and a damaged file of either format can raise any exception
        if not is_pickle and isinstance(error, MemoryError):
            raise
        if not is_pickle and isinstance(error, NotImplementedError):
            raise DataError(f"{where} is in Matlab's format 7.3: save it again with `save -v7`") from None
        what = f"is not a readable {'pickle' if is_pickle else 'file of Matlab'} ({one_line(error)})"
        raise DataError(f"{where} {what}: download the data set again") from None
    if not isinstance(loaded, dict):
        raise DataError(f"{where} holds a {type(loaded).__name__} instead of a dictionary: this is not CIFAR-10")
    # Python 2 wrote the official files: its strings arrive as bytes.
    texts = {key.decode("latin1"): value for key, value in loaded.items() if isinstance(key, bytes)}
    return texts | {key: value for key, value in loaded.items() if isinstance(key, str)}


def _unpacked_matlab(content: bytes) -> bytes:
    """Return the same file without compression, so that none of its variables can expand without end.

    Format 5 is a header of 128 bytes and then elements: type, length, and that many bytes. Type 15 is compressed.
    """
    order: Literal["little", "big"] = "little" if content[126:128] == b"IM" else "big"
    if order == "big" and content[126:128] != b"MI":
        raise ValueError("it does not begin as one")
    parts, position, left = [content[:128]], 128, LARGEST_MATLAB
    while position + 8 <= len(content):
        kind, size = (int.from_bytes(content[position + at : position + at + 4], order) for at in (0, 4))
        element = content[position : position + 8 + size]
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            element = unpacker.decompress(element[8:], left)
            if not unpacker.eof:
                raise ValueError("it is incomplete, or larger than a batch file when unpacked")
        left -= len(element)
        if left <= 0:
            raise ValueError("it is larger than a batch file")
        parts.append(element)
        position += 8 + size
    return b"".join(parts)


def _checked(batch: dict[str, object], key: str, kind: type, shape: tuple[int, ...], where: str) -> np.ndarray:
    if key not in batch:
        raise DataError(f"{where} has no entry {key!r}: {AGAIN}")
    try:
        found = np.asarray(batch[key])
    except (ValueError, OverflowError) as error:  # lists of different lengths
        raise DataError(f"{where}: {key!r} is not an array ({error}): {AGAIN}") from None
    if not np.issubdtype(found.dtype, kind) or found.shape != shape:
        wanted = f"where {kind.__name__} of shape {shape} is expected"
        raise DataError(f"{where}: {key!r} is {found.dtype} of shape {found.shape} {wanted}: {AGAIN}")
    return found


def _shallow(build: Callable[[Any], None], unpickler: Any) -> None:
    """Obey an instruction that builds a tuple, unless it nests: hashing deeply nested tuples overflows the C stack."""
    build(unpickler)
    if any(isinstance(part, tuple) for item in unpickler.stack[-1] if isinstance(item, tuple) for part in item):
        raise pickle.UnpicklingError("it nests tuples in tuples in tuples")


class _ArraysOnly(pickle._Unpickler):
    """An unpickler that can construct NumPy arrays and no other objects.

    It derives from the Python implementation, whose memo is a dictionary: the C one allocates memory up to the
    highest memo index, which a single flipped bit can raise to 16 GB. A batch file takes 0.07 s.
    """

    dispatch = pickle._Unpickler.dispatch | {
        opcode[0]: partial(_shallow, pickle._Unpickler.dispatch[opcode[0]])
        for opcode in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
    }

    def find_class(self, module: str, name: str) -> Any:
        return _ALLOWED.get((module, name)) or _refuse(f"{module}.{name}")


def _refuse(what: str) -> Any:
    raise pickle.UnpicklingError(f"it asks for {what}, which could run code: do not trust this copy")


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Decode bytes that Python 3 stores as text in a pickle of protocol 2. Another codec would be an import by name."""
    return text.encode("latin1") if encoding in ("latin1", "latin-1") else _refuse(f"the codec {encoding}")


# NumPy's own functions, whose modules changed between versions.
_RECONSTRUCT, _FROMBUFFER = np.empty(0).__reduce__()[0], np.empty(0).__reduce_ex__(5)[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    **dict.fromkeys(((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")), _RECONSTRUCT),
    **dict.fromkeys(((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")), _FROMBUFFER),
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode_latin1,
}
