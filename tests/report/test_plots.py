"""Plots: the gathered values are correct, and every chart can be drawn."""

import math
import re
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from records import MEASURES, epoch, lines_of, points, run, size_of_png
from thinning import mostly_slow

from klcli.report.plots.chart import GREY, Line, Look, Panel, later_scale
from klcli.report.plots.curves import learning_rate_curve, overlay, training_curves
from klcli.report.plots.figure import MOST_ENDS, Chart, _draw, draw
from klcli.report.words import settings_line
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Epoch, Run

N_S = 100
MEASURED = ("cost", "loss", "accuracy")


def trained(test_accuracy: float | None = 0.5123, **settings: Any) -> Run:
    """A run with BN of 2 cycles, n_s 100, trained for 20 epochs."""
    usual = {"batch_norm": True, "lam": 0.003, "seed": 7, "batch_size": 64, "step_size": N_S}
    config = TrainConfig(**usual | settings)
    return run(12, config, dataset="synthetic", cycles=2.0, epochs=20.0, test_accuracy=test_accuracy)


def epochs(*steps: int) -> list[Epoch]:
    """Evaluations whose six numbers all differ, so that no curve can stand in for another."""
    return [
        epoch(step, learning_rate=0.02, **{name: i + step / 1000 for i, name in enumerate(MEASURES)}) for step in steps
    ]


def curves_of(run: Run, measured: list[Epoch], splits: tuple[str, ...] = ()) -> Chart:
    """The picture of one run."""
    return training_curves([run], {run.id: measured}, splits)


def test_every_curve_is_gathered_under_its_own_name() -> None:
    lines = lines_of(curves_of(trained(), epochs(50, 100)))
    curves = {key: list(line.y) for key, line in lines.items() if key[1] in ("train", "validation")}
    assert curves == {
        ("cost", "train"): [0.05, 0.1], ("loss", "train"): [1.05, 1.1], ("accuracy", "train"): [2.05, 2.1],
        ("cost", "validation"): [3.05, 3.1], ("loss", "validation"): [4.05, 4.1],
        ("accuracy", "validation"): [5.05, 5.1],
    }  # fmt: skip
    assert all(lines[key].x == [50, 100] for key in curves)
    assert set(lines["accuracy", "test 0.5123"].y) == {0.5123}


def test_repeats_are_their_mean_with_a_band() -> None:
    runs = [replace(trained(seed=seed, test_accuracy=0.5 + seed / 10), id=seed) for seed in (1, 2)]
    measured = {1: epochs(50, 100), 2: [epoch(100, train_loss=3.1, learning_rate=0.02), epoch(150)]}
    chart = training_curves(runs, measured)
    line = lines_of(chart)["loss", "train"]
    assert points(line) == [(100, pytest.approx((1.1 + 3.1) / 2))]  # the step at which both were evaluated
    assert line.spread == [pytest.approx(2 / 2**0.5)]
    assert lines_of(chart)["accuracy", "test 0.6500"].y == pytest.approx((0.65, 0.65))
    assert chart.title == "3-layer 50-50 with BN, mean of 2 runs"
    assert chart.caption.endswith("seeds 1, 2; runs 1-2; the band is one standard deviation over seeds")
    assert draw(training_curves(runs, {1: [], 2: []})).startswith(b"\x89PNG")
    assert curves_of(replace(runs[0], state="diverged"), epochs(50)).caption.endswith(
        "; not complete: run 1 (diverged)"
    )
    both = training_curves([replace(one, state="diverged") for one in runs], measured)
    assert both.caption.endswith("; not complete: runs 1-2 (diverged)")
    lost = [*runs, replace(runs[0], id=3, state="diverged"), replace(runs[0], id=4, state="interrupted")]
    chart = training_curves(lost, measured | {3: epochs(50), 4: []})
    assert points(lines_of(chart)["loss", "train"]) == points(line)
    assert chart.caption.endswith(
        "runs 1-2; the band is one standard deviation over seeds; without run 3, diverged, run 4, interrupted"
    )


def test_a_long_title_is_broken_into_lines_that_fit() -> None:
    title = "000-F9a to 000-F10c: sigma, 9 layers [SYNTHETIC IMAGES, no CIFAR-10] [SUBSET of 1000 training images]"
    chart = replace(curves_of(trained(), epochs(50)), title=title)
    content = draw(chart, "svg").decode()
    texts = re.findall(r"<!-- (.*?) -->", content, re.DOTALL)
    lines = texts[next(index for index, text in enumerate(texts) if "000-F9a" in text) :][:2]  # one for each line
    assert [line.replace("\xa0", " ") for line in lines] == [title[:36], title[37:]]  # no mark in brackets is broken
    assert max(map(len, lines)) <= 8.2 * chart.width


