"""A search that never begins anew: accuracy over the trainings, in the order in which one network went through them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from klcli.published.comparison import Comparison
from klcli.report.plots.figure import BLUE, GREEN, ORANGE, dress, legend_below_title, new_figure, to_bytes

COLOURS = {"train": BLUE, "validation": ORANGE, "test": GREEN}


@dataclass(frozen=True)
class WarmStart:
    """The trainings of a chain."""

    title: str
    caption: str
    ours: Mapping[str, Sequence[float]]  # accuracy by split
    published: Mapping[str, Sequence[float]]


def warm_start(title: str, caption: str, lines: Sequence[Comparison]) -> WarmStart:
    """Gather the accuracies of a chain from its lines; a training without any of ours ends it."""
    ours: dict[str, list[float]] = {split: [] for split in COLOURS}
    published: dict[str, list[float]] = {split: [] for split in COLOURS}
    for one in lines:
        split, _, measure = str(one.line.quantity).partition("_")
        if measure == "accuracy" and split in COLOURS and one.ours and one.line.published is not None:
            ours[split].append(one.ours.mean)
            published[split].append(one.line.published)
    return WarmStart(title, caption, ours, published)


def draw_warm_start(chain: WarmStart, suffix: str = "png") -> bytes:
    """Draw ours as lines and the published ones as dots; return a picture file."""
    figure = new_figure(8, 5, chain.title, chain.caption)
    axes = figure.subplots()
    for split, colour in COLOURS.items():
        places = range(1, len(chain.ours[split]) + 1)
        axes.plot(places, chain.ours[split], color=colour, label=split)
        axes.plot(places, chain.published[split], color=colour, ls="", marker="o", ms=4, label=f"{split}, published")
    axes.set(xlabel="training, each with the weights of the one before", ylabel="accuracy", ylim=(0, 1.02))
    dress(axes)
    legend_below_title(figure, axes, columns=3)
    return to_bytes(figure, suffix)
