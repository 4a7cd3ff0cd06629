"""A search that never begins anew: accuracy over the trainings, in the order in which one network went through them."""

from collections.abc import Sequence

from klcli.published.comparison import Comparison
from klcli.report.plots.figure import COLOURS, Chart, Line, Panel
from klcli.report.tables.table import SPLITS


def warm_start(title: str, caption: str, compared: Sequence[Comparison]) -> Chart:
    """Gather the accuracies of a chain, ours as lines and the published ones as dots; one without ours is left out."""
    lines = []
    for split, colour in zip(SPLITS, COLOURS, strict=False):
        pairs = [
            (one.ours.mean, one.line.published)
            for one in compared
            if one.line.quantity == f"{split}_accuracy" and one.ours and one.line.published is not None
        ]
        places = range(1, len(pairs) + 1)
        lines.append(Line(split, places, [ours for ours, _ in pairs], colour))
        published = [number for _, number in pairs]
        lines.append(Line(f"{split}, published", places, published, colour, "", size=4))
    xlabel = "training, each with the weights of the one before"
    return Chart(title, caption, [[Panel(lines, "", xlabel, "accuracy", ylim=(0, 1.02))]], 8, 5)
