"""Pictures of several runs, of weights and of confusion: the gathered values, by hand."""

import re
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from records import MEASURES, epoch, lines_of, run

from klcli.evaluation.metrics import confusion
from klcli.report.plots.chart import OF_BN, Look
from klcli.report.plots.curves import bn_overlay, bn_pair, bn_pairs, overlay, training_curves
from klcli.report.plots.figure import Chart, draw
from klcli.report.plots.networks import draw_confusion, draw_weights, weight_images
from klcli.report.words import settings_line
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Epoch, Run


def trained(number: int, seed: int = 0, dataset_sha256: str = "a" * 64, **settings: Any) -> Run:
    config = TrainConfig(seed=seed, step_size=100, **settings)
    return run(number, config, dataset_sha256=dataset_sha256)


def epochs(**by_step: float) -> list[Epoch]:
    """`s200=0.5`: an evaluation after 200 updates, whose measures are 0.5 for validation and 1.5 for training."""
    return [
        epoch(int(step[1:]), **{name: value + name.startswith("train") for name in MEASURES})
        for step, value in by_step.items()
    ]


def labels_of(chart: Chart) -> list[str | None]:
    [[first, *_]] = chart.panels
    return [line.label for line in first.lines]


def test_repeats_are_one_curve_with_a_band_over_their_common_steps() -> None:
    runs = [trained(1, seed=1), trained(2, seed=2), trained(3, lam=0.1)]
    runs += [replace(trained(4, seed=9), state="interrupted")]  # without any evaluation
    measured = {1: epochs(s100=0.2, s200=0.4), 2: epochs(s100=0.4, s200=0.8, s300=1.0), 3: epochs(s100=0.5), 4: []}
    chart = overlay(runs, measured)
    assert labels_of(chart) == ["runs 1-2: lambda 0.005", "run 3: lambda 0.1"]
    first = lines_of(chart)["loss", "runs 1-2: lambda 0.005"]
    assert first.x == [100, 200]
    assert first.y == pytest.approx([0.3, 0.6])
    assert first.spread == pytest.approx([0.02**0.5, 0.08**0.5])  # of two values, |a - b| / sqrt 2
    second = lines_of(chart)["cost", "run 3: lambda 0.1"]
    assert (second.y, second.spread) == ([0.5], [])
    for words in ("cifar10", "45000 images train", "without run 4, interrupted", "one standard"):
        assert words in chart.caption
    assert {panel.cycle for panel in chart.panels[0]} == {200}
    assert draw(chart).startswith(b"\x89PNG")
    unfinished = replace(trained(5, seed=5), state="interrupted")
    chart = overlay([*runs, unfinished], measured | {5: epochs(s100=9.0)})
    assert lines_of(chart)["loss", "runs 1-2: lambda 0.005"].y == first.y  # not cut at 100 updates
    assert chart.caption.endswith("; without runs 4-5, interrupted")
    assert "not complete" not in chart.caption
    lost = [replace(one, state="diverged") for one in runs[:2]]
    assert "; not complete: runs 1-2 (diverged)" in overlay([*lost, *runs[2:]], measured).caption


def test_a_training_that_was_stored_twice_is_one_of_the_mean() -> None:
    runs = [replace(trained(1, seed=1), state="interrupted"), trained(2, seed=1), trained(3, seed=2)]
    runs += [trained(4, seed=1, order_seed=1), trained(5, seed=2)]
    values = {1: 9.0, 2: 0.2, 3: 0.4, 4: 0.2, 5: 0.4}
    chart = overlay(runs, {number: epochs(s100=value) for number, value in values.items()})
    [line] = chart.panels[0][1].lines
    assert str(line.label).startswith("runs 2-3: ")
    assert (line.y, line.spread) == (pytest.approx([0.3]), pytest.approx([0.02**0.5]))
    for words in ("run 1, interrupted", "runs 4-5, with settings and seeds of others"):
        assert words in chart.caption
    searched = replace(trained(6, seed=1), test_accuracy=None)  # a lambda search evaluates on no test images
    tested = replace(trained(7, seed=1), test_accuracy=0.5)
    for runs in ([searched, tested], [tested, searched]):
        assert "without run 6, with settings" in overlay(runs, {6: epochs(s100=0.2), 7: epochs(s100=0.2)}).caption


