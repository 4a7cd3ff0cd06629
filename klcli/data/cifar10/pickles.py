"""Reading the pickles of the python layout without running code that they may contain."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from klcli.errors import DataError


def load_pickle(content: bytes, where: str) -> dict[str, Any]:
    """Return the dictionary pickled in `content`, its keys as str. `where` names the file in messages.

    Raises DataError for anything but a dictionary of numbers, strings, lists and NumPy arrays.
    """
    try:
        loaded = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    # A pickle is a program: garbage raises whatever its instructions happen to raise.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{where} is no readable pickle ({reason}): download the data set again") from None
    if not isinstance(loaded, dict):
        raise DataError(f"{where} holds a {type(loaded).__name__} instead of a dictionary: this is no file of CIFAR-10")
    # Python 2 wrote the official files: its strings arrive as bytes.
    texts = {key.decode("latin1"): value for key, value in loaded.items() if isinstance(key, bytes)}
    return texts | {key: value for key, value in loaded.items() if isinstance(key, str)}


def _shallow(build: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap an instruction that builds a tuple: deeply nested ones overflow the C stack where they are hashed."""

    def checked(unpickler: Any) -> None:
        build(unpickler)
        if any(isinstance(part, tuple) for item in unpickler.stack[-1] if isinstance(item, tuple) for part in item):
            raise pickle.UnpicklingError("it nests tuples in tuples in tuples")

    return checked


class _ArraysOnly(pickle._Unpickler):
    """An unpickler that can rebuild NumPy arrays and nothing else.

    It derives from the implementation in Python, whose memo is a dictionary: the one in C allocates memory up to the
    highest memo index, which a single flipped bit can raise to 16 GB. A batch file takes 0.07 s.
    """

    dispatch = pickle._Unpickler.dispatch | {
        opcode[0]: _shallow(pickle._Unpickler.dispatch[opcode[0]])
        for opcode in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
    }

    def find_class(self, module: str, name: str) -> Any:
        return _ALLOWED.get((module, name)) or _refuse(f"{module}.{name}")


def _refuse(what: str) -> Any:
    raise pickle.UnpicklingError(f"it asks for {what}, which could run code: do not trust this copy")


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Return what Python 3 stores as text in a pickle of protocol 2. Another codec would be an import by name."""
    return text.encode("latin1") if encoding in ("latin1", "latin-1") else _refuse(f"the codec {encoding}")


# NumPy's own function, taken from an array: its module has moved between versions.
_RECONSTRUCT = np.empty(0).__reduce__()[0]

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode_latin1,
}
