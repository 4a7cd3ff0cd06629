"""Drawing: any chart as a PNG, SVG or PDF file."""

import textwrap
from io import BytesIO
from itertools import cycle
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from klcli.report.plots import own_settings
from klcli.report.plots.chart import GREY, LINES, Chart, Panel
from klcli.text import visible

CAPTION_LETTERS = 15  # per inch of width
LEGEND_LETTERS = 10.4
TITLE_INCHES, LEGEND_INCHES = 0.27, 0.22


@own_settings()
def draw(chart: Chart, suffix: str = "png") -> bytes:
    """Return a picture file of a chart."""
    figure = new_figure(chart.width, chart.height, chart.title, chart.caption)
    shape, shared = (len(chart.panels), len(chart.panels[0])), chart.shares_axes
    every = figure.subplots(*shape, squeeze=False, sharex=shared, sharey="row" if shared else False)
    legend: dict[str, Artist] = {}
    for axes, panel in zip(every.flat, (panel for row in chart.panels for panel in row), strict=True):
        _draw(axes, panel)
        handles, labels = axes.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    if legend:  # one legend for all panels, between them and the title, where it covers no curve
        letters, lengths = int(LEGEND_LETTERS * chart.width), [len(label) + 8 for label in legend]
        columns = len(legend) if sum(lengths) <= letters else max(1, letters // max(lengths))
        rows = -(-len(legend) // columns)
        figure.set_figheight(chart.height + LEGEND_INCHES * rows)
        # The layout reserves space only for the lines of the title, so the title gets one line per row of the legend.
        figure.suptitle(plain(chart.title) + "\n" * rows, fontsize=13, fontweight="bold")
        look: dict[str, Any] = {"frameon": False, "loc": "upper center", "ncols": columns}
        look["bbox_to_anchor"] = (0.5, 1 - TITLE_INCHES / figure.get_figheight())
        figure.legend(legend.values(), legend, **look)
    return to_bytes(figure, suffix)


def _draw(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        marker = line.marker if not line.style or len(line.x) < line.dots_below else None
        look: dict[str, Any] = {"color": line.colour, "ls": line.style, "marker": marker, "ms": line.size}
        label = None if line.label is None else plain(line.label)
        axes.plot(line.x, line.y, label=label, mfc=line.fill or line.colour, **look)
        if line.spread:
            low, high = zip(*((y - s, y + s) for y, s in zip(line.y, line.spread, strict=True)), strict=True)
            axes.fill_between(line.x, low, high, color=line.colour, alpha=0.18, lw=0)
    for (label, limit), style in zip(panel.limits.items(), cycle(LINES[2:]), strict=False):
        axes.axvline(limit, color=GREY, lw=1.2, ls=style, label=label)
    if panel.band:
        axes.axhspan(*panel.band, color=GREY, alpha=0.15, lw=0, label="one standard error")
    given = {key: getattr(panel, key) for key in ("title", "xlabel", "ylabel", "xscale", "yscale", "xlim", "ylim")}
    axes.set(**{key: value for key, value in given.items() if value})  # None would disable the scaling of shared axes
    x = [value for line in panel.lines for value in line.x]
    if panel.xscale == "log" and x and max(x) < 100 * min(x):  # too few powers of ten for tick labels
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    if panel.names:
        axes.set_yticks(range(len(panel.names)), panel.names)
    for end in range(panel.cycle, int(max(x, default=0)) + 1, panel.cycle) if panel.cycle else ():
        axes.axvline(end, color="#999999", lw=0.8, zorder=0)
    if not x:
        axes.text(0.5, 0.5, "no evaluation", transform=axes.transAxes, ha="center", va="center", color=GREY)
    dress(axes)


def new_figure(width: float, height: float, title: str, caption: str) -> Figure:
    """Return a figure of this size in inches, with its title above and its settings below."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(plain(title), fontsize=13, fontweight="bold")
    figure.supxlabel(textwrap.fill(plain(caption), int(CAPTION_LETTERS * width)), fontsize=9, color="#444444")
    return figure


def dress(axes: Axes) -> None:
    """Remove the top and right spines and add a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def to_bytes(figure: Figure, suffix: str) -> bytes:
    """Return the figure as a PNG (120 dots per inch), SVG or PDF file; the same figure gives the same bytes."""
    content = BytesIO()
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # with a date, no two files would be equal
    figure.savefig(content, format=suffix, dpi=120 if suffix == "png" else "figure", metadata=dates.get(suffix))
    return content.getvalue()


def plain(text: str) -> str:
    """Return a text for a picture, with visible control characters; a dollar sign begins no formula."""
    return visible(text).replace("$", r"\$")
