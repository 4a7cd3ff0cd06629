"""The BLAS that NumPy uses: its library, and the address of its matrix product."""

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

# Names of the product in the builds of OpenBLAS that NumPy is linked with, in the order of the search, and the bits of
# the integers that it takes.
NAMES = {"scipy_cblas_{}gemm64_": 64, "cblas_{}gemm64_": 64, "scipy_cblas_{}gemm": 32, "cblas_{}gemm": 32}


def numpys_blas() -> list[dict[str, Any]]:
    """Return what threadpoolctl reports about NumPy's BLAS. SciPy may load a BLAS of its own, which is left out."""
    blas = [pool for pool in threadpoolctl.threadpool_info() if pool.get("user_api") == "blas"]
    site = Path(np.__file__).resolve().parents[1]
    own = [pool for pool in blas if str(Path(pool["filepath"]).resolve()).startswith(f"{site}{os.sep}numpy")]
    return own or blas


def address_of_gemm(letter: str) -> tuple[int, int]:
    """Return the address of `cblas_sgemm` (letter s) or `cblas_dgemm` (d), and the bits of its integers.

    Raises LookupError if the library has none of the known names.
    """
    for pool in numpys_blas():
        library = ctypes.CDLL(pool["filepath"])
        for name, bits in NAMES.items():
            function = getattr(library, name.format(letter), None)
            if function is not None:
                return ctypes.cast(function, ctypes.c_void_p).value or 0, bits
    raise LookupError("NumPy's BLAS gives its matrix product no known name")
