"""`klcli report --html`."""

from pathlib import Path

from klcli.cli.report_selection import Selection
from klcli.cli.session import Session


def write(session: Session, db: Path, selection: Selection, path: Path, data: str | None) -> None:
    """Write the page."""
    raise NotImplementedError
