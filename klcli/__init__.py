"""klcli: a laboratory for fully connected networks with batch normalisation."""

import os
import sys

__version__ = "0.1.0"

# One BLAS thread per process, asked for before NumPy loads its library: two threads collapse
# when another process wants a core, and they differ in the last bits from one (README, Performance).
# A number that the user has set stays; `--threads` overrides both.
if "numpy" not in sys.modules:
    for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(_variable, "1")
