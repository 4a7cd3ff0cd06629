"""Team: executes compiled operations in the calling thread, with a helper thread for half of each large one."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from klcli.compiled import Engine, kernels, layers, loading, operations, optimizers
from klcli.compiled.jit import DGEMM, SGEMM, YIELD
from klcli.compiled.narrow import address
from klcli.engine.network import Network

REST = 0.01, 1.0  # seconds that the helper sleeps after missed jobs: at first, and at most


@dataclass
class Program:
    """The operations of one update, recorded while Python executed them."""

    rows: list[np.ndarray] = field(default_factory=list)
    arrays: list[Any] = field(default_factory=list)  # must exist as long as the rows, which have only their addresses
    each_time: list[Callable[[], None]] = field(default_factory=list)  # write what changes per update into arrays
    places: Any = None  # where the rows have the address of X; no other number of theirs is as large
    result: Any = None


class Team(Engine):
    """Executes operations on arrays of one precision, inside a `with` block with the helper if `helper` is true.

    The bits of all results are the same with and without the helper.
    """

    compute, evaluate, cross_entropy = layers.compute, layers.evaluate, layers.cross_entropy
    update, average = optimizers.update, optimizers.average

    def __init__(self, dtype: np.typing.DTypeLike, *, helper: bool = False) -> None:
        self.dtype = np.dtype(dtype)
        with loading:
            half, part, small = (one.address for one in operations.functions(self.dtype.name))
        self._room = np.empty(2 * operations.BLOCK, self.dtype)
        self._box = np.zeros(operations.SIZE, np.int64)
        self._box[operations.ROOM : operations.YIELD + 1] = self._room.ctypes.data, small, YIELD
        for job, function, parts in (operations.OPERATION, half, 2), (operations.MINIBATCH, part, operations.PARTS):
            self._box[job + operations.FUNCTION] = function
            self._box[[job + operations.BEGUN, job + operations.DONE, job + operations.ALL]] = parts  # none is offered
        self.recorded: Program | None = None  # of the operations that are being executed
        self._offered: tuple[Any, ...] = ()
        self._awake = threading.Event()
        self._helper = threading.Thread(target=self._serve, daemon=True, name="klcli helper") if helper else None

    def __enter__(self) -> "Team":
        if self._helper is not None:
            try:
                self._helper.start()
                self.has_helper = True
            except RuntimeError:  # the system gives no more threads: this one computes alone
                self._helper = None
        return self

    def __exit__(self, *error: object) -> None:
        if self._helper is not None:
            self._box[operations.STOP] = 1
            self._awake.set()
            self._helper.join()

    def accelerated(self, network: Network) -> Network:
        """Return the network, computed by this team. It shares the arrays; those that are not in C order are copied."""
        return replace(network.converted(lambda name, array: np.ascontiguousarray(array)), engine=self)

    def row(self, kind: int, *arrays: np.ndarray | None, extra: int = 0, product: int = 0) -> np.ndarray:
        """Return the row (1, COLUMNS) of an operation; the arrays must exist as long as it is in use.

        Raises ValueError for an array that compiled code would read wrongly: not in C order, or of another precision.
        """
        numbers = [kind, extra, product or (SGEMM if self.dtype.itemsize == 4 else DGEMM)]
        for array in arrays:
            if array is None:
                numbers += 0, 0, 0, 0
                continue
            if not array.flags.c_contiguous:
                raise ValueError("compiled operations take arrays in C order")
            if array.dtype.kind == "f" and array.dtype != self.dtype:
                raise ValueError(f"these compiled operations take {self.dtype} arrays, not {array.dtype}")
            b, c = (1, 1, *array.shape)[-2:]
            numbers += array.__array_interface__["data"][0], array.size // (b * c), b, c
        row = np.zeros((1, operations.COLUMNS), np.int64)
        row[0, : len(numbers)] = numbers
        return row

    def run(self, kind: int, *arrays: Any, extra: int = 0, product: int = 0) -> np.ndarray:
        """Execute an operation, record it where a program is being recorded, and return the last of its arrays."""
        row = self.row(kind, *arrays, extra=extra, product=product)
        self._execute(row)
        if self.recorded is not None:
            self.recorded.rows.append(row)
            self.recorded.arrays.append(arrays)
        return arrays[-1]

    def each_time(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` now, and before each repetition of the program that is being recorded."""
        refresh()
        if self.recorded is not None:
            self.recorded.each_time.append(refresh)

    def repeated(self, compute: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
        """Return a function that computes `compute(X)`, and repeats it without Python.

        The first call with an X of its shape is recorded, but not the first of all, which initialises the running
        averages. Later calls execute the recorded operations on their X and the arrays of that call, and overwrite its
        result. `compute` must therefore execute the same operations on the same arrays but X in every call; whatever
        changes is written into these arrays, if necessary by a function given to `each_time`.
        """
        programs: dict[tuple[int, ...], Program] = {}

        def repeat(X: np.ndarray) -> Any:
            if not programs:
                programs[()] = Program()
                return compute(X)
            data = X.__array_interface__["data"][0]
            program = programs.get(X.shape)
            if program is None:
                self.recorded = program = Program()
                try:
                    program.result = compute(X)
                finally:
                    self.recorded = None
                rows = np.concatenate(program.rows)
                program.rows, program.places = [rows], np.flatnonzero(rows == data)
                programs[X.shape] = program
                return program.result
            for refresh in program.each_time:
                refresh()
            program.rows[0].put(program.places, data)
            self._execute(program.rows[0])
            return program.result

        return repeat

    def forward(self, X: np.ndarray, W: np.ndarray) -> np.ndarray:
        """Return the summands of `X @ W`, `(1 or 2, ..., n, d)`, for X (..., n, k) or (n, k) and W (..., k, d).

        There are two if the product is divided; `kernels.add_bias` adds them.
        """
        n, (k, d) = X.shape[-2], W.shape[-2:]
        cut = _cut(n, W)
        parts = np.empty((1 + (cut < k), *W.shape[:-2], n, d), self.dtype)
        return self.run(kernels.FORWARD, X, None, W, parts, extra=cut, product=address(self.dtype, n * k * d, d))

    def backward(self, G: np.ndarray, W: np.ndarray) -> np.ndarray:
        """Return `G @ W.T (..., n, k)` for G (..., n, d) and W (..., k, d)."""
        dX = np.empty((*G.shape[:-1], W.shape[-2]), self.dtype)
        return self.run(kernels.BACKWARD, None, G, W, dX, extra=_cut(G.shape[-2], W))

    def step(
        self, kind: int, X: np.ndarray | None, G: np.ndarray | None, W: np.ndarray, numbers: np.ndarray,
        *memory: np.ndarray,
    ) -> None:  # fmt: skip
        """Change W (m, k, d) by its gradient `X.T @ G`, for X (..., n, k) and G (m, n, d), or by G if X is None.

        `numbers (m, 6)` are those of `kernels.step`, `memory` the moments of this kind, shaped like W.
        """
        k, d = W.shape[-2:]
        cut, product = k if W.size < operations.BLOCK else k // 2, 0
        if X is not None:
            cut, product = _cut(X.shape[-2], W), address(self.dtype, X.shape[-2] * k * d, d, of_step=True)
        self.run(kind, X, G, W, None, numbers, *memory, extra=cut, product=product)

    def _execute(self, rows: np.ndarray) -> None:
        if self._box[operations.ASLEEP]:
            self._awake.set()
        operations.execute(self._box, rows)

    def offer(self, minibatch: np.ndarray, *arrays: Any) -> None:
        """Offer the row of a minibatch, and whatever has its arrays, to the helper, which writes it when it is idle."""
        self.finish()
        self._offered = minibatch, arrays  # must exist until the minibatch is finished
        if self._box[operations.ASLEEP]:
            self._awake.set()
        operations.offer(self._box, operations.MINIBATCH, minibatch.ctypes.data, 0)

    def finish(self) -> None:
        """Return when the offered minibatch, if there is one, is complete."""
        operations.finish(self._box, operations.MINIBATCH)

    def _serve(self) -> None:
        rest = 0.0
        while not self._box[operations.STOP]:
            begun = time.monotonic()
            if operations.serve(self._box):  # a rest doubles if it comes soon after the one before
                rest = min(2 * rest, REST[1]) if time.monotonic() < begun + 2 * rest else REST[0]
                self._awake.wait(rest)
            else:
                self._box[operations.ASLEEP] = 1
                self._awake.wait()
            self._awake.clear()
            self._box[operations.ASLEEP] = 0


def _cut(n: int, W: np.ndarray) -> int:
    """Return the row at which an operation of n samples with W (..., k, d) is divided: k if it is too small to be.

    Otherwise, it is the multiple of 16 numbers, a cache line in float32, that is nearest to k / 2.
    """
    k = W.shape[-2]
    return k if n * W.size < operations.WORTH_HALVING else max(1, (k // 2 + 8) // 16 * 16)


def check() -> None:
    """Compare operations with NumPy before the first training of a process, which also compiles most of them.

    Raises ArithmeticError if a product, a step or an image is wrong, as with a BLAS whose integers differ in size.
    """
    rng = np.random.default_rng(0)
    n, k, d = 64, 320, 50  # enough for a product of narrow.py, of the usual width
    X, G, W = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, n, k), (1, n, d), (1, k, d)))
    step, numbers, image = W.copy(), np.array([[0.5, 0.9, 0, 0, 0, 0]], np.float32), np.empty((1, 3072), np.float32)
    pixels, zeros, half = np.arange(3072).astype(np.uint8), np.zeros((1, 3), np.int64), np.full(1, 0.5, np.float32)
    scale = np.full(3072, 7, np.float32), np.full(3072, 0.5, np.float32)
    with Team(np.float32, helper=True) as team:
        team.step(kernels.DESCENT, X, G, step, numbers)
        found = team.forward(X, W)[0], team.backward(G, W), step, image
        team.offer(team.row(0, pixels[None], zeros[:, 0], zeros, pixels, *scale, half, image))
        team.finish()
    expected = X @ W, G @ W.mT, np.float32(0.9) * W - np.float32(0.5) * (X.mT @ G), (pixels[None] - scale[0]) / 4
    if not all(np.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True)):
        raise ArithmeticError("the products of NumPy's BLAS in compiled code are wrong")
