"""Charts: lines in panels as plain values, gathered without matplotlib and drawn by figure.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# One colour for one thing in every picture, distinct with every common colour blindness: Okabe and Ito's for the splits
# and for BN, most of Tol's muted ones for everything else, as the settings of a comparison or the stages of a search.
OF_SPLIT = {"train": "#0072B2", "validation": "#D55E00", "test": "#000000"}
OF_BN = {False: "#882255", True: "#009E73"}  # networks without and with batch normalisation
COLOURS = ("#332288", "#CC6677", "#999933", "#88CCEE", "#AA4499", "#DDCC77")
GREY = "#555555"
LINES = ("-", "--", ":", "-.")
# Style and colour of a curve, so that the next few differ in both, also on paper without colours: all 24 pairs.
LOOKS = tuple((LINES[(i + i // 12) % len(LINES)], COLOURS[i % len(COLOURS)]) for i in range(24))
STYLES = {"train": "-", "validation": "--", "test": ":"}
WIDE = 20.0  # above this loss an axis is logarithmic, or the others would be a flat line; chance is ln 10 = 2.3
MANY = 6  # evaluations of a curve: with fewer, the first is not apart from the others
DURING = ("train", "validation")  # splits with a curve; the test split is evaluated after the training


@dataclass(frozen=True)
class Look:
    """The form of a picture: for a screen, or for a document."""

    width: float | None = None  # centimetres, with letters of 9 pt; None: that of the chart, for a screen
    title: bool = True  # with the title above and the settings below

    def inches(self, usual: float) -> float:
        return usual if self.width is None else self.width / 2.54


SCREEN = Look()


@dataclass(frozen=True)
class Line:
    """One curve, or only markers if `style` is empty."""

    label: str | None  # None: not in the legend
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    style: str = "-"
    spread: Sequence[float] = ()  # one standard deviation: a band, or bars of markers
    dots_below: int = 3  # below this number of points, markers are drawn: a line of one point is invisible
    marker: str = "o"
    size: float = 3.5  # of the marker, in points
    width: float = 1.5  # of the line
    fill: str | None = None  # colour inside the marker, if not that of the line


@dataclass(frozen=True)
class Panel:
    """Lines over the same two axes."""

    lines: Sequence[Line]
    title: str = ""
    xlabel: str = "update step"
    ylabel: str = ""
    xscale: str = "linear"
    yscale: str = "linear"
    from_zero: bool = False  # x from 0 to the last value, without a margin
    ylim: tuple[float, float | None] | None = None
    xticks: Sequence[float] | None = None  # instead of those of matplotlib
    cycle: int = 0  # updates per cycle; the ends of cycles are marked
    limits: Mapping[str, float] = field(default_factory=dict)  # vertical lines by label
    band: tuple[float, float] | None = None  # one standard error of y
    names: Sequence[str] = ()  # labels of the integers of y, from the top
    shares_y: bool = True  # with the row, if the chart shares axes


@dataclass(frozen=True)
class Chart:
    """Panels in rows, with a title and the settings below."""

    title: str
    caption: str
    panels: Sequence[Sequence[Panel]]
    width: float  # inches
    height: float  # of the panels: without title, legend and settings
    shares_axes: bool = False  # x of all panels, y of the panels of a row that share it


def marks(label: str | None, points: Sequence[tuple[float, float]], colour: str, **look: Any) -> list[Line]:
    """Return points (x, y) as markers without a line, with other fields of a Line; none for no points."""
    return [Line(label, [x for x, _ in points], [y for _, y in points], colour, "", **look)] if points else []


def scale_of(losses: Sequence[float]) -> str:
    """Return the scale of an axis of losses or costs: logarithmic if the lower ones would else be a flat line."""
    return "log" if losses and max(losses) > max(WIDE, 10 * min(losses)) else "linear"


def later_scale(lines: Sequence[Line]) -> tuple[tuple[float, float] | None, str]:
    """Return limits of y and the scale for losses or costs over update steps; a logarithmic axis has no limits.

    The values at update 0 are outside the limits if one of them would take more than half of the axis.
    """
    first = [line.y[0] for line in lines if line.x and line.x[0] == 0]
    later = [y for line in lines for x, y in zip(line.x, line.y, strict=True) if x > 0]
    if first and max(len(line.x) for line in lines) >= MANY:
        highest = max(later)
        inside = [*later, *(y for y in first if y <= highest)]
        height = highest - min(inside)
        if max(first) - min(inside) > 2 * height > 0 and scale_of(inside) == "linear":
            return (min(inside) - 0.05 * height, highest + 0.15 * height), "linear"  # the others are written on top
    return None, scale_of(first + later)
