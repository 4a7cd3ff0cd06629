"""The operations of an update as rows of integers, and their execution by the main thread and a helper thread.

A row holds the kind of an operation, its shapes, and the addresses of its arrays, which are in C order: activations
`(m, n, d)` for m replicas, vectors `(m, 1, d)`, weights `(m, k, d)`. A single call executes all rows of an update,
because a call of each operation from Python would cost some microseconds.

An operation with a large W is divided into two halves at a row of W, the cut, which depends on the shapes alone. Each
half of W gives one of two summands of `X @ W`, half of the columns of `G @ W.T`, and half of the rows of a step, so it
stays in the cache of one core. One thread alone computes the same two halves, so the bits do not depend on the helper.

The main thread offers the second half, computes the first one, and then computes the second one too if the helper has
not begun it. The helper polls for work in compiled code, without Python's global interpreter lock. Between halves, it
writes parts of the next minibatch.
"""

from functools import lru_cache

import numpy as np
from numba import carray

from klcli.compiled import kernels
from klcli.compiled.intrinsics import call, claim, count, pointer, read, write
from klcli.compiled.jit import INTEGER_BITS, c_function, compiled, dgemm, sgemm, yield_core
from klcli.compiled.kernels import AVERAGE, DESCENT, KEEP, RATE

WORTH_HALVING = 3_000_000  # multiplications, about 60 us: smaller operations are not divided
BLOCK = 262_144  # entries of W that a step changes at a time: with fewer, BLAS reads G too often
PATIENCE = 4_000  # polls without work, about 2 ms, after which the helper sleeps
PARTS = 20  # of a minibatch: one thread waits for the other at most for the time of a part

# Kinds of operations: first those that may be divided, which are these two and the steps 2 to 5 of kernels.py.
FORWARD, BACKWARD = range(2)
ADD_BIAS, SUM, BATCH_NORM, BATCH_NORM_BACKWARD, RELU, RELU_BACKWARD, DROPOUT, LOSS, STEP_OF_ARRAY = range(6, 15)
# Columns of a row: kind, shapes, cut, numbers from one replica of X to the next (0 if they share X), and from A on the
# addresses of up to nine arrays. Operations without W have another number in K, as run by layers.py and team.py.
KIND, M, N, K, D, CUT, STRIDE, A = range(8)
COLUMNS = A + 9
# Places in the box, through which the threads communicate. Numbers that both change are 64 bytes apart, the size of a
# line of the cache.
NUMBER, CLAIMED, DONE, STOP, ASLEEP, HELPERS, PART, PARTS_DONE, ROW, IMAGES = (8 * i for i in range(10))
ROOM, HALF_OF_OPERATION, PART_OF_MINIBATCH, SMALL_OPERATION = (ROW + i for i in range(1, 5))  # constants
SIZE = IMAGES + 16
_n = np.int64 if INTEGER_BITS == 64 else np.int32
PLAIN, TRANSPOSED, IN_ROWS = np.int32(111), np.int32(112), np.int32(101)  # CBLAS's words


@compiled
def _product(size, A_transposed, B_transposed, rows, columns, depth, alpha, A, lda, B, ldb, beta, C, ldc):
    """`C (rows, columns) = alpha A B + beta C` by NumPy's BLAS, for numbers of 4 or 8 bytes."""
    n, k, m = _n(rows), _n(columns), _n(depth)
    a, b, c = _n(lda), _n(ldb), _n(ldc)
    if size == 4:
        one, other = np.float32(alpha), np.float32(beta)
        sgemm(IN_ROWS, A_transposed, B_transposed, n, k, m, one, A, a, B, b, other, C, c)
    else:
        one_, other_ = np.float64(alpha), np.float64(beta)
        dgemm(IN_ROWS, A_transposed, B_transposed, n, k, m, one_, A, a, B, b, other_, C, c)


