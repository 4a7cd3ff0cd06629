"""klcli: a laboratory for fully connected networks with batch normalisation.

`from klcli import Lab, TrainConfig` is the interface for Python, described in klcli/lab.py.
"""

import os
import sys

TYPE_CHECKING = False  # the command obeys signals as soon as this module is imported: `typing` is slow
if TYPE_CHECKING:
    from klcli.lab import Lab as Lab
    from klcli.settings.split_config import SplitConfig as SplitConfig
    from klcli.settings.train_config import TrainConfig as TrainConfig

__version__ = "0.4.2"

# One BLAS thread per process, set before NumPy loads the library: two threads slow down severely
# when another process needs a core, and they differ from one in the last bits (`klcli help performance`).
# A number set by the user stays; `--threads` overrides both.
if "numpy" not in sys.modules:
    for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(_variable, "1")

_EXPORTS = {"Lab": "lab", "TrainConfig": "settings.train_config", "SplitConfig": "settings.split_config"}


def __getattr__(name: str) -> object:
    """Import an export on its first access: `klcli --version` needs none of them."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'klcli' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"klcli.{_EXPORTS[name]}"), name)
