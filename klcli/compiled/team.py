"""Team: executes compiled operations in the calling thread, with a helper thread for half of each large one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from klcli.compiled import operations


class Program:
    """The operations of one update, recorded while Python executed them."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []
        self.arrays: list[Any] = []  # must exist as long as the rows, which have only their addresses
        self.each_time: list[Callable[[], None]] = []  # writes numbers, labels or random bits of the update into arrays
        self.result: Any = None


class Team:
    """Executes operations on arrays of one precision, inside a `with` block with the helper if `helper` is true.

    The bits of all results are the same with and without the helper.
    """

    def __init__(self, dtype: np.typing.DTypeLike, *, helper: bool = False) -> None:
        self.dtype = np.dtype(dtype)
        self._box = np.zeros(operations.SIZE, np.int64)
        self._box[[operations.PART, operations.PARTS_DONE]] = operations.PARTS  # no minibatch is offered
        self._room = np.empty(2 * operations.BLOCK, self.dtype)
        addresses = [self._room.ctypes.data, *(one.address for one in operations.functions(self.dtype.name))]
        self._box[operations.ROOM : operations.SMALL_OPERATION + 1] = addresses
        self._program: Program | None = None  # that records
        self._images: tuple[Any, ...] = ()  # the arrays of the offered minibatch, which must exist until it is finished
        self._awake = threading.Event()
        self._helper = threading.Thread(target=self._serve, daemon=True, name="klcli helper") if helper else None

    def __enter__(self) -> "Team":
        if self._helper is not None:
            try:
                self._helper.start()
            except RuntimeError:  # the system gives no more threads: this one computes alone
                return self
            self._box[operations.HELPERS] = 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._box[operations.HELPERS] and self._helper is not None:
            self._box[[operations.STOP, operations.HELPERS]] = 1, 0
            self._awake.set()
            self._helper.join()

    def run(self, kind: int, shape: tuple[int, ...], *arrays: np.ndarray | None) -> None:
        """Execute an operation with the columns `shape` of its row from M on, and record it inside `recording`.

        Raises ValueError for an array that compiled code would read wrongly: not in C order, or of another precision.
        """
        addresses = []
        for array in arrays:
            if array is not None and not array.flags.c_contiguous:
                raise ValueError("compiled operations take arrays in C order")
            if array is not None and array.dtype.kind == "f" and array.dtype != self.dtype:
                raise ValueError(f"these compiled operations take {self.dtype} arrays, not {array.dtype}")
            addresses.append(0 if array is None else array.__array_interface__["data"][0])
        row = np.zeros((1, operations.COLUMNS), np.int64)
        row[0, : 1 + len(shape)] = kind, *shape
        row[0, operations.A : operations.A + len(addresses)] = addresses
        self._execute(row)
        if self._program is not None:
            self._program.rows.append(row)
            self._program.arrays.append(arrays)

    def each_time(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` now, and before each repetition of the program that is being recorded."""
        refresh()
        if self._program is not None:
            self._program.each_time.append(refresh)

    @property
    def is_recording(self) -> bool:
        return self._program is not None

    @contextmanager
    def recording(self) -> Iterator[Program]:
        """Yield a program that records the operations executed inside the block."""
        self._program = program = Program()
        try:
            yield program
        finally:
            self._program = None

    def repeat(self, program: Program) -> None:
        """Refresh the arrays of a program and execute all its operations in one call of compiled code."""
        for refresh in program.each_time:
            refresh()
        if len(program.rows) > 1:
            program.rows = [np.concatenate(program.rows)]
        self._execute(program.rows[0])

    def forward(self, X: np.ndarray, W: np.ndarray) -> np.ndarray:
        """Return the summands of `X @ W`, `(1 or 2, m, n, d)`, for X (m or 1, n, k) and W (m, k, d).

        There are two if the product is divided; `kernels.add_bias` adds them.
        """
        m, k, d = W.shape
        n = X.shape[1]
        cut = _cut(n, W)
        parts = np.empty((1 + (cut < k), m, n, d), self.dtype)
        self.run(operations.FORWARD, (m, n, k, d, cut, n * k if len(X) > 1 else 0), X, None, W, parts)
        return parts

    def backward(self, G: np.ndarray, W: np.ndarray) -> np.ndarray:
        """Return `G @ W.T (m, n, k)` for G (m, n, d) and W (m, k, d)."""
        m, n, d = G.shape
        k = W.shape[1]
        dX = np.empty((m, n, k), self.dtype)
        self.run(operations.BACKWARD, (m, n, k, d, _cut(n, W)), None, G, W, dX)
        return dX

    def step(
        self, kind: int, X: np.ndarray, G: np.ndarray, W: np.ndarray, numbers: np.ndarray, *memory: np.ndarray
    ) -> None:
        """Change W (m, k, d) by its gradient `X.T @ G`, for X (m or 1, n, k) and G (m, n, d).

        `numbers (m, 6)` are those of `kernels.step`, `memory` the moments of this kind, shaped like W.
        """
        m, k, d = W.shape
        n = G.shape[1]
        mean, square = (*memory, None, None)[:2]
        shape = m, n, k, d, _cut(n, W), n * k if len(X) > 1 else 0
        self.run(kind, shape, X, G, W, None, mean, square, numbers)

    def step_of_array(
        self, kind: int, theta: np.ndarray, g: np.ndarray, numbers: np.ndarray, *memory: np.ndarray
    ) -> None:
        """Change theta (m, ...) by its gradient g, of the same shape."""
        mean, square = (*memory, None, None)[:2]
        self.run(operations.STEP_OF_ARRAY, (theta.shape[0], 1, kind, theta[0].size), theta, g, mean, square, numbers)

    def average(self, W: np.ndarray, average: np.ndarray, numbers: np.ndarray) -> None:
        """`average += rate * (W - average)` for W (m, k, d) or a vector (m, 1, d)."""
        m, k, d = W.shape
        cut = k if W.size < operations.BLOCK else k // 2
        self.run(operations.AVERAGE, (m, 0, k, d, cut), None, None, W, None, average, None, numbers)

    def _execute(self, rows: np.ndarray) -> None:
        self._wake()
        operations.execute(self._box, rows)

    def _wake(self) -> None:
        if self._box[operations.ASLEEP]:
            self._awake.set()

    def offer_images(self, *images: Any) -> None:
        """Offer images, as in `operations`, to the helper, which writes them when it is idle."""
        if self._images:
            self.finish_images()
        self._images = images
        self._wake()
        operations.offer_images(self._box, *images)

    def finish_images(self) -> None:
        """Return when the offered minibatch is complete."""
        operations.finish_images(self._box)
        self._images = ()

    def _serve(self) -> None:
        while not self._box[operations.STOP]:
            operations.serve(self._box)
            self._box[operations.ASLEEP] = 1
            self._awake.wait()
            self._awake.clear()
            self._box[operations.ASLEEP] = 0


def _cut(n: int, W: np.ndarray) -> int:
    """Return the row at which an operation of n samples with W (m, k, d) is divided: k if it is too small to be.

    Otherwise, it is the multiple of 16 numbers, a cache line in float32, that is nearest to k / 2.
    """
    m, k, d = W.shape
    return k if m * n * k * d < operations.WORTH_HALVING else max(1, (k // 2 + 8) // 16 * 16)
