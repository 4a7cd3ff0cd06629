"""A matrix product for few columns, 8 to 96 in float32 and to 48 in float64, with sums that stay in registers.

For a layer of 50 units behind 3072 pixels, it takes 0.7 of OpenBLAS's time, for one of 30 units half of it. It needs
the 32 registers of AVX-512, of 16 numbers in float32 and 8 in float64; other processors use BLAS. A row of 50 columns
fills three of them, and its last two numbers share one with those of seven more rows. Each sum adds its products one
after the other, fused, so its bits depend neither on the processor nor on the width.
"""

from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba.core.cgutils import for_range_slice

from klcli.compiled import loading
from klcli.compiled.jit import BITS, write_prefetch

MOST = 6  # vectors of a row of the product; with more, the registers hold the sums of three rows only
WORTH = 1_000_000  # multiplications; for smaller products, the gain is less than the 30 ms that compiling takes
AHEAD = 4  # samples by which a step fetches X into the cache in advance
COUNT, FLAG, SIZE = ir.IntType(64), ir.IntType(32), ir.IntType(BITS)  # the last two are those of CBLAS
# The sums in one register: those of some rows of C, from a column on, and how many of each row.
Tile = tuple[range, int, int]


def address(dtype: np.dtype, multiplications: int, columns: int, *, of_step: bool = False) -> int:
    """Return the address of a function for `jit.product`, with A transposed if `of_step`; 0 where BLAS computes it."""
    lanes = 16 if dtype.itemsize == 4 and columns >= 16 else 8  # numbers of a vector
    if multiplications < WORTH or not lanes <= columns <= MOST * lanes or not _has_registers():
        return 0
    with loading:  # two threads would make two codes, of which the cache keeps one and frees the other
        _, found = _made(dtype.itemsize, columns, lanes, of_step)
    return found


@lru_cache
def _has_registers() -> bool:
    with suppress(RuntimeError):  # LLVM does not know the features of every processor
        return bool(binding.get_host_cpu_features().get("avx512vl"))
    return False


@cache  # unbounded: recorded programs keep the addresses
def _made(size: int, columns: int, lanes: int, of_step: bool) -> tuple[Any, int]:
    """Return machine code, which must exist as long as its address is in use, and the address."""
    module = ir.Module()
    vector = ir.VectorType(ir.FloatType() if size == 4 else ir.DoubleType(), lanes)
    function = _product(module, vector, columns, of_step)
    machine = binding.Target.from_default_triple().create_target_machine(
        binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten(), opt=3, jit=True
    )
    code = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    code.finalize_object()
    return code, code.get_function_address(function.name)


