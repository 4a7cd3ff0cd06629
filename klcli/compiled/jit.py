"""Decorators of compiled code, and the C functions that it calls: NumPy's matrix product, and to yield the core."""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import binding

from klcli.compiled.blas import address_of_gemm

# No fastmath: every operation is rounded as it is written. With it, the bits would depend on the vector width of the
# processor, and on the process: LLVM optimises a function differently when it is compiled and when it is loaded.
_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy"}
compiled: Callable[[Any], Any] = numba.njit(nogil=True, **_OPTIONS)


c_function: Callable[[Any], Any] = numba.cfunc(  # of three integers, with an integer result
    numba.types.int64(*[numba.types.int64] * 3), nopython=True, **_OPTIONS
)
_int, _flag, _address = numba.types.int64, numba.types.int32, numba.types.intp


def _external(name: str, address: int, signature: Any) -> Any:
    """Return a C function for compiled code. Cached machine code has its name: the address changes per process."""
    binding.add_symbol(name, address)
    return numba.types.ExternalFunction(name, signature)


def _gemm(letter: str, number: Any) -> Any:
    address, bits = address_of_gemm(letter)
    n = _int if bits == 64 else _flag
    matrix = (_address, n)
    signature = numba.types.void(_flag, _flag, _flag, n, n, n, number, *matrix, *matrix, number, *matrix)
    return _external(f"klcli_{letter}gemm{bits}", address, signature)


# gemm(order, transpose A, transpose B, rows, columns, depth, alpha, A, lda, B, ldb, beta, C, ldc): CBLAS
INTEGER_BITS = address_of_gemm("s")[1]
sgemm, dgemm = _gemm("s", numba.types.float32), _gemm("d", numba.types.float64)

_process: Any = vars(ctypes)["windll"].kernel32 if sys.platform == "win32" else ctypes.CDLL(None)
_name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
yield_core = _external("klcli_yield", ctypes.cast(_process[_name], ctypes.c_void_p).value or 0, _flag())
