"""What compiled code is made with: decorators, and what numba lacks: numbers that two threads share, arrays and
functions at addresses, and a cache whose damage stops nothing.
"""

import ctypes
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.ccallback import CFunc
from numba.core.cgutils import alloca_once_value, get_or_insert_function, unpack_tuple
from numba.extending import intrinsic

from klcli.compiled import code_folder
from klcli.compiled.blas import address_of_gemm

# No fastmath: every operation is rounded as it is written. With it, the bits would depend on the vector width of the
# processor, and on the process: LLVM optimises a function differently when it is compiled and when it is loaded.
_OPTIONS: dict[str, Any] = {"nopython": True, "error_model": "numpy"}

FOLDER = code_folder()
_Named: Any = CompileResultCacheImpl._locator_classes[0]  # of CACHE_DIR; its name depends on the version of numba


class _Folder(_Named):
    """The folder of klcli's machine code, even if it cannot be written: numba's own is then beside the sources."""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_Folder":
        return cls(py_func, py_file)

    def get_cache_path(self) -> str:
        return str(FOLDER / self.get_suitable_cache_subpath(self._py_file))


class _Cache(FunctionCache):
    """numba's cache of one function. What it cannot read is compiled; what it cannot write, the next process compiles.

    numba itself would raise an exception, perhaps in the middle of a training.
    """

    _impl_class = type("_Files", (CompileResultCacheImpl,), {"_locator_classes": [_Folder]})

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            return super().load_overload(signature, target)
        except Exception:  # a damaged file can raise almost any
            with suppress(OSError):
                self.flush()  # otherwise it would be read again before the next one is written
            return None

    def save_overload(self, signature: Any, made: Any) -> None:
        with suppress(OSError):
            super().save_overload(signature, made)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is called, for the types of its arguments."""
    made: Any = numba.jit(nogil=True, **_OPTIONS)(function)
    made._cache = _Cache(function)
    return made


def c_function(function: Callable[..., Any]) -> Any:
    """Compile a function of three integers, without a result, that has an address."""
    made: Any = CFunc(function, ((types.int64,) * 3, types.void), {}, _OPTIONS)
    made._cache = _Cache(function)
    made.compile()
    return made


_process: Any = vars(ctypes)["windll"].kernel32 if sys.platform == "win32" else ctypes.CDLL(None)
_name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
# Addresses of C functions change per process, so cached machine code is given them.
YIELD = ctypes.cast(_process[_name], ctypes.c_void_p).value or 0  # yields the core to another thread
# gemm(order, transpose A, transpose B, rows, columns, depth, alpha, A, lda, B, ldb, beta, C, ldc): CBLAS
(SGEMM, BITS), (DGEMM, _) = map(address_of_gemm, "sd")  # their addresses, and the bits of their integers
_size = np.int64 if BITS == 64 else np.int32
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
FLUSHING = np.int32(0x1F80 | 0x8040)  # rounding to nearest, no exceptions; flush results and operands


@compiled
def product(gemm, like, A_transposed, B_transposed, rows, columns, depth, alpha, A, lda, B, ldb, beta, C, ldc):
    """`C (rows, columns) = alpha A B + beta C`, for numbers of the type of the array `like`.

    The function at the address `gemm` computes it: that of NumPy's BLAS, or for a plain B one of narrow.py.
    """
    # CBLAS's words: the arrays are in rows (101), each factor plain (111) or transposed (112).
    order, of_A, of_B = np.int32(101), np.int32(111 + A_transposed), np.int32(111 + B_transposed)
    n, k, m, a, b, c = _size(rows), _size(columns), _size(depth), _size(lda), _size(ldb), _size(ldc)
    number = like.dtype.type
    call(gemm, (order, of_A, of_B, n, k, m, number(alpha), A, a, B, b, number(beta), C, c))


INTEGER = ir.IntType(64)


def _element(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return a pointer to `box[index]`; box and index are the first two arguments."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.gep(data, [arguments[1]], source_etype=INTEGER)


@intrinsic
def read(typing: Any, box: Any, index: Any) -> Any:
    """Return `box[index]` (acquire): what the other thread wrote to memory before this value is visible afterwards."""
    return types.int64(box, types.intp), lambda *at: at[1].load_atomic(_element(*at), "acquire", 8, typ=INTEGER)


@intrinsic
def write(typing: Any, box: Any, index: Any, value: Any) -> Any:
    """`box[index] = value` (release): a thread that reads it sees everything that this thread wrote before."""

    def build(*where: Any) -> Any:
        where[1].store_atomic(where[3][2], _element(*where), "release", 8)
        return where[0].get_dummy_value()

    return types.void(box, types.intp, types.int64), build


@intrinsic
def count(typing: Any, box: Any, index: Any) -> Any:
    """`box[index] += 1` (acquire, release); return the value before. No two threads get the same one."""
    return types.int64(box, types.intp), lambda *at: at[1].atomic_rmw("add", _element(*at), INTEGER(1), "acq_rel")


@intrinsic
def pointer(typing: Any, address: Any, like: Any) -> Any:
    """Return an address as a pointer to numbers of the element type of the array `like`."""
    place = types.CPointer(like.dtype)
    return place(types.intp, like), lambda *at: at[1].inttoptr(at[3][0], at[0].get_value_type(place))


def write_prefetch(builder: Any, place: Any) -> None:
    """Begin to read the 64 bytes around a pointer into the cache."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    function = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    # To be read (0), in all caches (3), of data (1).
    builder.call(function, [builder.bitcast(place, byte), word(0), word(3), word(1)])


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Begin to read the 64 bytes around an address into the cache."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        write_prefetch(builder, builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp), build


@intrinsic
def set_mode(typing: Any, mode: Any) -> Any:
    """Set the control register of SSE in this thread, and return the one before.

    FLUSHING is the usual mode, but takes numbers below the normal range, 1.2e-38 in float32, for 0: the moments of a
    unit that is never active fall below it, and an Intel processor takes a hundred times as long for such a number.
    Other processors than x86 are left as they are.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        new, before = (alloca_once_value(builder, arguments[0]) for _ in range(2))
        byte = ir.IntType(8).as_pointer()
        for name, place in {"st": before, "ld": new}.items() if IS_X86 else ():
            kind = ir.FunctionType(ir.VoidType(), [byte])
            function = get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}mxcsr")
            builder.call(function, [builder.bitcast(place, byte)])
        return builder.load(before)

    return types.int32(types.int32), build


@intrinsic
def call(typing: Any, function: Any, numbers: Any) -> Any:
    """Call the C function at an address with a tuple of numbers."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = unpack_tuple(builder, arguments[1], numbers.count)
        kind = ir.FunctionType(ir.VoidType(), [one.type for one in given])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), given)
        return context.get_dummy_value()

    return types.void(types.int64, numbers), build
