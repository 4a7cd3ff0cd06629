"""The operations of an update as rows of integers, and their execution by the main thread and a helper thread.

A row holds the kind of an operation, and the addresses and shapes of its arrays, which are in C order: activations
`(m, n, d)` for m replicas, vectors `(m, 1, d)`, weights `(m, k, d)`. A single call executes all rows of an update,
because a call of each operation from Python would cost some microseconds.

An operation with a large W is divided into two halves at a row of W, the cut, which depends on the shapes alone. Each
half of W gives one of two summands of `X @ W`, half of the columns of `G @ W.T`, and half of the rows of a step, so it
stays in the cache of one core. One thread alone computes the same two halves, so the bits do not depend on the helper.

Such an operation is a job of two parts, and the next minibatch one of PARTS. The main thread offers a job, and begins
its parts one after the other, as the helper does; each part is begun once. The first half of an operation is always
the main thread's, which then computes the second one too if the helper has not begun it. The helper polls for work in
compiled code, without Python's global interpreter lock. Between polls it yields its core to other programs; while they
keep it, the helper rests: a thread that waits for a core also takes that of the main thread at times.
"""

from functools import lru_cache

import numpy as np
from numba import carray

from klcli.compiled import kernels
from klcli.compiled.jit import FLUSHING, c_function, call, compiled, count, pointer, product, read, set_mode, write
from klcli.compiled.kernels import AVERAGE, BACKWARD, DESCENT, FORWARD, KEEP, RATE

WORTH_HALVING = 3_000_000  # multiplications, about 60 us: smaller operations are not divided
BLOCK = 262_144  # entries of W that a step changes at a time: with fewer, BLAS reads G too often
PATIENCE = 4_000  # polls without work, about 2 ms, after which the helper sleeps
MISSED = 8  # if more jobs are offered between two polls, another program uses the core of the helper
PARTS = 20  # of a minibatch: one thread waits for the other at most for the time of a part

# Columns of a row: the kind of the operation, its cut or another number (what Dropout drops), the address of a function
# for its product, and from A on the address and three lengths of up to nine arrays: (a, b, c), or of fewer axes
# (1, b, c) or (1, 1, c).
KIND, EXTRA, PRODUCT, A = range(4)
COLUMNS = A + 9 * 4
# Places in the box, through which the threads communicate: two jobs, each with the number of parts that are begun and
# done, and with its row, the C function for a part, and the number of parts; OFFERS counts both. Numbers that both
# threads change are 64 bytes apart, the size of a line of the cache.
OPERATION, MINIBATCH, STOP, ASLEEP, ROOM, OFFERS, SIZE = 0, 24, 48, 56, 64, 72, 80
BEGUN, DONE, ROW, FUNCTION, ALL = 0, 8, 16, 17, 18  # of a job
SMALL_OPERATION, YIELD = ROOM + 1, ROOM + 2  # C functions
_INTEGER, _BYTE, _BITS = (np.zeros(1, kind) for kind in (np.int64, np.uint8, np.uint16))


@compiled
def _array(row, i, like):
    """Return array i of an operation, whose numbers are of the type of the array `like`."""
    at = A + 4 * i
    return carray(pointer(row[at], like), (row[at + 1], row[at + 2], row[at + 3]))


