"""Drawing: any chart as a PNG, SVG or PDF file, for a screen or at the width of a document."""

import math
import re
import textwrap
from collections.abc import Sequence
from io import BytesIO
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter

from klcli.report.plots import own_settings
from klcli.report.plots.chart import GREY, LINES, SCREEN, Chart, Look, Panel
from klcli.settings.setting import require
from klcli.text import visible

TITLE, TEXT, CAPTION = 13, 10, 9  # sizes of letters in points, for a screen
REAL = 9  # of all letters of a picture that has the width of a document
EM = {"title": 0.675, "text": 0.6, "caption": 0.533}  # width of a letter, with some reserve, as a part of its size
LINE, GAP = 1.2, 0.35  # the height of a line and the space between entries of a legend, as multiples of the size
HANDLE = 8  # letters that the line before a label of the legend takes
PADDING = 0.08  # inches at the edges and between title, legend and axes
NARROWEST, LOWEST, NAME_INCHES = 1.9, 1.9, 0.2  # inches of a panel, and of a name on its axis
SHARED = 1.0  # inches of a column of panels that share axes, at least, with their numbers
ABOVE = 0.5  # inches of a legend; a higher one gets the place of a fourth panel
MOST_ENDS = 60  # of cycles that are marked: more would be a grey area
DOTS = {False: 120, True: 200}  # per inch of a PNG, for a screen and for a document


@own_settings()
def draw(chart: Chart, suffix: str = "png", look: Look = SCREEN) -> bytes:
    """Return a picture file of a chart.

    At a width of its own, in centimetres, all letters have 9 pt, panels narrower than 4.8 cm are put below one another
    unless they share axes, and a PNG has 200 dots per inch. Raises ConfigError where panels that share axes do not fit.
    """
    width, panels = look.inches(chart.width), [panel for row in chart.panels for panel in row]
    size, columns = REAL if look.width else TEXT, len(chart.panels[0])
    if not chart.shares_axes:
        columns = max(1, min(columns, int(width / NARROWEST)))
    elif look.width:
        least = math.ceil(2.54 * SHARED * columns)
        require(look.width >= least, f"--width {look.width:g}: {columns} columns of panels need at least {least} cm")
    labels = list(dict.fromkeys(label for panel in panels for label in _labels(panel)))
    ncols, texts, above = _legend(labels, width, size)
    is_beside = False
    if len(panels) == 3 and columns > 1 and above > ABOVE:
        _, narrow, high = _legend(labels, width / 2 - 2 * PADDING, size, most=1)
        is_beside = high < _row_height(chart, width, 2) - 3 * LINE * size / 72  # without the labels of the panel beside
        if is_beside:
            columns, texts, above = 2, narrow, 0.0
    rows = math.ceil(len(panels) / columns)
    body = rows * _row_height(chart, width, columns)
    figure, below_title = new_figure(width, body, chart.title, chart.caption, look, above)
    every = figure.subplots(rows, columns, squeeze=False, sharex=chart.shares_axes)
    if chart.shares_axes:
        for row, own in zip(every, chart.panels, strict=True):
            for axes in row[1:] if own[0].shares_y else ():
                axes.sharey(row[0])
                axes.tick_params(labelleft=False)
        figure.align_ylabels(every[:, 0])
    legend: dict[str, Artist] = {}
    for axes, panel in zip(every.flat, panels, strict=False):
        _draw(axes, panel)
        handles, drawn = axes.get_legend_handles_labels()
        legend |= dict(zip(drawn, handles, strict=True))
    for axes in every.flat[len(panels) :]:
        axes.axis("off")
    entries = [legend[plain(label)] for label in labels]
    if is_beside:
        every.flat[-1].legend(entries, texts, loc="center left", frameon=False).set_in_layout(False)
    elif labels:  # one legend for all panels, where it covers no curve
        where: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, below_title), "ncols": ncols}
        figure.legend(entries, texts, frameon=False, borderaxespad=0, borderpad=0, **where)
    return to_bytes(figure, suffix, look)


def _row_height(chart: Chart, width: float, columns: int) -> float:
    """Return the inches of a row of so many panels on this width: in their usual shape, but neither low nor high."""
    usual = chart.height / len(chart.panels)
    least = LOWEST + NAME_INCHES * max(len(panel.names) for row in chart.panels for panel in row)
    return min(usual, max(least, usual * width / columns / (chart.width / len(chart.panels[0]))))


