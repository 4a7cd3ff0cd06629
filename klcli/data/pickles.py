"""Reading the pickles of CIFAR-10's python layout without running code that somebody put into them."""

import io
import pickle
import pickletools
from typing import Any

import numpy as np

from klcli.errors import DataError

TUPLES = 20_000  # a copy written by Python 3 builds one per image; tuples in tuples in tuples overflow the stack


def load_pickle(content: bytes, where: str) -> dict[str, Any]:
    """The dictionary pickled in `content`, its keys as str. `where` names the file in messages.

    Raises DataError for anything but a dictionary of numbers, strings, lists and NumPy arrays.
    """
    try:
        _refuse_greed(content)
        loaded = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except _RefusedError as refused:
        raise DataError(
            f"{where} is a pickle that asks for {refused}, which CIFAR-10 never does and which could run code: "
            "do not trust this copy, download the data set again"
        ) from None
    # A pickle is a program: garbage raises whatever its instructions happen to raise.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{where} is no readable pickle ({reason}): download the data set again") from None
    if not isinstance(loaded, dict):
        raise DataError(f"{where} holds a {type(loaded).__name__} instead of a dictionary: this is no file of CIFAR-10")
    # Python 2 wrote the official files: its strings arrive as bytes.
    return {_text(key): value for key, value in loaded.items() if isinstance(key, str | bytes)}


def _refuse_greed(content: bytes) -> None:
    """Raise ValueError for instructions that would crash the unpickler itself, before one of them is followed."""
    tuples = 0
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        # Memory is taken up to the highest number that something is remembered by; writers count from 0.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument) <= count:
            raise ValueError(f"it remembers {argument} things after {count} instructions")
        tuples += opcode.name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
        if tuples > TUPLES:
            raise ValueError(f"it builds more than {TUPLES} tuples")


class _RefusedError(Exception):
    """The name of a global outside the allow-list."""


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows how to rebuild NumPy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            raise _RefusedError(f"{module}.{name}")
        return found


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 spells bytes in a pickle of protocol 2. Any other codec would be an import by name."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"the codec {encoding}")
    return text.encode("latin1")


def _reconstruct() -> Any:
    """NumPy's own rebuilding function, taken from an array: the module it lives in has moved between versions."""
    return np.empty(0).__reduce__()[0]


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct(),
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct(),
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode_latin1,
}


def _text(key: str | bytes) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else key
