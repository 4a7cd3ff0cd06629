"""What the database is asked for a selection: conditions and order."""

from klcli.settings.selection import Selection
from klcli.store.runs import Order, RunFilter


def conditions(selection: Selection) -> RunFilter:
    """Return which runs are selected, apart from the images."""
    return RunFilter(
        state=selection.state if selection.is_list else "complete",
        batch_norm=selection.bn,
        since=selection.started_since,
        tag=selection.tagged,
        where=selection.where,
    )


def order_of(selection: Selection) -> Order | None:
    """Return the order of --sort."""
    return None if selection.order is None else Order(*selection.order)