def _labels(panel: Panel) -> list[str]:
    lines = [line.label for line in panel.lines if line.label is not None]
    return [*lines, *panel.limits, *["one standard error"] * (panel.band is not None)]


def _legend(labels: Sequence[str], width: float, size: float, most: int = 100) -> tuple[int, list[str], float]:
    """Return the number of columns of a legend of this width in inches, its labels in lines, and its height in inches.

    `size` is that of its letters, in points, and `most` the maximum number of columns.
    """
    if not labels:
        return 1, [], 0.0
    letters, lengths = _letters(width, size, "text"), [len(label) + HANDLE for label in labels]
    is_row = len(labels) <= most and sum(lengths) <= letters  # each column is as wide as its label
    columns = len(labels) if is_row else min(most, max(1, letters // max(lengths)))
    columns = math.ceil(len(labels) / math.ceil(len(labels) / columns))  # of even lengths, at the same height
    texts = [_filled(label, letters if is_row else max(10, letters // columns - HANDLE)) for label in labels]
    heights = [LINE * (text.count("\n") + 1) + GAP for text in texts]
    stacked = np.array_split(heights, columns)  # as matplotlib splits them
    return columns, texts, max(column.sum() for column in stacked) * size / 72


def _filled(text: str, letters: int) -> str:
    """Break a text into lines between words, but never between a name and its number."""
    joined = re.sub(r"(?<=\w) (?=\(?\w* ?-?\d)", "\xa0", plain(text))
    return textwrap.fill(joined, letters).replace("\xa0", " ")


def _letters(width: float, size: float, kind: str) -> int:
    """Return the number of letters of this size, in points, on a line of this width, in inches."""
    return max(10, int(width * 72 / (size * EM[kind])))


def _draw(axes: Axes, panel: Panel) -> None:
    above, top = list[float](), panel.ylim[1] if panel.ylim else None
    for line in panel.lines:
        marker = line.marker if not line.style or len(line.x) < line.dots_below else None
        look: dict[str, Any] = {"color": line.colour, "ls": line.style, "lw": line.width}
        look |= {"marker": marker, "ms": line.size, "mfc": line.fill or line.colour}
        # The last evaluation is on the edge. The layout would reserve space for a line without points, at its corner.
        look["clip_on"] = marker is None or panel.xscale == "log" or not line.x
        xs, ys = line.x, line.y
        if top is not None and xs and xs[0] == 0 and ys[0] > top:  # see `later_scale`: it enters at the top of the axis
            above.append(ys[0])
            xs, ys = [np.interp(top, ys[1::-1], xs[1::-1]), *xs[1:]], [top, *ys[1:]]
            axes.plot(xs[0], top, marker="^", color=line.colour, clip_on=False)
            look["markevery"] = slice(1, None)
        axes.plot(xs, ys, label=None if line.label is None else plain(line.label), **look)
        if line.spread and not line.style:
            axes.errorbar(xs, ys, yerr=line.spread, fmt="none", ecolor=line.colour, elinewidth=1, capsize=3)
        elif line.spread:
            low, high = np.subtract(ys, line.spread), np.add(ys, line.spread)
            axes.fill_between(xs, low, high, color=line.colour, alpha=0.18, lw=0)
    for (label, limit), style in zip(panel.limits.items(), cycle(LINES[2:]), strict=False):
        axes.axvline(limit, color=GREY, lw=1.2, ls=style, label=plain(label))
    if panel.band:
        axes.axhspan(*panel.band, color=GREY, alpha=0.15, lw=0, label="one standard error")
    given = {key: getattr(panel, key) for key in ("title", "xlabel", "ylabel", "xscale", "yscale", "ylim")}
    x, y = ([value for line in panel.lines for value in getattr(line, name)] for name in "xy")
    given["xticks"] = x[:1] if len({*x}) == 1 else panel.xticks  # around it, matplotlib's numbers can overlap
    given["xlim"] = (0, max(x, default=0) or 1) if panel.from_zero else None
    axes.set(**{key: value for key, value in given.items() if value})  # None would disable the scaling of shared axes
    for axis, scale, values in ((axes.xaxis, panel.xscale, x), (axes.yaxis, panel.yscale, y)):
        if scale == "log" and values and max(values) < 100 * min(values):  # too few powers of ten for tick labels
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    if above:
        words = " to ".join(dict.fromkeys(f"{value:.3g}" for value in (min(above), max(above))))
        where: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "top"}
        axes.text(0.99, 0.99, f"{words} at update 0", fontsize="small", color=GREY, **where)
    if panel.names:
        axes.set_yticks(range(len(panel.names)), panel.names)
    ends = range(panel.cycle, int(max(x, default=0)) + 1, panel.cycle or 1)
    for end in ends if panel.cycle and len(ends) <= MOST_ENDS else ():
        axes.axvline(end, color="#999999", lw=0.8, zorder=0)
    if not x:
        axes.text(0.5, 0.5, "no evaluation", transform=axes.transAxes, ha="center", va="center", color=GREY)
    dress(axes)


def new_figure(
    width: float, body: float, title: str, caption: str, look: Look, legend: float = 0.0
) -> tuple[Figure, float]:
    """Return a figure and the height, from 0 to 1, at which its legend of `legend` inches begins.

    It is `width` inches wide and has `body` inches for the axes, between the title, the legend and the settings below.
    """
    mpl.rcParams["axes.titlesize"] = "medium" if look.width else "large"
    mpl.rcParams["font.size"] = REAL if look.width else TEXT
    of_title, of_caption = (REAL, REAL) if look.width else (TITLE, CAPTION)
    heading = _title(title, _letters(width, of_title, "title")) if look.title else ""
    below = _filled(caption, _letters(width, of_caption, "caption")) if look.title else ""
    top, bottom = (
        size * LINE / 72 * (text.count("\n") + 1) + 2 * PADDING if text else 0.0
        for text, size in ((heading, of_title), (below, of_caption))
    )
    room = legend + 2 * PADDING if legend else 0.0  # matplotlib reserves none for a title and a legend at once
    height = top + room + body + bottom
    place = 0, bottom / height, 1, body / height
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=place))
    centred: dict[str, Any] = {"ha": "center", "in_layout": False}
    figure.text(0.5, 1 - PADDING / height, heading, va="top", fontsize=of_title, fontweight="bold", **centred)
    figure.text(0.5, PADDING / height, below, va="bottom", fontsize=of_caption, color="#444444", **centred)
    return figure, 1 - (top or PADDING) / height


def _title(text: str, most: int) -> str:
    """Break a title of more than `most` letters into the fewest lines of about equal length."""
    whole = re.sub(r"\[[^]]*]", lambda mark: mark[0].replace(" ", "\xa0"), plain(text))
    return min((textwrap.fill(whole, n) for n in range(most // 2, most + 1)), key=lambda lines: lines.count("\n"))


def dress(axes: Axes) -> None:
    """Remove the top and right spines and add a faint grid below all else."""
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def to_bytes(figure: Figure, suffix: str, look: Look) -> bytes:
    """Return the figure as a PNG, SVG or PDF file; the same figure gives the same bytes."""
    if look.width is not None:
        _keep_inside(figure)
    content = BytesIO()
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # with a date, no two files would be equal
    dots = DOTS[look.width is not None] if suffix == "png" else "figure"
    figure.savefig(content, format=suffix, dpi=dots, metadata=dates.get(suffix))
    return content.getvalue()


def _keep_inside(figure: Figure) -> None:
    """Narrow the axes until no title or label goes beyond an edge: the layout asks for the heights of these alone."""
    engine, width = figure.get_layout_engine(), figure.get_figwidth()
    assert isinstance(engine, ConstrainedLayoutEngine)
    for _ in range(3):  # a narrower panel has a label that goes further beyond its own edges
        figure.draw_without_rendering()
        box, (x, y, along, high) = figure.get_tightbbox(), engine.get()["rect"]
        left, right = max(0.0, -box.x0) / width, max(0.0, box.x1 - width) / width
        if not left + right:
            return
        engine.set(rect=(x + left, y, along - left - right, high))


def plain(text: str) -> str:
    """Return a text for a picture, with visible control characters; a dollar sign begins no formula."""
    return visible(text).replace("$", r"\$")
