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
    for name in [one for one in sys.modules if one.startswith("matplotlib.")]:
        del sys.modules[name]  # they stay behind a failed import, without a parent
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        with contextlib.chdir(Path(__file__).parent):  # its matplotlibrc takes precedence over all others
            import matplotlib  # noqa: F401
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


if "matplotlib" not in sys.modules:
    # A matplotlib that cannot be imported is reported where a picture is drawn.
    with silence(), contextlib.suppress(Exception):
        try:
            import matplotlib  # noqa: F401
        except Exception:  # for example a backend that is not installed, or a file that is no text
            _import_without_the_users_settings()