def test_a_high_value_at_update_0_is_marked_and_the_axis_shows_the_others() -> None:
    high = Line("a", [0, 10, 20, 30, 40, 50], [31.0, 3.0, 2.5, 2.0, 1.5, 1.0], "black")
    low = Line("b", [0, 10, 20, 30, 40, 50], [2.3, 2.2, 2.0, 1.8, 1.6, 1.4], "black")
    # 1 to 3, a twentieth below, and room for words above
    assert later_scale([high, low]) == (pytest.approx((0.9, 3.3)), "linear")
    assert later_scale([replace(high, y=[5.0, *high.y[1:]])])[0] is None  # the others have half of the axis
    assert later_scale([replace(high, x=high.x[:3], y=high.y[:3])])[0] is None  # three evaluations
    assert later_scale([low]) == later_scale([]) == (None, "linear")
    assert later_scale([replace(high, y=[31.0, 3.0, 30.0, 1e5, 1e9, 1e14]), low]) == (None, "log")  # it diverged
    assert later_scale([replace(high, y=[40.0, 35.0, 30.0, 25.0, 20.0, 15.0])]) == (None, "linear")
    measured = [epoch(step, learning_rate=0.1, train_cost=40.0 if step == 0 else 2 - step / 100) for step in high.x]
    texts = re.findall(r"<!-- (.*?) -->", draw(curves_of(trained(), measured), "svg").decode())
    assert texts.count("40 at update 0") == 1
    both = [trained(), replace(trained(lam=0.5), id=13, state="interrupted")]  # the second one in its first epoch
    costs = {12: [replace(one, validation_cost=one.train_cost) for one in measured]}
    chart = overlay(both, costs | {13: [epoch(0, validation_cost=41.0)]})
    assert "40 to 41 at update 0" in draw(chart, "svg").decode()


def test_a_line_from_above_the_axis_enters_it_where_it_crosses_its_top() -> None:
    line = Line("a", [0, 10, 20], [31.0, 3.0, 2.0], "black", dots_below=9)
    alone = Line("b", [0], [9.0], "black")  # a run that was interrupted in its first epoch
    axes = Figure().subplots()
    _draw(axes, Panel([line, alone], from_zero=True, ylim=(1.0, 3.3)))
    mark, entering, other, _ = axes.lines
    crossing = 10 - 0.3 * 10 / 28, 3.3
    for drawn, points_of_it in ((entering, [crossing, (10, 3), (20, 2)]), (mark, [crossing]), (other, [(0, 3.3)])):
        assert drawn.get_xydata() == pytest.approx(np.array(points_of_it))
    assert (entering.get_label(), entering.get_markevery(), mark.get_marker()) == ("a", slice(1, None), "^")
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 20), (1.0, 3.3))