def test_runs_with_a_quirk_are_not_pooled_with_those_without() -> None:
    quirk = "random biases"
    runs = [trained(1, seed=1), trained(2, seed=2)]
    runs += [replace(trained(number, seed=number - 2), method=quirk) for number in (3, 4)]
    measured = {one.id: epochs(s100=one.id / 10) for one in runs}
    chart = overlay(runs, measured)
    assert labels_of(chart) == ["runs 1-2: as configured", f"runs 3-4: {quirk}"]
    assert [line.y for line in chart.panels[0][1].lines] == [pytest.approx([0.15]), pytest.approx([0.35])]
    assert quirk not in chart.caption
    assert quirk in overlay(runs[2:], measured).caption
    assert quirk in training_curves(runs[2:3], measured).caption


def test_a_caption_has_what_affects_one_of_its_runs_and_names_those_with_a_quirk() -> None:
    pair = trained(1, bn_momentum=0.8), replace(trained(2, batch_norm=True, bn_momentum=0.8), method="random biases")
    caption = bn_overlay(pair[:1], pair[1:], {1: epochs(s100=0.5), 2: epochs(s100=0.5)}).caption
    assert "BN momentum 0.8" in caption
    line = settings_line(pair[0], together_with=pair)
    assert "BN momentum 0.8, random biases in run 2, he" in line
    assert "BN momentum" not in settings_line(pair[0])


def test_without_and_with_bn_are_compared_with_the_same_quirk() -> None:
    plain = trained(1), trained(2, batch_norm=True)
    quirky = [replace(one, id=one.id + 2, method="random biases") for one in plain]
    pairs = bn_pairs([*plain, *quirky])
    assert [(a[0].id, b[0].id) for a, b in pairs] == [(1, 2), (3, 4)]
    mixed = bn_pairs([plain[0], quirky[1]])
    assert [(a[0].id, b[0].id) for a, b in mixed] == [(1, 4)]  # the report has the quirk with BN alone
    nearly = replace(plain[1], id=5, config_json=trained(5, batch_norm=True, lam=0.1).config_json)
    assert bn_pair([plain[0], quirky[1], nearly]) == (plain[0], nearly)
    chart = bn_overlay([plain[0]], [quirky[1]], {1: epochs(s100=0.5), 4: epochs(s100=0.5)})
    assert "also different: as configured without BN and random biases with it" in chart.caption


