"""Evidence by hand: runs and errors of gradients that no database holds, compared with a report."""

from collections.abc import Callable, Mapping, Sequence

from klcli.published import comparison
from klcli.published.conclusions import Evidence
from klcli.published.report import Comparison, GradientExperiment, Report
from klcli.settings.sameness import without_seeds
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Epoch, GradientError, Run

Runs = Mapping[TrainConfig, Run]
Errors = Mapping[GradientExperiment, Sequence[GradientError]]


def evidence(
    by_method: Mapping[str, Runs], errors: Errors | None = None, epochs: Callable[[int], Sequence[Epoch]] | None = None
) -> Evidence:
    """Return the evidence of runs, by their methods, and of errors of gradients."""
    found: dict[tuple[str, TrainConfig], list[Run]] = {}
    for method, own in by_method.items():
        for run in own.values():
            found.setdefault((method, without_seeds(run.config)), []).append(run)
    return Evidence(found, errors or {}, epochs or (lambda run: ()))


def compare(
    report: Report, runs: Runs, errors: Errors, *,
    epochs: Callable[[int], Sequence[Epoch]] | None = None, incomparable: str | None = None,
    others: Mapping[str, Runs] = {},
) -> list[Comparison]:  # fmt: skip
    """Compare a report with runs without a method, those of `others` by their methods, and errors of gradients."""
    return comparison.compare(report, evidence({"": runs, **others}, errors, epochs), incomparable)
