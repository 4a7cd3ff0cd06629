"""Streams: stdout and stderr whose writes never fail, so that a closed pipe or a full disk ends no training."""

import errno
import io
import os
import sys
import time

TYPE_CHECKING = False  # see klcli/__init__.py
if TYPE_CHECKING:
    from typing import Any

FULL_SECONDS = 0.01  # between two attempts: Windows can wait for sockets alone


class _Lossy(io.RawIOBase):
    """A raw stream for writing; `loss` is the first failure of the stream behind it."""

    def __init__(self, raw: "Any") -> None:
        self._raw = raw
        self.loss: OSError | None = None

    def write(self, data: "Any") -> int:
        rest = memoryview(data)
        try:
            while rest:
                if (written := self._raw.write(rest)) is None:  # a pipe that does not block, and is full
                    time.sleep(FULL_SECONDS)
                rest = rest[written or 0 :]
        except OSError as error:
            self.loss = self.loss or (OSError(error.errno, "it is closed") if error.errno == errno.EBADF else error)
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        return bool(self._raw.isatty())


_protected: list[_Lossy] = []  # stdout, stderr


def protect() -> None:
    """Replace stdout and stderr of this process; what cannot be written to them is lost, and `loss` says why."""
    # Otherwise the next file to be opened, perhaps the database, would take the number of a stream that is closed.
    while (descriptor := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = sys.__stdout__ = _never_failing(sys.stdout, 1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _never_failing(sys.stderr, 2)  # type: ignore[misc]


def loss() -> OSError | None:
    """Return why a part of stdout could not be written, None if all of it was."""
    sys.stdout.flush()
    return _protected[0].loss if _protected else None


def _never_failing(stream: "Any", number: int) -> io.TextIOWrapper:
    if stream is None:
        stream = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8", line_buffering=number == 2)
    look = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
    encoding, buffer = stream.encoding, stream.detach()
    raw = _Lossy(buffer.detach() if isinstance(buffer, io.BufferedWriter) else buffer)
    _protected.append(raw)
    target: Any = raw if look["write_through"] else io.BufferedWriter(raw)
    # A name may contain characters that the terminal cannot show.
    return io.TextIOWrapper(target, encoding, "backslashreplace", **look)
