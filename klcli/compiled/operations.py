"""The operations of an update as rows of integers, and their execution by the main thread and a helper thread.

A row holds the kind of an operation, and the addresses and shapes of its arrays, which are in C order: activations
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
from klcli.compiled.jit import c_function, call, claim, compiled, pointer, product, read, write, yield_core
from klcli.compiled.kernels import AVERAGE, BACKWARD, DESCENT, FORWARD, KEEP, RATE

WORTH_HALVING = 3_000_000  # multiplications, about 60 us: smaller operations are not divided
BLOCK = 262_144  # entries of W that a step changes at a time: with fewer, BLAS reads G too often
PATIENCE = 4_000  # polls without work, about 2 ms, after which the helper sleeps
PARTS = 20  # of a minibatch: one thread waits for the other at most for the time of a part

# Columns of a row: the kind of the operation, its cut or another number (the kind of a step, or what Dropout drops),
# the address of a function for its product (0: BLAS), and from A on the address and three lengths of up to nine arrays:
# (a, b, c), or of fewer axes (1, b, c) or (1, 1, c).
KIND, EXTRA, PRODUCT, A = range(4)
COLUMNS = A + 9 * 4
# Places in the box, through which the threads communicate. Numbers that both change are 64 bytes apart, the size of a
# line of the cache.
NUMBER, CLAIMED, DONE, STOP, ASLEEP, HELPERS, PART, PARTS_DONE, ROW, IMAGES = (8 * i for i in range(10))
ROOM, HALF_OF_OPERATION, PART_OF_MINIBATCH, SMALL_OPERATION = (ROW + i for i in range(1, 5))  # constants
SIZE = IMAGES + 16


@compiled
def _array(row, i, like):
    """Return array i of an operation, whose numbers are of the type `like`."""
    at = A + 4 * i
    return carray(pointer(row[at], like), (row[at + 1], row[at + 2], row[at + 3]))


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
        kind, cut, narrow = row[KIND], row[EXTRA], row[PRODUCT]
        X, G, W, out = row[A], row[A + 4], row[A + 8], row[A + 12]
        mean, square, numbers = row[A + 16], row[A + 20], row[A + 24]
        m, k, d, n = row[A + 9], row[A + 10], row[A + 11], max(row[A + 2], row[A + 6])
        first, rows = (0, cut) if half == 0 else (cut, k - cut)
        for r in range(m if rows else 0):
            of_X = 0 if row[A + 1] == 1 else r * n * k  # replicas may share X
            x, g, at = X + (of_X + first) * size, G + r * n * d * size, (r * k + first) * d * size
            if kind == FORWARD:
                Y = out + (half * m + r) * n * d * size
                product(narrow, size, False, False, n, d, rows, 1, x, k, W + at, d, 0, Y, d)
            elif kind == BACKWARD:
                dX = out + (r * n * k + first) * size
                product(0, size, False, True, n, rows, d, 1, g, d, W + at, d, 0, dX, k)
            else:
                of = carray(pointer(numbers + r * 6 * size, like), 6)
                if kind == DESCENT:
                    product(narrow, size, True, False, rows, d, n, -of[RATE], x, k, g, d, of[KEEP], W + at, d)
                    continue
                at_once = max(1, BLOCK // d)
                dW = room + half * BLOCK * size
                for start in range(0, rows, at_once):
                    now, here = min(at_once, rows - start), at + start * d * size
                    if kind != AVERAGE:
                        product(narrow, size, True, False, now, d, n, 1, x + start * size, k, g, d, 0, dW, d)
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
        at = carray(pointer(address + IMAGES * 8, np.int64), 11)
        n, count_of_all, by_image = at[0], at[1], at[2] != 0
        kernels.write_images(
            carray(pointer(at[3], np.uint8), (count_of_all, 3072)), carray(pointer(at[4], np.int64), n),
            carray(pointer(at[5], np.int64), (n, 3)), carray(pointer(at[6], np.uint8), 3072), by_image,
            carray(pointer(at[7], like), 3072), carray(pointer(at[8], like), 3072), carray(pointer(at[10], like), n),
            carray(pointer(at[9], like), (n, 3072)), part * n // PARTS, (part + 1) * n // PARTS,
        )  # fmt: skip
        done = read(box, PARTS_DONE)
        while not claim(box, PARTS_DONE, done, done + 1):
            done = read(box, PARTS_DONE)
        return 1

    @c_function
    def small_operation(address, _, __):
        row = carray(pointer(address, np.int64), COLUMNS)
        kind = row[KIND]
        a, b, c = _array(row, 0, like), _array(row, 1, like), _array(row, 2, like)
        d, e, f = _array(row, 3, like), _array(row, 4, like), _array(row, 5, like)
        g, h, i = _array(row, 6, like), _array(row, 7, like), _array(row, 8, like)
        if kind == kernels.ADD_BIAS:
            kernels.add_bias(a, b, c)
        elif kind == kernels.SUM:
            kernels.sum_over_samples(a, b)
        elif kind == kernels.BATCH_NORM:
            kernels.batch_norm(a, b, c, d.ravel(), e, f, g, h, i)
        elif kind == kernels.BATCH_NORM_BACKWARD:
            kernels.batch_norm_backward(a, b, c, d, e, f, g)
        elif kind == kernels.RELU:
            kernels.relu(a.ravel(), b.ravel())
        elif kind == kernels.RELU_BACKWARD:
            kernels.relu_backward(a.ravel(), b.ravel(), c.ravel())
        elif kind == kernels.SILU:
            kernels.silu(a.ravel(), b.ravel(), c.ravel(), d.ravel())
        elif kind == kernels.SILU_BACKWARD:
            kernels.silu_backward(a.ravel(), b.ravel(), c.ravel(), d.ravel(), e.ravel())
        elif kind == kernels.DROPOUT:
            kernels.dropout(a, _array(row, 1, np.uint16)[0], row[EXTRA], c)
        elif kind == kernels.LOSS:
            y, other = _array(row, 1, np.int64).ravel(), _array(row, 2, np.int64).ravel()
            kernels.cross_entropy(a, y, other, d.ravel(), e, f.ravel())
        else:
            m = e.shape[1]
            for r in range(m):
                begin, end = r * (a.size // m), (r + 1) * (a.size // m)
                mean, square = c.ravel()[begin:end], d.ravel()[begin:end]  # empty if this kind has none
                kernels.step(row[EXTRA], a.ravel()[begin:end], b.ravel()[begin:end], mean, square, e[0, r])
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
        is_shared = box[HELPERS] != 0 and rows[i, EXTRA] < rows[i, A + 10]  # the rows of W
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
def offer_images(box, images, rows, moves, factors, background, by_image, mean, inverse_std, X):
    """Offer the helper to write X (n, 3072) as `kernels.write_images` does, in parts. The X before must be finished."""
    box[IMAGES], box[IMAGES + 1], box[IMAGES + 2] = len(X), len(images), by_image
    box[IMAGES + 3], box[IMAGES + 4], box[IMAGES + 5] = images.ctypes.data, rows.ctypes.data, moves.ctypes.data
    box[IMAGES + 6], box[IMAGES + 7] = background.ctypes.data, mean.ctypes.data
    box[IMAGES + 8], box[IMAGES + 9], box[IMAGES + 10] = inverse_std.ctypes.data, X.ctypes.data, factors.ctypes.data
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
