"""Pictures in two steps: gather plain values from stored records, then draw them.

The user's own matplotlib has no influence on the pictures and is not changed by them: a file or backend that is broken
here cannot stop an import, the drawing uses the defaults of matplotlib, and pyplot is never imported.
"""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
USERS = ("MPLBACKEND", "MATPLOTLIBRC")
# Text as outlines renders the same everywhere; without the salt, the ids in an SVG are random.
OWN: dict[Any, Any] = {"svg.hashsalt": "klcli", "svg.fonttype": "path", "pdf.fonttype": 42}


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Draw with matplotlib's defaults, silently. Not the backend: a Figure without pyplot needs none."""
    import matplotlib as mpl

    with silence(), mpl.rc_context():
        mpl.rcParams.update({key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"} | OWN)
        yield


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Suppress matplotlib's messages inside the block: about its cache folder, or a character without a glyph."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)


def _import_without_the_users_settings() -> None:
    """Import matplotlib, then apply the user's settings, which the code of a Python user expects."""
    users = {name: os.environ.pop(name) for name in USERS if name in os.environ}
    os.environ["MATPLOTLIBRC"] = str(HERE)
    try:
        # A file in the working folder takes precedence over the variable.
        with contextlib.chdir(HERE) if os.path.lexists("matplotlibrc") else contextlib.nullcontext():
            import matplotlib as mpl
    finally:
        del os.environ["MATPLOTLIBRC"]
        os.environ.update(users)
    with contextlib.suppress(Exception):
        if Path(mpl.matplotlib_fname()).is_file():  # not a pipe
            settings = mpl.rc_params()
            # matplotlib's placeholder for no backend is no text. To assign it makes matplotlib import pyplot, in 0.1 s.
            named = {key for key in settings if key != "backend" or isinstance(settings[key], str)}
            mpl.rcParams.update({key: settings[key] for key in named})
    with contextlib.suppress(Exception):
        mpl.rcParams["backend"] = users["MPLBACKEND"]


if "matplotlib" not in sys.modules:
    # A matplotlib that cannot be imported is reported where a picture is drawn.
    with silence(), contextlib.suppress(Exception):
        _import_without_the_users_settings()
