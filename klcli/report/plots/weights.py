"""The first layer's weights as images."""

import math

import numpy as np

from klcli.report.plots import own_settings
from klcli.report.plots.figure import new_figure, to_bytes
from klcli.report.words import network_name, settings_line, subset_words
from klcli.store.records import Run

SIDE, CHANNELS = 32, 3  # of an image
SHOWN = 100  # units
GAP = 2  # pixels around each image


def weight_images(W: np.ndarray) -> np.ndarray:
    """Return the columns of `W (3072, h)` by descending norm, each scaled by its largest absolute weight.

    They are images `(units, 32, 32, 3)` from 0 to 1, in which 0.5 is a weight of 0.
    """
    order = np.argsort(-np.linalg.norm(W, axis=0), kind="stable")[:SHOWN]
    columns = W.T[order].astype(np.float64)
    largest = np.abs(columns).max(axis=1, keepdims=True)
    columns = 0.5 + columns / np.where(largest == 0, 1, largest) / 2
    return columns.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)


@own_settings()
def draw_weights(run: Run, W: np.ndarray, suffix: str = "png") -> bytes:
    """Draw the weights `W (3072, h)` of a run in a grid; return a picture file."""
    images, units = weight_images(W), W.shape[1]
    n = len(images)
    columns = min(10, max(4, math.ceil(math.sqrt(n))))
    rows = math.ceil(n / columns)
    # One large image: a hundred panels would take seconds.
    cell = SIDE + 2 * GAP
    grid = np.ones((rows * columns, cell, cell, CHANNELS))
    grid[:n, GAP:-GAP, GAP:-GAP] = images
    mosaic = grid.reshape(rows, columns, cell, cell, CHANNELS).transpose(0, 2, 1, 3, 4)
    which = f"the {SHOWN} longest of {units} units" if units > SHOWN else f"{units} units"
    caption = f"{settings_line(run)}; {which}, by descending norm, each scaled by its largest weight, grey is 0"
    title = f"First-layer weights, run {run.id}: {network_name(run.config)}{subset_words([run])}"
    figure = new_figure(8, 0.9 + 7.8 * rows / columns, title, caption)
    axes = figure.subplots()
    axes.imshow(mosaic.reshape(rows * cell, columns * cell, CHANNELS), interpolation="nearest")
    axes.axis("off")
    return to_bytes(figure, suffix)