@lru_cache
def functions(dtype):  # noqa: PLR0915
    """Return what both threads call, for arrays of one precision.

    They are C functions, which LLVM optimises once; compiled functions would be optimised anew in each of their
    callers. They must exist as long as their addresses are in use.
    """
    like = np.zeros(1, dtype)
    size = like.itemsize

    @c_function
    def half_of_operation(address, room, half):
        row = carray(pointer(address, _INTEGER), COLUMNS)
        kind, cut, gemm = row[KIND], row[EXTRA], row[PRODUCT]
        X, G, W, out = row[A], row[A + 4], row[A + 8], row[A + 12]
        numbers, mean, square = row[A + 16], row[A + 20], row[A + 24]
        m, k, d, n = row[A + 9], row[A + 10], row[A + 11], max(row[A + 2], row[A + 6])
        first, rows = (0, cut) if half == 0 else (cut, k - cut)
        for r in range(m):
            of_X = 0 if row[A + 1] == 1 else r * n * k  # replicas may share X
            x, g, at = X + (of_X + first) * size, G + r * n * d * size, (r * k + first) * d * size
            if kind == FORWARD:
                Y = out + (half * m + r) * n * d * size
                product(gemm, like, False, False, n, d, rows, 1, x, k, W + at, d, 0, Y, d)
            elif kind == BACKWARD:
                dX = out + (r * n * k + first) * size
                product(gemm, like, False, True, n, rows, d, 1, g, d, W + at, d, 0, dX, k)
            else:
                of = carray(pointer(numbers + r * 6 * size, like), 6)
                if kind == DESCENT and X != 0:
                    product(gemm, like, True, False, rows, d, n, -of[RATE], x, k, g, d, of[KEEP], W + at, d)
                    continue
                at_once = max(1, BLOCK // d)
                for start in range(0, rows, at_once):
                    now, here = min(at_once, rows - start), at + start * d * size
                    dW = G + here  # without X, G is the gradient
                    if X != 0:
                        dW = room + half * BLOCK * size
                        product(gemm, like, True, False, now, d, n, 1, x + start * size, k, g, d, 0, dW, d)
                    kernels.step(
                        kind, carray(pointer(W + here, like), now * d), carray(pointer(dW, like), now * d),
                        carray(pointer(mean + here, like), now * d), carray(pointer(square + here, like), now * d), of,
                    )  # fmt: skip

    @c_function
    def part_of_minibatch(address, _, part):
        row = carray(pointer(address, _INTEGER), COLUMNS)
        X = _array(row, 7, like)[0]
        kernels.write_images(
            _array(row, 0, _BYTE)[0], _array(row, 1, _INTEGER)[0, 0], _array(row, 2, _INTEGER)[0],
            _array(row, 3, _BYTE)[0, 0], row[EXTRA] != 0, _array(row, 4, like)[0, 0], _array(row, 5, like)[0, 0],
            _array(row, 6, like)[0, 0], X, part * len(X) // PARTS, (part + 1) * len(X) // PARTS,
        )  # fmt: skip

    @c_function
    def small_operation(address, _, __):
        row = carray(pointer(address, _INTEGER), COLUMNS)
        kind = row[KIND]
        a, b, c = _array(row, 0, like), _array(row, 1, like), _array(row, 2, like)
        d, e, f = _array(row, 3, like), _array(row, 4, like), _array(row, 5, like)
        g, h, i = _array(row, 6, like), _array(row, 7, like), _array(row, 8, like)
        for r in range(len(a)):  # the first array has an axis of replicas
            if kind == kernels.ADD_BIAS:
                kernels.add_bias(a[r, 0], b[r], b[len(b) - len(a) + r], len(b) > len(a), c[r])
            elif kind == kernels.SUM:
                kernels.sum_over_samples(a[r], b[r, 0])
            elif kind == kernels.NORMALISE:
                kernels.normalise(a[r], b[r, 0], c[r, 0], d[r, 0], e[r, 0], f[r])
            elif kind == kernels.BATCH_NORM:
                kernels.batch_norm(a[r], b[r, 0], c[r, 0], d[0, 0], e[r, 0], f[r, 0], g[r], h[r, 0], i[r])
            elif kind == kernels.BATCH_NORM_BACKWARD:
                kernels.batch_norm_backward(a[r], b[r], c[r, 0], d[r, 0], e[r, 0], f[r, 0], g[r])
            elif kind == kernels.RELU:
                kernels.relu(a[r].ravel(), b[r].ravel(), c[r].ravel())
            elif kind == kernels.SILU:
                kernels.silu(a[r].ravel(), b[0, 0], c[r].ravel(), d[r].ravel())
            elif kind == kernels.SILU_BACKWARD:
                kernels.silu_backward(a[r].ravel(), b[0, 0], c[r].ravel(), d[r].ravel(), e[r].ravel())
            elif kind == kernels.DROPOUT:
                kernels.dropout(a[r], _array(row, 1, _BITS)[0], row[EXTRA], c[r])
            else:
                y, other = _array(row, 1, _INTEGER)[0, 0], _array(row, 2, _INTEGER)[0, 0]
                f[0, 0, r] = kernels.cross_entropy(a[r], y, other, d[0, 0], e[r])

    return half_of_operation, part_of_minibatch, small_operation


@compiled
def execute(box, rows):
    """Execute the operations in `rows (., COLUMNS)` one after the other."""
    mode = set_mode(FLUSHING)
    for i in range(len(rows)):
        address = rows[i].ctypes.data
        if rows[i, KIND] > AVERAGE:
            call(box[SMALL_OPERATION], (address, 0, 0))
            continue
        is_divided = rows[i, EXTRA] < rows[i, A + 10]  # the rows of W
        if is_divided:
            offer(box, OPERATION, address, 1)
        call(box[OPERATION + FUNCTION], (address, box[ROOM], 0))
        if is_divided:
            finish(box, OPERATION)
    set_mode(mode)


@compiled
def offer(box, job, row, begun):
    """Offer the helper a job, of which this thread does the first `begun` parts itself. The job before is finished."""
    box[job + ROW] = row
    write(box, OFFERS, box[OFFERS] + 1)
    write(box, job + DONE, begun)
    write(box, job + BEGUN, begun)


@compiled
def finish(box, job):
    """Execute the parts of a job that are left, and wait for those that the helper has begun."""
    while work(box, job):
        pass
    while read(box, job + DONE) < box[job + ALL]:
        call(box[YIELD], ())


@compiled
def work(box, job):
    """Execute the next part of a job, and return whether there was one."""
    if read(box, job + BEGUN) >= box[job + ALL]:
        return False
    part = count(box, job + BEGUN)
    if part >= box[job + ALL]:  # the other thread was faster
        return False
    call(box[job + FUNCTION], (box[job + ROW], box[ROOM], part))
    count(box, job + DONE)
    return True


@compiled
def serve(box):
    """Compute halves of operations, and parts of minibatches where none is offered, until nothing comes for 2 ms.

    Returns at once, and True, if the other thread has offered more than MISSED jobs between two polls.
    """
    set_mode(FLUSHING)
    looks, offers = 0, read(box, OFFERS)
    while looks < PATIENCE and read(box, STOP) == 0:
        looks += 1
        if work(box, OPERATION) or work(box, MINIBATCH):
            looks = 0
        else:
            call(box[YIELD], ())
        before, offers = offers, read(box, OFFERS)
        if offers - before > MISSED:
            return True
    return False