def test_short_labels_still_tell_the_settings_apart() -> None:
    names = {"bn_position": "after", "optimizer": "adam", "momentum": 0.0}
    runs = [trained(i, hidden=(20,) * 8, lam=i / 100, eta_max=i / 9, flip=i > 3, **names) for i in range(1, 9)]
    chart = overlay(runs, {run.id: epochs(s100=0.2) for run in runs})
    labels = [str(line.label).partition(": ")[2] for line in chart.panels[0][0].lines]
    assert len({*labels}) == len(labels) == 8


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ([{"batch_norm": True}, {"batch_norm": True, "bn_eps": 1e-5}], ["BN eps 1e-08", "BN eps 1e-05"]),
        ([{}, {"evaluations_per_cycle": 4}], ["without evaluations per cycle", "evaluations per cycle 4"]),
        ([{}, {"flip": True, "momentum": 0.9}], ["momentum 0, not flips", "momentum 0.9, flips"]),
        ([{}, {"optimizer": "adam"}], ["optimizer sgd", "optimizer adam"]),
        (
            [{"initializer": "normal", "sigma": 0.01}, {}, {"hidden": (30,)}],
            ["3-layer 50-50, init normal, sigma 0.01", "3-layer 50-50, init he", "2-layer 30, init he"],
        ),
        ([{"batch_norm": True}, {}], ["3-layer 50-50 with BN", "3-layer 50-50"]),
        ([{}, {"bn_position": "after"}], ["3-layer 50-50", "3-layer 50-50"]),  # there is no BN
        (
            [{"batch_norm": True}, {"batch_norm": True, "bn_position": "after"}],
            ["3-layer 50-50 with BN", "3-layer 50-50 with BN after ReLU"],
        ),
        (
            [{}, {"split": SplitConfig(subset=900)}],
            [
                "cifar10, 45000 images train, 5000 validate",
                "cifar10, 900 images train, 100 validate, 200 test (subset of 900)",
            ],
        ),
    ],
)
def test_a_label_names_what_differs(settings: list[dict[str, Any]], labels: list[str]) -> None:
    runs = [trained(number, **own) for number, own in enumerate(settings)]
    chart = overlay(runs, {one.id: epochs(s100=0.5) for one in runs})
    assert labels_of(chart) == [f"run {number}: {label}" for number, label in enumerate(labels)]


def test_curves_on_other_images_of_one_name_are_told_apart_by_their_runs() -> None:
    runs = [trained(1), trained(2, dataset_sha256="b" * 64)]
    chart = overlay(runs, {1: epochs(s100=0.5), 2: epochs(s100=0.5)})
    assert labels_of(chart) == ["run 1: 3-layer 50-50", "run 2: 3-layer 50-50"]


def test_the_caption_has_what_all_curves_share() -> None:
    runs = [trained(1, momentum=0.9), trained(2, momentum=0.9, weight_decay=0.01)]
    caption = overlay(runs, {1: epochs(s100=0.5), 2: epochs(s100=0.5)}).caption
    assert "momentum 0.9" in caption
    assert "weight decay" not in caption


def test_the_caption_names_the_images_of_repeats_with_a_split_each() -> None:
    def repeats(first: int, seeds: tuple[int | None, ...], **settings: Any) -> list[Run]:
        return [trained(first + n, n, split=SplitConfig(split_seed=seed), **settings) for n, seed in enumerate(seeds)]

    plain, with_bn = repeats(1, (0, 1, 2)), repeats(4, (0, 1, 2), batch_norm=True)
    measured = {number: epochs(s100=0.5) for number in range(1, 13)}
    words = "cifar10, 45000 images train, 5000 validate (drawn with split seeds 0 to 2)"
    assert words in overlay([*plain, *with_bn], measured).caption
    assert words in bn_overlay(plain, with_bn, measured).caption
    official = repeats(7, (None, None, None), lam=0.1)  # on the last images: no curve shares their words
    assert "validate" not in overlay([*plain, *official], measured).caption
    fewer = [trained(n, n, split=SplitConfig(validation=1000, split_seed=n - 10)) for n in (10, 11, 12)]
    assert "validate" not in overlay([*plain, *fewer], measured).caption


def test_nothing_at_all_can_be_drawn() -> None:
    assert draw(overlay([trained(1), trained(2)], {1: [], 2: []})).startswith(b"\x89PNG")


def test_the_overlay_of_bn_has_four_lines() -> None:
    chart = bn_overlay([trained(1)], [trained(2, batch_norm=True)], {1: epochs(s100=0.25), 2: epochs(s100=0.75)})
    assert {label: line.y for (panel, label), line in lines_of(chart).items() if panel == "accuracy"} == {
        "train, without BN (run 1)": [1.25],
        "validation, without BN (run 1)": [0.25],
        "train, with BN (run 2)": [1.75],
        "validation, with BN (run 2)": [0.75],
    }
    legend = draw(chart, "svg").decode()
    assert all(f"<!-- {label} -->" in legend for _, label in lines_of(chart))  # each on one line: all fit into a row
    assert "different" not in chart.caption


