"""Pictures of several runs, of weights and of confusion: what is gathered, by hand."""

import json
from typing import Any

import numpy as np
import pytest

from klcli.evaluation.confusion import confusion
from klcli.report.plots.comparison import (
    bn_overlay,
    bn_pair,
    draw_bn_overlay,
    draw_validation_overlay,
    validation_overlay,
)
from klcli.report.plots.confusion import confusion_picture, draw_confusion
from klcli.report.plots.weights import draw_weights, weight_images

SPLIT = '{"validation": 5000, "train_batches": [], "validation_batches": [], "subset": null}'


def run(number: int, seed: int = 0, **values: Any) -> dict[str, Any]:
    row = {
        "id": number, "hidden": "50 50", "batch_norm": 0, "bn_position": None, "lambda": 0.005, "initializer": "he",
        "sigma": None, "seed": seed, "dataset": "cifar10", "dataset_sha256": "a" * 64, "split": SPLIT,
        "dtype": "float32", "schedule": "cyclical", "eta_min": 1e-5, "eta_max": 0.1, "step_size": 100, "cycles": 2.0,
        "batch_size": 100,
    } | values  # fmt: skip
    settings = {key: row[key] for key in ("hidden", "batch_norm", "lambda", "seed", "step_size")}
    return row | {"config": json.dumps(settings | {"order_seed": None})}


def epochs(**by_step: float) -> list[dict[str, Any]]:
    """`s200=0.5`: an evaluation after 200 updates, whose measures are 0.5 for validation and 1.5 for training."""
    return [
        {"step": int(step[1:])}
        | {f"validation_{name}": value for name in ("cost", "loss", "accuracy")}
        | {f"train_{name}": value + 1 for name in ("cost", "loss", "accuracy")}
        for step, value in by_step.items()
    ]


def test_repeats_are_one_curve_with_a_band_over_their_common_steps() -> None:
    runs = [run(1, seed=1), run(2, seed=2), run(3, **{"lambda": 0.1}), run(4, seed=9)]
    measured = {1: epochs(s100=0.2, s200=0.4), 2: epochs(s100=0.4, s200=0.8, s300=1.0), 3: epochs(s100=0.5), 4: []}
    overlay = validation_overlay(runs, measured)
    first, second = overlay.curves
    assert (first.n, first.steps) == (2, [100, 200])
    assert first.mean["loss"] == pytest.approx([0.3, 0.6])
    assert first.std["loss"] == pytest.approx([0.02**0.5, 0.08**0.5])  # of two values, |a - b| / sqrt 2
    assert (second.n, second.mean["cost"], second.std["cost"]) == (1, [0.5], [0.0])
    assert (first.label, second.label) == ("lambda 0.005", "lambda 0.1")
    for words in ("cifar10", "45000 images train", "runs 1, 2, 3", "without any evaluation: run 4", "one standard"):
        assert words in overlay.caption
    assert overlay.cycle == 200
    assert draw_validation_overlay(overlay).startswith(b"\x89PNG")


def test_nothing_at_all_can_be_drawn() -> None:
    assert draw_validation_overlay(validation_overlay([run(1), run(2)], {1: [], 2: []})).startswith(b"\x89PNG")


def test_the_overlay_of_bn_has_four_lines() -> None:
    overlay = bn_overlay(run(1), run(2, batch_norm=1), {1: epochs(s100=0.25), 2: epochs(s100=0.75)})
    assert {curve.label: curve.mean["accuracy"] for curve in overlay.curves} == {
        "train, without BN": [1.25],
        "validation, without BN": [0.25],
        "train, with BN": [1.75],
        "validation, with BN": [0.75],
    }
    assert b"<svg" in draw_bn_overlay(overlay, "svg")


def test_a_pair_is_alike_in_all_but_bn() -> None:
    without, other, alike = run(1), run(2, batch_norm=1, **{"lambda": 0.1}), run(3, batch_norm=1)
    assert bn_pair([other, without, alike]) == (without, alike)
    assert bn_pair([without, run(4, batch_norm=1, hidden="7")]) is None
    assert bn_pair([without, run(5, batch_norm=1, dataset_sha256="b" * 64)]) is None


def test_weights_lie_as_the_pixels_of_an_image_do() -> None:
    W = np.zeros((3072, 3), np.float32)
    W[0, 1] = 2.0  # red, first row, first column
    W[1024 + 32 * 5 + 7, 1] = -2.0  # green, row 5, column 7
    W[3071, 2] = 1.0  # blue, last row, last column
    images = weight_images(run(1), W).images
    assert images.shape == (3, 32, 32, 3)
    assert images[0][0, 0].tolist() == [1.0, 0.5, 0.5]  # the longest column of W first
    assert images[0][5, 7].tolist() == [0.5, 0.0, 0.5]
    assert images[1][31, 31].tolist() == [0.5, 0.5, 1.0]
    assert (images[2] == 0.5).all()
    assert draw_weights(weight_images(run(1), W)).startswith(b"\x89PNG")


def test_the_most_confused_pairs_have_their_names() -> None:
    labels = np.array([3, 3, 3, 5, 9, 0])
    predicted = np.array([5, 5, 3, 3, 1, 0])
    picture = confusion_picture(run(1), confusion(labels, predicted), [f"class {i}" for i in range(10)])
    assert picture.pairs == [("class 3 and class 5", 3), ("class 1 and class 9", 1)]
    assert "6 test images, accuracy 0.3333" in picture.caption
    assert draw_confusion(picture, "pdf").startswith(b"%PDF")
