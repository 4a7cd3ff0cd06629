"""A matrix product for few columns, 8 to 56, with sums that stay in registers.

For a layer of 50 units behind 3072 pixels, it takes 0.8 to 0.9 of OpenBLAS's time, for one of 30 units 0.65. It needs
32 registers of 8 numbers: those of AVX-512, also where they have 256 bits (AVX512VL); other processors use BLAS. Each
sum adds its products one after the other, fused, so its bits depend neither on the processor nor on the width.
"""

import threading
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import binding, ir

LANES, MOST = 8, 7  # numbers of a vector, vectors of a row of the product
WORTH = 1_000_000  # multiplications; for smaller products, the gain is less than the 30 ms that compiling takes
COUNT = ir.IntType(64)
_compiling = threading.Lock()  # a worker of Dask trains in several threads


def address(dtype: np.dtype, multiplications: int, columns: int) -> int:
    """Return the address of a function for `jit.product`, 0 where BLAS is to compute the product."""
    if multiplications < WORTH or not LANES <= columns <= LANES * MOST or not _has_registers():
        return 0
    with _compiling:  # two threads would make two codes, of which the cache keeps one and frees the other
        _, found = _made(dtype.itemsize, -(-columns // LANES))
    return found


@lru_cache
def _has_registers() -> bool:
    with suppress(RuntimeError):  # LLVM does not know the features of every processor
        return bool(binding.get_host_cpu_features().get("avx512vl"))
    return False


@lru_cache
def _made(size: int, vectors: int) -> tuple[Any, int]:
    """Return machine code, which must exist as long as its address is in use, and the address."""
    module = ir.Module()
    function = _product(module, ir.FloatType() if size == 4 else ir.DoubleType(), vectors)
    machine = binding.Target.from_default_triple().create_target_machine(
        binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten(), opt=3, jit=True
    )
    code = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    code.finalize_object()
    return code, code.get_function_address(function.name)


def _product(module: ir.Module, number: ir.Type, vectors: int) -> ir.Function:
    """Write a function of `C (rows, columns) = alpha A B + beta C` with `A[i, k]` at `A + i row + k column`.

    Its arguments: A, row, column, B, numbers per row of B, C, those of C, rows, depth, column of the last vector of a
    row, alpha, beta. The last vector may overlap the one before.
    """
    matrix = number.as_pointer()
    kinds = matrix, COUNT, COUNT, matrix, COUNT, matrix, COUNT, COUNT, COUNT, COUNT, number, number
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "product")
    A, row, column, B, ldb, C, ldc, rows, depth, last, alpha, beta = function.args
    start = function.append_basic_block()
    builder = ir.IRBuilder(start)
    columns = [*(COUNT(LANES * j) for j in range(vectors - 1)), last]
    done: Any = COUNT(0)
    for at_once in (min(5, 24 // vectors), 1):  # the remaining rows one by one
        before, check, body, after = builder.block, *(function.append_basic_block() for _ in range(3))
        builder.branch(check)
        builder.position_at_end(check)
        i = builder.phi(COUNT)
        i.add_incoming(done, before)
        end = builder.add(i, COUNT(at_once))
        builder.cbranch(builder.icmp_signed("<=", end, rows), body, after)
        builder.position_at_end(body)
        of_A = [_at(builder, A, builder.mul(builder.add(i, COUNT(r)), row)) for r in range(at_once)]
        of_C = [_at(builder, C, builder.mul(builder.add(i, COUNT(r)), ldc)) for r in range(at_once)]
        sums = _sums(builder, of_A, column, B, ldb, depth, columns)
        places = [[_at(builder, c, where) for where in columns] for c in of_C]
        _store(builder, sums, places, alpha, beta)
        i.add_incoming(end, builder.block)
        builder.branch(check)
        builder.position_at_end(after)
        done = i
    builder.ret_void()
    return function


def _sums(builder: Any, of_A: list[Any], column: Any, B: Any, ldb: Any, depth: Any, columns: list[Any]) -> list[Any]:
    """Write the loop over the depth; return the sums, a list of vectors for each row."""
    vector = ir.VectorType(B.type.pointee, LANES)
    before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    k, sums = builder.phi(COUNT), [[builder.phi(vector) for _ in columns] for _ in of_A]
    b = _at(builder, B, builder.mul(k, ldb))
    factors = [_load(builder, _at(builder, b, where), vector) for where in columns]
    offset, added = builder.mul(k, column), []
    for a, of_row in zip(of_A, sums, strict=True):
        broadcast = _broadcast(builder, builder.load(_at(builder, a, offset)), vector)
        added.append([_fused(builder, broadcast, factor, total) for factor, total in zip(factors, of_row, strict=True)])
    k_next = builder.add(k, COUNT(1))
    builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, after)
    k.add_incoming(COUNT(0), before)
    k.add_incoming(k_next, loop)
    for of_row, of_added in zip(sums, added, strict=True):
        for total, new in zip(of_row, of_added, strict=True):
            total.add_incoming(ir.Constant(vector, None), before)
            total.add_incoming(new, loop)
    builder.position_at_end(after)
    return added


def _store(builder: Any, sums: list[Any], places: list[Any], alpha: Any, beta: Any) -> None:
    """Write `C = alpha sums + beta C`; with beta 0, C is not read, because it may hold NaN."""
    vector = sums[0][0].type
    factor, keep = _broadcast(builder, alpha, vector), _broadcast(builder, beta, vector)
    with builder.if_else(builder.fcmp_ordered("==", beta, ir.Constant(beta.type, 0.0))) as branches:
        for is_new, branch in zip((True, False), branches, strict=True):
            with branch:
                for of_row, of_C in zip(sums, places, strict=True):
                    # all of a row before the first is stored: the last two vectors may overlap
                    old = [None if is_new else _load(builder, place, vector) for place in of_C]
                    for total, before, place in zip(of_row, old, of_C, strict=True):
                        new = builder.fmul(total, factor)
                        new = new if before is None else _fused(builder, keep, before, new)
                        builder.store(new, builder.bitcast(place, vector.as_pointer()), align=4)


def _at(builder: Any, pointer: Any, offset: Any) -> Any:
    return builder.gep(pointer, [offset])


def _load(builder: Any, place: Any, vector: Any) -> Any:
    return builder.load(builder.bitcast(place, vector.as_pointer()), align=4)


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return `a b + c`, rounded once. llvmlite's own has no vectors."""
    name = f"llvm.fma.v{LANES}f{32 if isinstance(a.type.element, ir.FloatType) else 64}"
    module = builder.module
    function = module.globals.get(name) or ir.Function(module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


def _broadcast(builder: Any, number: Any, vector: Any) -> Any:
    """Return a vector with the number in each lane."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), lanes)