@lru_cache
def functions(dtype):  # noqa: PLR0915
    """Return what both threads call, for arrays of one precision.

    They are C functions, which LLVM optimises once; compiled functions would be optimised anew in each of their
    callers. They must exist as long as their addresses are in use.
    """
    size, like = np.dtype(dtype).itemsize, np.zeros(1, dtype)

    @c_function
    def half_of_operation(address, room, half):
        row = carray(pointer(address, np.int64), COLUMNS)
        kind, m, n, k, d, cut = row[KIND], row[M], row[N], row[K], row[D], row[CUT]
        X, G, W, out, mean, square, numbers = (
            row[A],
            row[A + 1],
            row[A + 2],
            row[A + 3],
            row[A + 4],
            row[A + 5],
            row[A + 6],
        )
        first, rows = (0, cut) if half == 0 else (cut, k - cut)
        for r in range(m if rows else 0):
            x, g, at = X + (r * row[STRIDE] + first) * size, G + r * n * d * size, (r * k + first) * d * size
            if kind == FORWARD:
                _product(size, PLAIN, PLAIN, n, d, rows, 1, x, k, W + at, d, 0, out + (half * m + r) * n * d * size, d)
            elif kind == BACKWARD:
                _product(
                    size, PLAIN, TRANSPOSED, n, rows, d, 1, g, d, W + at, d, 0, out + (r * n * k + first) * size, k
                )
            else:
                of = carray(pointer(numbers + r * 6 * size, like), 6)
                if kind == DESCENT:
                    _product(size, TRANSPOSED, PLAIN, rows, d, n, -of[RATE], x, k, g, d, of[KEEP], W + at, d)
                    continue
                at_once = max(1, BLOCK // d)
                dW = room + half * BLOCK * size
                for start in range(0, rows, at_once):
                    now, here = min(at_once, rows - start), at + start * d * size
                    if kind != AVERAGE:
                        _product(size, TRANSPOSED, PLAIN, now, d, n, 1, x + start * size, k, g, d, 0, dW, d)
                    kernels.step(
                        kind, carray(pointer(W + here, like), now * d), carray(pointer(dW, like), now * d),
                        carray(pointer(mean + here, like), now * d), carray(pointer(square + here, like), now * d), of,
                    )  # fmt: skip
        return 0

    @c_function
    def part_of_minibatch(address, _, __):
        box = carray(pointer(address, np.int64), SIZE)
        part = read(box, PART)
        if part >= PARTS or not claim(box, PART, part, part + 1):
            return 0
        at = carray(pointer(address + IMAGES * 8, np.int64), 10)
        n, count_of_all, by_image = at[0], at[1], at[2] != 0
        kernels.write_images(
            carray(pointer(at[3], np.uint8), (count_of_all, 3072)), carray(pointer(at[4], np.int64), n),
            carray(pointer(at[5], np.int64), (n, 3)), carray(pointer(at[6], np.uint8), 3072), by_image,
            carray(pointer(at[7], like), 3072), carray(pointer(at[8], like), 3072),
            carray(pointer(at[9], like), (n, 3072)), part * n // PARTS, (part + 1) * n // PARTS,
        )  # fmt: skip
        count(box, PARTS_DONE)
        return 1

    @c_function
    def small_operation(address, _, __):
        row = carray(pointer(address, np.int64), COLUMNS)
        kind, m, n, d = row[KIND], row[M], row[N], row[D]
        of_samples, of_features, size_of_all = (m, n, d), (m, 1, d), m * n * d
        a, b, c = pointer(row[A], like), pointer(row[A + 1], like), pointer(row[A + 2], like)
        e, f, g = pointer(row[A + 3], like), pointer(row[A + 4], like), pointer(row[A + 5], like)
        h, i, j = pointer(row[A + 6], like), pointer(row[A + 7], like), pointer(row[A + 8], like)
        if kind == ADD_BIAS:
            kernels.add_bias(carray(a, (row[K], m, n, d)), carray(b, of_features), carray(c, of_samples))
        elif kind == SUM:
            kernels.sum_over_samples(carray(a, of_samples), carray(b, of_features))
        elif kind == BATCH_NORM:
            kernels.batch_norm(
                carray(a, of_samples), carray(b, of_features), carray(c, of_features), carray(e, 2),
                carray(f, of_features), carray(g, of_features), carray(h, of_samples), carray(i, of_features),
                carray(j, of_samples),
            )  # fmt: skip
        elif kind == BATCH_NORM_BACKWARD:
            kernels.batch_norm_backward(
                carray(a, of_samples), carray(b, of_samples), carray(c, of_features), carray(e, of_features),
                carray(f, of_features), carray(g, of_features), carray(h, of_samples),
            )  # fmt: skip
        elif kind == RELU:
            kernels.relu(carray(a, size_of_all), carray(b, size_of_all))
        elif kind == RELU_BACKWARD:
            kernels.relu_backward(carray(a, size_of_all), carray(b, size_of_all), carray(c, size_of_all))
        elif kind == DROPOUT:
            bits = carray(pointer(row[A + 1], np.uint16), (n, d))
            kernels.dropout(carray(a, of_samples), bits, row[K], carray(c, of_samples))
        elif kind == LOSS:
            y, other = carray(pointer(row[A + 1], np.int64), n), carray(pointer(row[A + 2], np.int64), n)
            kernels.cross_entropy(carray(a, of_samples), y, other, carray(e, 2), carray(f, of_samples), carray(g, m))
        else:
            numbers = carray(f, (m, 6))
            for r in range(m):
                theta, gradient, mean, square = (
                    carray(a, (m, d)),
                    carray(b, (m, d)),
                    carray(c, (m, d)),
                    carray(e, (m, d)),
                )
                kernels.step(row[K], theta[r], gradient[r], mean[r], square[r], numbers[r])
        return 0

    return half_of_operation, part_of_minibatch, small_operation


@compiled
def execute(box, rows):
    """Execute the operations in `rows (., COLUMNS)` one after the other."""
    for i in range(len(rows)):
        address = rows[i].ctypes.data
        if rows[i, KIND] > AVERAGE:
            call(box[SMALL_OPERATION], address, 0, 0)
            continue
        is_shared = box[HELPERS] != 0 and rows[i, CUT] < rows[i, K]
        number = box[NUMBER] + 1
        if is_shared:
            box[ROW] = address
            write(box, NUMBER, number)
        for half in range(2):
            if half == 0 or not is_shared or claim(box, CLAIMED, number - 1, number):
                call(box[HALF_OF_OPERATION], address, box[ROOM], half)
            else:
                while read(box, DONE) != number:
                    yield_core()


@compiled
def offer_images(box, images, rows, moves, background, by_image, mean, inverse_std, X):
    """Offer the helper to write X (n, 3072) as `kernels.write_images` does, in parts. The X before must be finished."""
    box[IMAGES], box[IMAGES + 1], box[IMAGES + 2] = len(X), len(images), by_image
    box[IMAGES + 3], box[IMAGES + 4], box[IMAGES + 5] = images.ctypes.data, rows.ctypes.data, moves.ctypes.data
    box[IMAGES + 6], box[IMAGES + 7] = background.ctypes.data, mean.ctypes.data
    box[IMAGES + 8], box[IMAGES + 9] = inverse_std.ctypes.data, X.ctypes.data
    write(box, PARTS_DONE, 0)
    write(box, PART, 0)


@compiled
def finish_images(box):
    """Write the parts of the offered minibatch that are left, and wait for those that the helper has begun."""
    while call(box[PART_OF_MINIBATCH], box.ctypes.data, 0, 0) != 0:
        pass
    while read(box, PARTS_DONE) < PARTS:
        yield_core()


@compiled
def serve(box):
    """Compute second halves, and parts of minibatches where nothing else is offered, until nothing comes for 2 ms."""
    looks = 0
    while looks < PATIENCE and read(box, STOP) == 0:
        looks += 1
        number = read(box, NUMBER)
        if number != read(box, CLAIMED):
            if claim(box, CLAIMED, number - 1, number):
                call(box[HALF_OF_OPERATION], box[ROW], box[ROOM], 1)
                write(box, DONE, number)
                looks = 0
        elif call(box[PART_OF_MINIBATCH], box.ctypes.data, 0, 0) != 0:
            looks = 0
        else:
            yield_core()
