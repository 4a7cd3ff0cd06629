"""The lambdas of a search against their validation accuracy."""

from collections.abc import Sequence
from itertools import cycle

from klcli.procedures.searches import tried_values
from klcli.report.plots.figure import COLOURS, Chart, Line, Panel
from klcli.report.words import network_name, settings_line
from klcli.store.records import Run
from klcli.studies.lambda_search import Choice

MARKS = tuple(zip("o^sDv", COLOURS, strict=False))


def lambda_search(stages: Sequence[tuple[str, Sequence[Run]]], choice: Choice) -> Chart:
    """Gather the points of a search; runs that diverged have none."""
    first, together = stages[0][1][0], [run for _, runs in stages for run in runs]
    lines = []
    for (stage, runs), (marker, colour) in zip(stages, cycle(MARKS), strict=False):
        points = [(one.lam, accuracy) for one in tried_values(runs, stage) for accuracy in one.accuracies]
        if points:
            x, y = zip(*points, strict=True)
            lines.append(Line(stage, x, y, colour, "", marker=marker, size=6.5))
    lam, accuracy = choice.chosen.lam, choice.chosen.accuracy
    scale = "log" if min(x for line in lines for x in line.x) > 0 else "linear"
    lines.append(Line(f"chosen {lam:.4g}", [lam], [accuracy], "black", "", size=14, fill="none"))
    band = (choice.best.accuracy - choice.standard_error, accuracy)
    panel = Panel(lines, xlabel="lambda", ylabel="validation accuracy", xscale=scale, band=band)
    title = f"Lambda search: {network_name(first.config)}"
    studies = ", ".join(str(runs[0].study_id) for _, runs in stages)
    caption = f"{settings_line(first, omit=('lambda',), together_with=together)}, study {studies}"
    return Chart(title, caption, [[panel]], 8, 5)