def _tiles(columns: int, lanes: int) -> list[Tile]:
    """Return the tiles of as many rows as fit into the registers. The last numbers of several rows share a tile."""
    full, rest = divmod(columns, lanes)
    widths = [0, *(width for width in (2, 4, 8) if full * lanes // width < 25), lanes]
    width = next(width for width in widths if width >= rest)
    group = lanes // width if width else 1  # rows that share a tile
    fit = 25 * group // (full * group + (width > 0))  # rows whose sums leave 7 of 32 registers for the factors
    at_once = min(fit, 10 if group == 1 else 8) // group * group
    tiles = [(range(r, r + 1), lanes * j, lanes) for r in range(at_once) for j in range(full)]
    return tiles + [(range(r, r + group), columns - width, width) for r in range(0, at_once, group) if width]


def _product(module: ir.Module, vector: ir.VectorType, columns: int, of_step: bool) -> ir.Function:
    """Write a function with the arguments of CBLAS, of which it ignores the first three, and the columns.

    It computes several rows of C at a time; those that are missing at the end are the last one again, which is then
    stored several times.
    """
    number = vector.element
    matrix = number.as_pointer()
    kinds = *[FLAG] * 3, *[SIZE] * 3, number, matrix, SIZE, matrix, SIZE, number, matrix, SIZE
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "product")
    _, _, _, *sizes, alpha, A, lda, B, ldb, beta, C, ldc = function.args
    tiles = _tiles(columns, vector.count)
    builder = ir.IRBuilder(function.append_basic_block())
    rows, _, depth, lda, ldb, ldc = (builder.sext(one, COUNT) for one in (*sizes, lda, ldb, ldc))
    row, column = (COUNT(1), lda) if of_step else (lda, COUNT(1))  # steps in A
    last, at_once = builder.sub(rows, COUNT(1)), tiles[-1][0].stop
    with for_range_slice(builder, COUNT(0), rows, COUNT(at_once)) as (i, _):
        places = [builder.add(i, COUNT(r)) for r in range(at_once)]
        places = [builder.select(builder.icmp_signed("<", place, last), place, last) for place in places]
        of_A, of_C = ([builder.gep(M, [builder.mul(place, ld)]) for place in places] for M, ld in ((A, row), (C, ldc)))
        sums = _sums(builder, tiles, of_A, column, B, ldb, depth, vector, of_step)
        _store(builder, tiles, sums, of_C, alpha, beta)
    builder.ret_void()
    return function


def _sums(
    builder: Any, tiles: list[Tile], of_A: list[Any], column: Any, B: Any, ldb: Any, depth: Any, vector: Any,
    of_step: bool,
) -> list[Any]:  # fmt: skip
    """Write the loop over the depth; return the sums of each tile."""
    number, lanes = vector.element, vector.count
    before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(COUNT)
    sums = [builder.phi(vector) for _ in tiles]
    b, offset = builder.gep(B, [builder.mul(k, ldb)]), builder.mul(k, column)
    numbers = [builder.load(builder.gep(a, [offset])) for a in of_A]
    if of_step:  # the processor itself does not fetch rows that are 12 kB from each other
        write_prefetch(builder, builder.gep(of_A[-1], [builder.add(offset, builder.mul(COUNT(AHEAD), column))]))
    k_next = builder.add(k, COUNT(1))
    k.add_incoming(COUNT(0), before)
    k.add_incoming(k_next, loop)
    factors, added = {}, []
    for (of_tile, first, width), total in zip(tiles, sums, strict=True):  # in this order, 32 registers suffice
        if first not in factors:
            found = builder.load(_at(builder, b, first, ir.VectorType(number, width)), align=4)
            factors[first] = _chosen(builder, found, found, [*range(width)] * len(of_tile))
        of_rows = _broadcast(builder, numbers[of_tile[0]], vector)
        for r in of_tile[1:]:  # the lanes from here on are those of row r and of the rows after it
            of_both = [lane + (lane >= (r - of_tile[0]) * width) * lanes for lane in range(lanes)]
            of_rows = _chosen(builder, of_rows, _broadcast(builder, numbers[r], vector), of_both)
        added.append(_fused(builder, of_rows, factors[first], total))
        total.add_incoming(ir.Constant(vector, None), before)
        total.add_incoming(added[-1], loop)
    builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, after)
    builder.position_at_end(after)
    return added


def _store(builder: Any, tiles: list[Tile], sums: list[Any], of_C: list[Any], alpha: Any, beta: Any) -> None:
    """Write `C = alpha sums + beta C`, without the old C where beta is 0, because it may hold NaN."""
    is_new = builder.fcmp_ordered("==", beta, ir.Constant(beta.type, 0.0))
    parts = []
    for (of_tile, first, width), of_rows in zip(tiles, sums, strict=True):
        for index, r in enumerate(of_tile):
            total = _chosen(builder, of_rows, of_rows, [index * width + lane for lane in range(width)])
            parts.append((total, _at(builder, of_C[r], first, total.type)))
    # All is read before the first is stored: the last two tiles of a row may overlap, and rows may be the same.
    old = [builder.load(place, align=4) for _, place in parts]
    for (total, place), before in zip(parts, old, strict=True):
        kept = builder.select(is_new, ir.Constant(total.type, [-0.0] * total.type.count), before)  # x + 0 (-0) is x
        new = builder.fmul(total, _broadcast(builder, alpha, total.type))
        new = _fused(builder, _broadcast(builder, beta, total.type), kept, new)
        builder.store(new, place, align=4)


def _at(builder: Any, pointer: Any, column: int, vector: Any) -> Any:
    return builder.bitcast(builder.gep(pointer, [COUNT(column)]), vector.as_pointer())


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return `a b + c`, rounded once. llvmlite's own has no vectors."""
    name = f"llvm.fma.v{a.type.count}f{32 if isinstance(a.type.element, ir.FloatType) else 64}"
    module = builder.module
    function = module.globals.get(name) or ir.Function(module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


def _broadcast(builder: Any, number: Any, vector: Any) -> Any:
    """Return a vector with the number in each lane."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.IntType(32)(0))
    return _chosen(builder, first, first, [0] * vector.count)


def _chosen(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """Return a vector of these lanes of two vectors, those of b counted from the length of a."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))
