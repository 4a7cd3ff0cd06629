"""What all pictures share: colours, the look of an axis, and the way to a PNG."""

from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart with every common colour blindness and in grey print.
BLUE, ORANGE, GREEN, PINK, YELLOW, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#555555"
TRAIN, VALIDATION = BLUE, ORANGE


def new_figure(width: float, height: float, title: str, caption: str) -> Figure:
    """Return a figure in inches, with what it shows above and with which settings below."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    figure.supxlabel(caption, fontsize=9, color="#444444")
    return figure


def dress(axes: Axes) -> None:
    """Take away what carries no information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG of 120 dots per inch."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