def places_in_the_legend(chart: Chart, labels: list[str]) -> list[tuple[float, float]]:
    """Return where the labels are in the picture, from the comment and the transform that matplotlib writes."""
    found = draw(chart, "svg").decode()
    return [
        (float(x), float(y))
        for label in labels
        for x, y in re.findall(rf"<!-- {re.escape(label)} -->\s*<g [^>]*translate\(([\d.]+) ([\d.]+)\)", found)
    ]


def test_a_legend_of_two_lines_has_a_column_without_bn_and_one_with_it() -> None:
    plain, bn = ([trained(100 * k + n, seed=n, batch_norm=k > 1) for n in range(3)] for k in (1, 2))
    chart = bn_overlay(plain, bn, {one.id: epochs(s100=0.25) for one in (*plain, *bn)})
    labels = labels_of(chart)
    places = places_in_the_legend(chart, labels)
    assert len(places) == 4
    assert len({x for x, _ in places}) == len({y for _, y in places}) == 2


def test_the_caption_of_an_unlike_pair_says_in_what_it_differs() -> None:
    pair = [trained(1, seed=1)], [trained(2, seed=2, batch_norm=True, lam=0.1, momentum=0.9)]
    caption = bn_overlay(*pair, {1: epochs(s100=0.25), 2: epochs(s100=0.75)}).caption
    words = "also different: lambda 0.005 without BN and 0.1 with it, momentum 0 without BN and 0.9 with it"
    assert words in caption
    assert "lambda" not in caption.partition("; also different")[0]
    assert "seeds 1, 2" in caption
    pair = [trained(1)], [trained(2, batch_norm=True, activation="silu", bn_position="after", bn_statistics="batch")]
    also = bn_overlay(*pair, {1: epochs(s100=0.25), 2: epochs(s100=0.75)}).caption.partition("; also different: ")[2]
    assert also == "activation relu without BN and silu with it"  # where and how BN works is in the label of its curves
    pair = [trained(1, hidden=(50, 30))], [trained(2, batch_norm=True)]
    caption = bn_overlay(*pair, {1: epochs(s100=0.25), 2: epochs(s100=0.75)}).caption
    assert caption.endswith("; also different: hidden 50 30 without BN and 50 50 with it")


def test_a_pair_is_alike_in_all_but_bn() -> None:
    without, other, alike = trained(1), trained(2, batch_norm=True, lam=0.1), trained(3, batch_norm=True)
    assert bn_pair([other, without, alike]) == (without, alike)
    assert bn_pair([trained(6, batch_norm=True, lam=0.1, momentum=0.9), other, without]) == (without, other)
    assert bn_pair([without, trained(4, batch_norm=True, hidden=(7,))]) is None
    assert bn_pair([without, trained(5, batch_norm=True, dataset_sha256="b" * 64)]) is None


def test_repeats_without_and_with_bn_are_means_with_a_band() -> None:
    both = [trained(1), trained(2, seed=1)], [trained(3, batch_norm=True), trained(4, seed=1, batch_norm=True)]
    measured = {number: epochs(s100=number / 10, s200=number / 5) for number in (1, 2, 3, 4)}
    chart = bn_overlay(*both, measured)
    line = lines_of(chart)["loss", "validation, with BN (runs 3-4)"]
    assert line.y == pytest.approx([0.35, 0.7])
    assert line.spread == pytest.approx([0.1 / 2**0.5, 0.2 / 2**0.5])
    assert lines_of(chart)["loss", "train, without BN (runs 1-2)"].y == pytest.approx([1.15, 1.3])
    assert "; the band is one standard deviation over seeds" in chart.caption
    assert {line.colour for line in chart.panels[0][0].lines[2:]} == {OF_BN[True]}


