"""The confusion matrix on the test split, and the most confused pairs of classes."""

from collections.abc import Sequence

import numpy as np

from klcli.evaluation.confusion import Confusion
from klcli.report.plots import own_settings
from klcli.report.plots.chart import BLUE
from klcli.report.plots.figure import dress, new_figure, plain, to_bytes
from klcli.report.words import network_name, settings_line, subset_words
from klcli.store.records import Run

PAIRS = 8
DARK = 0.6  # fraction of the darkest colour above which white digits are easier to read


@own_settings()
def draw_confusion(run: Run, confusion: Confusion, classes: Sequence[str], suffix: str = "png") -> bytes:
    """Draw the matrix in percent of each true class, and the most confused pairs; return a picture file."""
    names = [*map(plain, classes)]
    counts = confusion.counts  # (K, K), the true class in rows
    caption = f"{settings_line(run)}; {counts.sum()} test images, accuracy {confusion.accuracy:.4f}"
    title = f"Confusion on the test split, run {run.id}: {network_name(run.config)}{subset_words([run])}"
    figure = new_figure(12, 6.4, title, caption)
    matrix, bars = figure.subplots(1, 2, width_ratios=(1.7, 1))
    images = counts.sum(axis=1, keepdims=True)
    shares = counts / np.where(images == 0, 1, images)
    darkest = max(0.6, shares.max())
    matrix.imshow(shares, cmap="Blues", vmin=0, vmax=darkest)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > DARK * darkest else "black"
        matrix.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=9)
    places = range(len(names))
    matrix.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor")
    matrix.set_yticks(places, names)
    matrix.set(xlabel="predicted", ylabel="true class", title="percent of the images of a class")
    matrix.spines[:].set_visible(False)
    pairs = [(f"{names[a]} and {names[b]}", n) for a, b, n in reversed(confusion.most_confused(PAIRS))]
    if pairs:
        both, mistakes = zip(*pairs, strict=True)
        bars.bar_label(bars.barh(both, mistakes, color=BLUE), padding=3)
        bars.margins(x=0.12)
    bars.set(title="most confused pairs", xlabel="images classified as the other class")
    dress(bars)
    bars.grid(axis="y", visible=False)
    return to_bytes(figure, suffix)
