"""What all pictures share: colours, values over evaluations, the look of an axis, and the file."""

import textwrap
from collections.abc import Sequence
from io import BytesIO

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from klcli.store.records import Epoch

# Okabe and Ito's colours: distinct with every common colour blindness and in grey print.
BLUE, ORANGE, GREEN, PINK, YELLOW, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#555555"
COLOURS = (BLUE, ORANGE, GREEN, PINK, YELLOW, GREY)
LINES = ("-", "--", ":", "-.")
TRAIN, VALIDATION = BLUE, ORANGE

CAPTION_LETTERS = 15  # per inch of width
TITLE_INCHES = 0.27


def measured(epochs: Sequence[Epoch], split: str, names: Sequence[str]) -> dict[str, list[float]]:
    """Return the values of each measure (cost, loss, accuracy) on a split, over the evaluations of a run."""
    return {name: [getattr(epoch, f"{split}_{name}") for epoch in epochs] for name in names}


def new_figure(width: float, height: float, title: str, caption: str) -> Figure:
    """Return a figure of this size in inches, with its title above and its settings below."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    figure.supxlabel(textwrap.fill(caption, int(CAPTION_LETTERS * width)), fontsize=9, color="#444444")
    return figure


def legend_below_title(figure: Figure, axes: Axes, columns: int) -> None:
    """Place one legend for all panels between them and the title, where it hides no curve."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    # The layout reserves space for the lines of the title alone, so the title gets one for each row of the legend.
    figure.suptitle(figure.get_suptitle() + "\n" * -(-len(labels) // columns), fontsize=13, fontweight="bold")
    place = (0.5, 1 - TITLE_INCHES / figure.get_figheight())
    figure.legend(handles, labels, frameon=False, loc="upper center", bbox_to_anchor=place, ncols=columns)


def say_empty(axes: Axes) -> None:
    """Write into a panel that there is nothing to draw."""
    axes.text(0.5, 0.5, "no evaluation", transform=axes.transAxes, ha="center", va="center", color=GREY)


def dress(axes: Axes) -> None:
    """Remove the lines that carry no information and add a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def to_bytes(figure: Figure, suffix: str) -> bytes:
    """Return the figure as a PNG (120 dots per inch), SVG or PDF file; the same figure gives the same bytes."""
    content = BytesIO()
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # with one, no two files would be equal
    # Letters as outlines look alike everywhere; without the salt, names in an SVG are random.
    with mpl.rc_context({"svg.hashsalt": "klcli", "svg.fonttype": "path", "pdf.fonttype": 42}):
        figure.savefig(content, format=suffix, dpi=120 if suffix == "png" else "figure", metadata=dates.get(suffix))
    return content.getvalue()


def mark_cycles(axes: Axes, cycle: int, last_step: int) -> None:
    """Mark the ends of the cycles of the learning rate; `cycle` counts updates, 0 means none."""
    for end in range(cycle, last_step + 1, cycle) if cycle else ():
        axes.axvline(end, color="#999999", lw=0.8, zorder=0)
