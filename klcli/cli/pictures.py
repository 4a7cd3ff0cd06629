"""Pictures that come with a result: one that cannot be made is a warning, because the result is already there."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from klcli.cli.invocation import Invocation
from klcli.errors import KlcliError
from klcli.procedures.signals import Interrupted
from klcli.text import one_line

if TYPE_CHECKING:
    from klcli.report.plots.chart import Chart


def write_beside(
    invocation: Invocation, write: Callable[[str, bytes], Path], name: str, chart: Callable[[], "Chart"]
) -> Path | None:
    """Draw a chart, write it under this name and return its path; whatever fails is one warning, and None."""
    try:
        from klcli.report.plots import figure

        return write(name, figure.draw(chart()))
    except Interrupted:
        raise
    except Exception as error:  # a broken matplotlib can raise anything
        invocation.warn(f"no picture: {reason(error)}")
        return None


def place(picture: Path | None) -> tuple[str, ...]:
    """Return the line that names a picture, none if there is no picture."""
    return () if picture is None else (f"picture     {picture}",)


def reason(error: Exception) -> str:
    """Return the cause of a failure on one line."""
    return str(error) if isinstance(error, KlcliError) else f"{type(error).__name__}: {one_line(error)}"
