"""Range tests: the limits of eta that a stored one suggests, in words."""

from collections.abc import Sequence

from klcli.store.records import Epoch, Run
from klcli.studies.range_test import Suggestion, suggest


def suggestion_of(run: Run, epochs: Sequence[Epoch]) -> Suggestion | None:
    """Return what the evaluations of a range test suggest."""
    etas = [epoch.learning_rate for epoch in epochs]
    return suggest(etas, [epoch.validation_accuracy for epoch in epochs], run.split.sizes()[1])


def suggestion_sentence(run: Run, epochs: Sequence[Epoch]) -> str:
    """Say which limits a range test suggests, as options, and by which rule."""
    found = suggestion_of(run, epochs)
    if found is None:
        between = f"between {run.config.eta_min:g} and {run.config.eta_max:g}"
        return f"no suggestion: with no eta {between} has the validation accuracy risen by more than chance"
    return (
        f"suggested: --eta-min {found.eta_min:.2g} --eta-max {found.eta_max:.2g} "
        "(where the validation accuracy, as the median of three evaluations, begins to rise and is highest)"
    )
