"""What a stored range test suggests, in words."""

from collections.abc import Sequence

from klcli.report.tables.table import Row
from klcli.report.words import split_of
from klcli.studies.range_test import Suggestion, suggest


def suggestion_of(run: Row, epochs: Sequence[Row]) -> Suggestion | None:
    """Return what the evaluations of a range test suggest."""
    images = split_of(run).sizes()[1]
    etas = [epoch["learning_rate"] for epoch in epochs]
    return suggest(etas, [epoch["validation_accuracy"] for epoch in epochs], images)


def suggestion_sentence(run: Row, epochs: Sequence[Row]) -> str:
    """Say which limits a range test suggests, as options, and by which rule."""
    found = suggestion_of(run, epochs)
    if found is None:
        between = f"between {run['eta_min']:g} and {run['eta_max']:g}"
        return f"no suggestion: with no eta {between} has the validation accuracy risen by more than chance"
    return (
        f"suggested: --eta-min {found.eta_min:.2g} --eta-max {found.eta_max:.2g} "
        "(where the validation accuracy begins to rise, and where it is highest)"
    )
