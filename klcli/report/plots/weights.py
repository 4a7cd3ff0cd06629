"""The first layer's weights as images."""

import math
from dataclasses import dataclass

import numpy as np

from klcli.report.plots.figure import new_figure, to_bytes
from klcli.report.words import network_name, settings_line
from klcli.store.records import Run

SIDE, CHANNELS = 32, 3  # of an image
SHOWN = 100  # units
GAP = 2  # pixels around each image


@dataclass(frozen=True)
class WeightImages:
    """One image per unit of the first layer."""

    title: str
    caption: str
    images: np.ndarray  # (units, 32, 32, 3), from 0 to 1; 0.5 is a weight of 0


def weight_images(run: Run, W: np.ndarray) -> WeightImages:
    """Gather the columns of `W (3072, h)`, the longest first, each scaled by its own largest weight."""
    order = np.argsort(-np.linalg.norm(W, axis=0), kind="stable")[:SHOWN]
    columns = W.T[order].astype(np.float64)
    largest = np.abs(columns).max(axis=1, keepdims=True)
    columns = 0.5 + columns / np.where(largest == 0, 1, largest) / 2
    images = columns.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)
    which = f"the {SHOWN} longest of {W.shape[1]} units" if W.shape[1] > SHOWN else f"{W.shape[1]} units"
    return WeightImages(
        title=f"First-layer weights, run {run.id}: {network_name(run.config)}",
        caption=f"{settings_line(run)}; {which}, the longest first, each by its own largest weight, grey is 0",
        images=images,
    )


def draw_weights(weights: WeightImages, suffix: str = "png") -> bytes:
    """Draw the images in a grid; return a picture file."""
    n = len(weights.images)
    columns = min(10, max(4, math.ceil(math.sqrt(n))))
    rows = math.ceil(n / columns)
    # One large image: a hundred panels would take seconds.
    cell = SIDE + 2 * GAP
    grid = np.ones((rows * columns, cell, cell, CHANNELS))
    grid[:n, GAP:-GAP, GAP:-GAP] = weights.images
    mosaic = grid.reshape(rows, columns, cell, cell, CHANNELS).transpose(0, 2, 1, 3, 4)
    figure = new_figure(8, 0.9 + 7.8 * rows / columns, weights.title, weights.caption)
    axes = figure.subplots()
    axes.imshow(mosaic.reshape(rows * cell, columns * cell, CHANNELS), interpolation="nearest")
    axes.axis("off")
    return to_bytes(figure, suffix)