def test_pairs_of_a_study_are_alike_in_all_but_bn_and_seed() -> None:
    runs = [
        trained(number, seed=seed, batch_norm=bn, lam=lam)
        for number, (lam, bn, seed) in enumerate(
            [(0.1, False, 0), (0.2, False, 0), (0.1, True, 0), (0.3, True, 0), (0.1, False, 1), (0.1, True, 1)]
        )
    ]
    [(without, with_bn)] = bn_pairs(runs)
    assert ([run.id for run in without], [run.id for run in with_bn]) == ([0, 4], [2, 5])
    [(plain, with_bn)] = bn_pairs([replace(runs[0], state="diverged"), *runs[1:]])
    again = replace(runs[4], id=6)  # with the same seed
    for own, left in ((plain, "run 0, diverged"), ([*plain, again], "run 0, diverged, run 6, with settings and")):
        chart = bn_overlay(own, with_bn, {run.id: epochs(s100=run.id / 10) for run in (*own, *with_bn)})
        assert lines_of(chart)["loss", "validation, without BN (run 4)"].y == pytest.approx([0.4])
        assert f"; without {left}" in chart.caption


def test_the_training_overlay_has_a_colour_for_each_setting_and_a_style_for_each_split() -> None:
    runs = [trained(1), trained(2, seed=3), trained(3, lam=0.1)]
    chart = overlay(runs, {run.id: epochs(s100=0.5) for run in runs}, ("train", "validation"))
    settings = ("runs 1-2: lambda 0.005", "run 3: lambda 0.1")
    assert labels_of(chart) == [f"{split}, {one}" for one in settings for split in ("train", "validation")]
    lines = chart.panels[0][0].lines
    assert [line.style for line in lines] == ["-", "--"] * 2
    assert len({line.colour for line in lines}) == 2
    assert [list(line.y) for line in lines] == [[1.5], [0.5]] * 2


def test_weights_lie_as_the_pixels_of_an_image_do() -> None:
    W = np.zeros((3072, 3), np.float32)
    W[0, 1] = 2.0  # red, first row, first column
    W[1024 + 32 * 5 + 7, 1] = -2.0  # green, row 5, column 7
    W[3071, 2] = 1.0  # blue, last row, last column
    images = weight_images(W)
    assert images.shape == (3, 32, 32, 3)
    assert images[0][0, 0].tolist() == [1.0, 0.5, 0.5]  # the longest column of W first
    assert images[0][5, 7].tolist() == [0.5, 0.0, 0.5]
    assert images[1][31, 31].tolist() == [0.5, 0.5, 1.0]
    assert (images[2] == 0.5).all()
    assert draw_weights(trained(1), W).startswith(b"\x89PNG")


def test_the_most_confused_pairs_have_their_names() -> None:
    labels = np.array([3, 3, 3, 5, 9, 0])
    predicted = np.array([5, 5, 3, 3, 1, 0])
    classes, counts = [f"class {i}" for i in range(10)], confusion(labels, predicted)
    content = draw_confusion(trained(1), counts, classes, "svg").decode()
    texts = re.findall(r"<!-- (.*?) -->", content, re.DOTALL)  # each text of an SVG is drawn as paths, named before
    assert "6 test images, accuracy 0.3333; grey: no image of the class" in " ".join(texts)
    whole = draw_confusion(trained(1), counts + np.eye(10, dtype=int), classes, "svg").decode()
    assert "grey" not in whole
    assert texts.index("class 1 and class 9") < texts.index("class 3 and class 5")  # from below: the most often on top
    assert texts[texts.index("most confused pairs") - 2 :][:2] == ["1", "3"]
    assert texts.count("0") == 3 * 9 + 8  # in the rows of classes 0, 5, 9 and 3; the others have no image and no share
    assert draw_confusion(trained(1), counts, classes, "pdf").startswith(b"%PDF")
    narrow = imread(BytesIO(draw_confusion(trained(1), counts, classes, "png", Look(8))))
    assert narrow[:, [0, -1], :3].min() == 1  # no title or label is cut off at an edge
