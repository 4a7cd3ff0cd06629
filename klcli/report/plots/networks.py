"""Pictures of one trained network: its confusion matrix on the test split, and the weights of its first layer."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from klcli.report.plots import own_settings
from klcli.report.plots.chart import OF_SPLIT, SCREEN, Look
from klcli.report.plots.figure import dress, new_figure, plain, to_bytes
from klcli.report.words import counted, not_complete, run_title, settings_line
from klcli.store.records import Run

PAIRS = 8  # most confused classes
DIGITS = 2.5  # size of the digits in points, for each inch of the matrix, if it is too small for 9 points
DARK = 0.6  # fraction of the darkest colour above which white digits are easier to read
SIDE, CHANNELS = 32, 3  # of an image
SHOWN = 100  # units
GAP = 2  # pixels around each image
WIDE, BARS_INCHES = 9.0, 2.8  # inches of a figure with the matrix beside the bars, and of the bars below it


@own_settings()
def draw_confusion(
    run: Run, counts: np.ndarray, classes: Sequence[str], suffix: str = "png", look: Look = SCREEN, on: str = "test"
) -> bytes:
    """Draw the counts (K, K), the true class in rows, in percent of each true class, and the most confused pairs.

    `on` is the split of the images. Returns a picture file.
    """
    names = [*map(plain, classes)]
    accuracy = np.trace(counts) / counts.sum()
    totals = counts.sum(axis=1, keepdims=True)
    grey = "" if totals.all() else "; grey: no image of the class"
    results = f"{counts.sum()} {on} images, accuracy {accuracy:.4f}{grey}"
    caption = f"{settings_line(run)}; {results}{not_complete([run])}"
    width, title = look.inches(12), run_title(f"Confusion on the {on} split, run", run)
    is_wide, side = width >= WIDE, min(6.0, 0.9 * width)
    digits = min(9, DIGITS * side)
    figure, _ = new_figure(width, side if is_wide else side + BARS_INCHES, title, caption, look)
    below: dict[str, Any] = {"nrows": 2, "height_ratios": (side, BARS_INCHES)}
    matrix, bars = figure.subplots(**({"ncols": 2, "width_ratios": (1.7, 1)} if is_wide else below))
    shares = np.ma.masked_invalid(counts / np.where(totals, totals, np.nan))
    darkest = max(0.6, shares.max())
    matrix.set_facecolor("#dddddd")
    matrix.imshow(shares, cmap="Blues", vmin=0, vmax=darkest)
    for row, column in np.argwhere(~shares.mask):
        share = shares[row, column]
        colour = "white" if share > DARK * darkest else "black"
        matrix.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=digits)
    places = range(len(names))
    matrix.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor")
    matrix.set_yticks(places, names)
    matrix.set(xlabel="predicted", ylabel="true class", title="percent of each class")
    matrix.spines[:].set_visible(False)
    if pairs := most_confused(counts, PAIRS)[::-1]:
        both, mistakes = [f"{names[a]} and {names[b]}" for a, b, _ in pairs], [n for *_, n in pairs]
        bars.bar_label(bars.barh(both, mistakes, color=OF_SPLIT[on]), padding=3)
        bars.margins(x=0.12)
    bars.set(title="most confused pairs", xlabel="images confused")
    dress(bars)
    bars.grid(axis="y", visible=False)
    return to_bytes(figure, suffix, look)


def most_confused(counts: np.ndarray, n: int) -> list[tuple[int, int, int]]:
    """Return the n most confused unordered pairs of classes, with their counts."""
    both = counts + counts.T
    pairs = [(a, b, int(both[a, b])) for a in range(len(both)) for b in range(a + 1, len(both)) if both[a, b]]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))[:n]


def weight_images(W: np.ndarray) -> np.ndarray:
    """Return the columns of `W (3072, h)` by descending norm as images `(units, 32, 32, 3)`; 0.5 is a weight of 0."""
    columns = W.T[np.argsort(-np.linalg.norm(W, axis=0), kind="stable")[:SHOWN]].astype(np.float64)
    largest = np.abs(columns).max(axis=1, keepdims=True)
    columns = 0.5 + columns / np.where(largest == 0, 1, largest) / 2
    return columns.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)


@own_settings()
def draw_weights(run: Run, W: np.ndarray, suffix: str = "png", look: Look = SCREEN) -> bytes:
    """Draw the weights `W (3072, h)` of a run in a grid; return a picture file."""
    images, units = weight_images(W), W.shape[1]
    columns = min(10, max(4, math.ceil(math.sqrt(len(images)))))
    rows = math.ceil(len(images) / columns)
    # One large image: a hundred panels would take seconds.
    cell = SIDE + 2 * GAP
    grid = np.pad(images, ((0, rows * columns - len(images)), (GAP, GAP), (GAP, GAP), (0, 0)), constant_values=1)
    mosaic = grid.reshape(rows, columns, cell, cell, CHANNELS).transpose(0, 2, 1, 3, 4)
    which = f"the {SHOWN} longest of {units} units" if units > SHOWN else f"{units} {counted(units, 'unit')}"
    scaled = "by descending norm, each scaled by its largest weight, grey is 0"
    caption = f"{settings_line(run)}; {which}, {scaled}{not_complete([run])}"
    width = look.inches(8)
    figure, _ = new_figure(width, width * rows / columns, run_title("First-layer weights, run", run), caption, look)
    axes = figure.subplots()
    axes.imshow(mosaic.reshape(rows * cell, columns * cell, CHANNELS), interpolation="nearest")
    axes.axis("off")
    return to_bytes(figure, suffix, look)
