"""Memory that two processes share, and how each tells the other where an array lies in it."""

import io
import mmap
import pickle
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

Handle = tuple[Any, ...]  # what `found` needs; marshal can write it


class Memory:
    """The shared bytes."""

    def __init__(self, raw: Any) -> None:
        """Take the RawArray that both processes have."""
        self._bytes = np.frombuffer(raw, np.uint8)
        self._address = int(self._bytes.ctypes.data)

    def array(
        self, offset: int, shape: tuple[int, ...], dtype: np.typing.DTypeLike, strides: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """Return the array that begins there. Raises ValueError or TypeError where it would end behind the memory."""
        return np.ndarray(shape, dtype, self._bytes, offset, strides)

    def handle(self, array: np.ndarray) -> Handle | None:
        """Return what finds this array in the other process; None where it lies in neither memory nor a file."""
        what = array.__array_interface__  # in one look, for a microsecond
        offset = what["data"][0] - self._address
        if 0 <= offset < len(self._bytes):
            return offset, what["shape"], what["typestr"], what["strides"]
        file = array.base
        # All of a file: of a part of it, NumPy does not know where it begins.
        if isinstance(file, np.memmap) and isinstance(file.base, mmap.mmap) and file.shape == array.shape:
            return (str(file.filename), file.offset, array.shape, array.dtype.str) if file.flags.c_contiguous else None
        return None

    def found(self, handle: Handle) -> np.ndarray:
        return _mapped(*handle) if isinstance(handle[0], str) else self.array(*handle)


@lru_cache(maxsize=1)
def _mapped(file: str, offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.asarray(np.memmap(file, dtype, "r", offset, shape))


# Classes of their own: one made in a function is a circle of references, which would keep all that it has met.


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, handle: Callable[[np.ndarray], Handle | None]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._handle = handle

    def persistent_id(self, part: Any) -> Handle | None:
        return self._handle(part) if isinstance(part, np.ndarray) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, found: Callable[[Handle], np.ndarray]) -> None:
        super().__init__(file)
        self._found = found

    def persistent_load(self, pid: Any) -> np.ndarray:
        return self._found(pid)


def pickled(value: object, handle: Callable[[np.ndarray], Handle | None]) -> bytes:
    """Return an object as bytes, with handles where it has arrays."""
    file = io.BytesIO()
    _Pickler(file, handle).dump(value)
    return file.getvalue()


def unpickled(data: bytes, found: Callable[[Handle], np.ndarray]) -> Any:
    """Return the object of `pickled` with its arrays."""
    return _Unpickler(io.BytesIO(data), found).load()
