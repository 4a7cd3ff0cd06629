"""What all pictures share: colours, the look of an axis, and the way to a file."""

import textwrap
from io import BytesIO

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart with every common colour blindness and in grey print.
BLUE, ORANGE, GREEN, PINK, YELLOW, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#555555"
COLOURS = (BLUE, ORANGE, GREEN, PINK, YELLOW, GREY)
LINES = ("-", "--", ":", "-.")
TRAIN, VALIDATION = BLUE, ORANGE

SUFFIXES = ("png", "svg", "pdf")
CAPTION_LETTERS = 15  # per inch of width
TITLE_INCHES = 0.27


def new_figure(width: float, height: float, title: str, caption: str) -> Figure:
    """Return a figure in inches, with what it shows above and with which settings below."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    figure.supxlabel(textwrap.fill(caption, int(CAPTION_LETTERS * width)), fontsize=9, color="#444444")
    return figure


def legend_below_title(figure: Figure, axes: Axes, columns: int) -> None:
    """Put one legend for all panels between the title and them, where no curve can run."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    # The layout keeps room for the lines of the title alone, so the title gets one for each row of the legend.
    figure.suptitle(figure.get_suptitle() + "\n" * -(-len(labels) // columns), fontsize=13, fontweight="bold")
    place = (0.5, 1 - TITLE_INCHES / figure.get_figheight())
    figure.legend(handles, labels, frameon=False, loc="upper center", bbox_to_anchor=place, ncols=columns)


def say_empty(axes: Axes) -> None:
    """Say in a panel that there is nothing to draw."""
    axes.text(0.5, 0.5, "no evaluation", transform=axes.transAxes, ha="center", va="center", color=GREY)


def dress(axes: Axes) -> None:
    """Take away what carries no information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG of 120 dots per inch."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def to_bytes(figure: Figure, suffix: str) -> bytes:
    """Return the figure as the content of a PNG, SVG or PDF file; the same figure gives the same bytes."""
    if suffix == "png":
        return to_png(figure)
    content = BytesIO()
    # Letters as outlines look alike everywhere. A date or random names would make every file another one.
    with mpl.rc_context({"svg.hashsalt": "klcli", "svg.fonttype": "path", "pdf.fonttype": 42}):
        figure.savefig(content, format=suffix, metadata={"Date" if suffix == "svg" else "CreationDate": None})
    return content.getvalue()


def mark_cycles(axes: Axes, cycle: int, last_step: int) -> None:
    """Mark the ends of the cycles of the learning rate, by a line for each."""
    for end in range(cycle, last_step + 1, cycle) if cycle else ():
        axes.axvline(end, color="#999999", lw=0.8, zorder=0)
