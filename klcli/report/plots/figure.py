"""Drawing: any chart as a PNG, SVG or PDF file."""

import re
import textwrap
from io import BytesIO
from itertools import cycle
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter

from klcli.report.plots import own_settings
from klcli.report.plots.chart import GREY, LINES, Chart, Panel
from klcli.text import visible

CAPTION_LETTERS = 15  # per inch of width
LEGEND_LETTERS = 10.4
TITLE_LETTERS = 8.2
TITLE_INCHES, LINE_INCHES, LEGEND_INCHES = 0.27, 0.217, 0.22  # of one line, and of each further one


@own_settings()
def draw(chart: Chart, suffix: str = "png") -> bytes:
    """Return a picture file of a chart."""
    figure = new_figure(chart.width, chart.height, chart.title, chart.caption)
    every = figure.subplots(len(chart.panels), len(chart.panels[0]), squeeze=False, sharex=chart.shares_axes)
    for row, panels in zip(every if chart.shares_axes else (), chart.panels, strict=False):
        for axes, panel in zip(row[1:], panels[1:], strict=True):
            if panel.shares_y:
                axes.sharey(row[0])
                axes.tick_params(labelleft=False)
    if chart.shares_axes:
        figure.align_ylabels(every[:, 0])
    legend: dict[str, Artist] = {}
    for axes, panel in zip(every.flat, (panel for row in chart.panels for panel in row), strict=True):
        _draw(axes, panel)
        handles, labels = axes.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    if legend:  # one legend for all panels, between them and the title, where it covers no curve
        letters, lengths = int(LEGEND_LETTERS * chart.width), [len(label) + 8 for label in legend]
        columns = len(legend) if sum(lengths) <= letters else max(1, letters // max(lengths))
        rows = -(-len(legend) // columns)
        title = _title(chart.title, chart.width)
        above = TITLE_INCHES + LINE_INCHES * title.count("\n")
        figure.set_figheight(chart.height + LEGEND_INCHES * rows + above - TITLE_INCHES)
        # The layout reserves space only for the lines of the title, so the title gets one line per row of the legend.
        figure.suptitle(title + "\n" * rows, fontsize=13, fontweight="bold")
        look: dict[str, Any] = {"frameon": False, "loc": "upper center", "ncols": columns}
        look["bbox_to_anchor"] = (0.5, 1 - above / figure.get_figheight())
        figure.legend(legend.values(), legend, **look)
    return to_bytes(figure, suffix)


def _draw(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        marker = line.marker if not line.style or len(line.x) < line.dots_below else None
        look: dict[str, Any] = {
            "color": line.colour,
            "ls": line.style,
            "marker": marker,
            "ms": line.size,
            "lw": line.width,
        }
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
    y = [value for line in panel.lines for value in line.y]
    for axis, scale, values in ((axes.xaxis, panel.xscale, x), (axes.yaxis, panel.yscale, y)):
        if scale == "log" and values and max(values) < 100 * min(values):  # too few powers of ten for tick labels
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    if panel.names:
        axes.set_yticks(range(len(panel.names)), panel.names)
    for end in range(panel.cycle, int(max(x, default=0)) + 1, panel.cycle) if panel.cycle else ():
        axes.axvline(end, color="#999999", lw=0.8, zorder=0)
    if not x:
        axes.text(0.5, 0.5, "no evaluation", transform=axes.transAxes, ha="center", va="center", color=GREY)
    dress(axes)


def new_figure(width: float, height: float, title: str, caption: str) -> Figure:
    """Return a figure of this size in inches, with its title above and its settings below."""
    # The padding, in inches, keeps the legend from the titles of the panels.
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.07))
    figure.suptitle(_title(title, width), fontsize=13, fontweight="bold")
    figure.supxlabel(textwrap.fill(plain(caption), int(CAPTION_LETTERS * width)), fontsize=9, color="#444444")
    return figure


def _title(text: str, width: float) -> str:
    """Break a title that is longer than the figure is wide, in inches, into the fewest lines of about equal length."""
    most, whole = (
        int(TITLE_LETTERS * width),
        re.sub(r"\[[^]]*]", lambda mark: mark[0].replace(" ", "\xa0"), plain(text)),
    )
    return min((textwrap.fill(whole, n) for n in range(most // 2, most + 1)), key=lambda lines: lines.count("\n"))


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