def test_the_ends_of_very_many_cycles_are_not_marked() -> None:
    """Thousands of lines took seconds to draw, and were a grey area."""
    for cycle, marked in ((1000 // MOST_ENDS + 1, 1000 // (1000 // MOST_ENDS + 1)), (1000 // MOST_ENDS, 0), (2, 0)):
        axes = Figure().subplots()
        _draw(axes, Panel([Line("a", [0, 1000], [1.0, 2.0], GREY)], cycle=cycle))
        assert len(axes.lines) == 1 + marked


@pytest.mark.parametrize("width", mostly_slow([8, None], 2))
def test_no_curve_runs_through_the_words_about_update_0(monkeypatch: pytest.MonkeyPatch, width: float | None) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr("klcli.report.plots.figure.Figure", lambda **own: figures.append(Figure(**own)) or figures[-1])
    steps = [10.0 * n for n in range(11)]
    measured = [epoch(int(step), train_cost=[1.1, 2.0][step > 70]) for step in steps]
    draw(curves_of(trained(), [replace(measured[0], train_cost=40.0), *measured[1:]]), look=Look(width=width))
    [figure] = figures
    figure.draw_without_rendering()  # with the dots per inch of the figure, not those of the file
    axes = figure.axes[0]
    [words] = [text for text in axes.texts if "at update 0" in text.get_text()]
    box = words.get_window_extent()
    paths = [line.get_path().transformed(line.get_transform()) for line in axes.lines]
    assert not any(path.intersects_bbox(box, filled=False) for path in paths)


@pytest.mark.slow
def test_no_line_of_a_caption_ends_between_a_name_and_its_number_and_no_marker_is_cut() -> None:
    caption = ", ".join(f"setting {10**power}" for power in range(12)) + ", "
    content = draw(replace(curves_of(trained(), epochs(50, 100)), caption=caption * 4), "svg").decode()
    lines = [line for line in re.findall(r"<!-- (.*?) -->", content, re.DOTALL) if "," in line]
    assert len(lines) > 3 and all(line.startswith("setting 1") for line in lines)
    assert not re.search(r'<g clip-path="[^"]*">\s*<use', content)  # a marker on the edge would be half as large


def test_title_and_caption_say_what_was_trained_and_on_what() -> None:
    curves = curves_of(trained(initializer="normal", sigma=1e-4), epochs(50))
    assert curves.title == "Run 12: 3-layer 50-50 with BN"
    for part in ("synthetic", "lambda 0.003", "1e-05", "0.1", "n_s 100", "64", "sigma 0.0001", "seed 7"):
        assert part in curves.caption


def rate(chart: Chart) -> tuple[list[tuple[float, float]], int]:
    """The corners of eta over steps and the updates of a cycle."""
    panel = chart.panels[-1][-1]
    assert {one.cycle for row in chart.panels for one in row} == {panel.cycle}
    [line] = panel.lines
    return points(line), panel.cycle


@pytest.mark.parametrize(
    ("last_step", "corners"),
    [
        (400, [(0, 1e-5), (100, 0.1), (200, 1e-5), (300, 0.1), (400, 1e-5)]),
        (200, [(0, 1e-5), (100, 0.1), (200, 1e-5)]),
        (250, [(0, 1e-5), (100, 0.1), (200, 1e-5), (250, 0.02)]),  # ends on a ramp, at the rate of its last update
        (30, [(0, 1e-5), (30, 0.02)]),
    ],
)
def test_the_corners_of_the_cyclical_learning_rate(last_step: int, corners: list[tuple[float, float]]) -> None:
    assert rate(curves_of(trained(), epochs(last_step // 2, last_step))) == (corners, 2 * N_S)
    assert rate(learning_rate_curve(trained(), epochs(last_step // 2, last_step))) == (corners, 2 * N_S)


def test_the_corners_of_cycles_that_decay() -> None:
    corners, _ = rate(curves_of(trained(eta_decay=0.5), epochs(200, 400)))
    assert corners == [(0, 1e-5), (100, 0.1), (200, 1e-5), (300, pytest.approx(0.05)), (400, 1e-5)]


def test_a_cosine_falls_to_the_bottom_and_jumps_up_again() -> None:
    corners, cycle = rate(curves_of(trained(schedule="cosine"), epochs(250)))
    assert corners[0] == (0, 0.1)
    assert [eta for step, eta in corners if step == 200] == [1e-5, 0.1]
    assert corners[-1] == (250, 0.02)
    assert dict(corners)[100] == pytest.approx(0.1 / 2, rel=1e-3)
    assert cycle == 2 * N_S


def test_a_cosine_of_few_updates_falls_before_it_jumps_up() -> None:
    corners, _ = rate(curves_of(trained(step_size=7, schedule="cosine"), epochs(28)))
    cosine = [1e-5 + (0.1 - 1e-5) * (1 + math.cos(math.pi * step / 14)) / 2 for step in range(14)]
    expected = [*enumerate([*cosine, 1e-5]), *enumerate([*cosine, 1e-5], start=14)]
    assert corners == [(step, pytest.approx(eta)) for step, eta in expected]


def test_a_range_test_rises_to_its_end() -> None:
    drawn = [replace(one, learning_rate=0.1) for one in epochs(400)]
    corners, cycle = rate(learning_rate_curve(trained(schedule="range"), drawn))
    assert corners[0] == (0, pytest.approx(1e-5))
    assert corners[-1] == (400, 0.1)
    assert [eta for _, eta in corners] == sorted(eta for _, eta in corners)
    assert cycle == 0


def test_one_cycle_is_drawn_over_the_planned_length() -> None:
    for last, end in ((400, (400, 1e-5)), (300, (300, 0.02))):
        corners, cycle = rate(curves_of(trained(schedule="one-cycle"), epochs(last)))
        assert corners[0] == (0, 1e-5)
        assert max(corners, key=lambda point: point[1]) == (120, pytest.approx(0.1))  # 30 % of 2 cycles of 200
        assert corners[-1] == end
        assert cycle == 0


def test_the_caption_names_what_is_not_the_default() -> None:
    caption = curves_of(trained(schedule="cosine", optimizer="adam", weight_decay=0.01), epochs(50)).caption
    assert "cosine, " in caption
    assert "optimizer adam, weight decay 0.01" in caption
    assert "adam" not in curves_of(trained(), epochs(50)).caption
    assert "one-cycle over 20 epochs" in curves_of(trained(schedule="one-cycle"), epochs(50)).caption


def test_a_constant_learning_rate_is_a_line_without_cycles() -> None:
    assert rate(curves_of(trained(schedule="constant"), epochs(30, 60))) == ([(0, 0.1), (60, 0.1)], 0)


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
@pytest.mark.parametrize(
    ("schedule", "steps"),
    [("cyclical", ()), ("constant", (0,)), ("cyclical", (200,)), ("constant", tuple(range(50, 6001, 50)))],
    ids=["none", "step 0", "one", "many"],
)
def test_a_run_of_any_length_is_drawn(schedule: str, steps: tuple[int, ...]) -> None:
    width, height = size_of_png(draw(curves_of(trained(schedule=schedule), epochs(*steps))))
    assert width > 800
    assert height > 500


@pytest.mark.slow
@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
def test_a_run_without_a_test_is_drawn() -> None:
    size_of_png(draw(curves_of(trained(test_accuracy=None), epochs(50, 100))))
    size_of_png(draw(learning_rate_curve(trained(test_accuracy=None), epochs(50, 100))))


@pytest.mark.parametrize(
    ("seeds", "words"),
    [([7], "seed 7"), ([9, 7], "seeds 7, 9"), ([0, 2, 1, 1], "seeds 0 to 2"), ([1, 5, 9], "1, 5, 9")],
)
def test_the_caption_names_the_seeds_of_all_that_is_shown(seeds: list[int], words: str) -> None:
    first, *others = [trained(seed=seed) for seed in seeds]
    assert settings_line(first, together_with=others).endswith(words)


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
@pytest.mark.parametrize(("width", "columns"), mostly_slow([(8.0, 1), (16.0, 2)], 2))
def test_a_picture_of_a_document_has_its_width_and_letters_of_9_points(width: float, columns: int) -> None:
    content = draw(curves_of(trained(), epochs(50, 100)), "pdf", Look(width, title=False))
    [box] = re.findall(rb"/MediaBox \[ ([^]]*) ]", content)
    _, _, points_wide, points_high = map(float, box.split())
    assert points_wide == pytest.approx(width / 2.54 * 72)
    assert (points_high > points_wide) is (columns == 1)  # its four panels are below one another
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    texts = b" ".join(zlib.decompress(one) for one in streams if one[:1] == b"\x78")
    assert {float(size) for size in re.findall(rb"/F\d+(?:-\d+)? ([\d.]+) Tf", texts)} == {9}


@pytest.mark.slow
@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
@pytest.mark.parametrize("width", [8.0, 16.0])
def test_a_picture_of_a_document_has_its_pixels_and_may_have_no_title(width: float) -> None:
    chart = curves_of(trained(), epochs(50, 100))
    inches = size_of_png(draw(chart, "png", Look(width, title=False)))[0] / 200
    assert inches == pytest.approx(width / 2.54, abs=0.01)
    drawn, untitled = (draw(chart, "svg", Look(width, title=one)) for one in (True, False))
    for text in (b"Run 12: 3-layer 50-50", b"lambda 0.003"):
        assert text in drawn and text not in untitled


def test_each_split_alone() -> None:
    runs, measured = [replace(trained(), test_loss=1.5, test_cost=1.7)], {12: epochs(50, 100)}
    for chart in (curves_of(runs[0], measured[12], ("test",)), overlay(runs, measured, ("test",))):
        lines = [line for row in chart.panels for panel in row for line in panel.lines if panel.title in MEASURED]
        assert [points(line) for line in lines] == [[(0, y), (100, y)] for y in (1.7, 1.5, 0.5123)]
    lines = [line for row in overlay(runs, measured, ("train",)).panels for panel in row for line in panel.lines]
    assert [list(line.y) for line in lines] == [[i + 0.05, i + 0.1] for i in range(3)]
    assert overlay([trained(test_accuracy=None)], measured, ("test",)).panels[0][0].lines == []
