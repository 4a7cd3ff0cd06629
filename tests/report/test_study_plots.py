"""Pictures of studies: the gathered values, by hand, and the drawing of every chart."""

import math
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from records import epoch, lines_of, points, run, size_of_png
from thinning import mostly_slow

from klcli.errors import ConfigError
from klcli.procedures.searches import tried_values
from klcli.report.plots.chart import OF_BN, Look
from klcli.report.plots.figure import Chart, _draw, draw
from klcli.report.plots.studies import lambda_search, sigma_curves
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Epoch, Run
from klcli.studies.lambda_search import choose

pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")


def trained(number: int, state: str = "complete", validation_accuracy: float | None = 0.5, **settings: Any) -> Run:
    usual = {"hidden": (50, 30), "batch_norm": True, "seed": 7, "step_size": 900}
    config = TrainConfig(**usual | settings)
    fields = {"state": state, "validation_accuracy": validation_accuracy}
    return run(number, config, study_id=3, dataset="synthetic", **fields)


def searched(*pairs: tuple[float, float | None], first: int = 1) -> list[Run]:
    """Runs with these lambdas and validation accuracies; None diverged."""
    return [
        trained(number, "diverged" if accuracy is None else "complete", accuracy, lam=lam)
        for number, (lam, accuracy) in enumerate(pairs, start=first)
    ]


def drawn(*stages: tuple[str, list[Run]]) -> tuple[int, int]:
    values = [one for stage, runs in stages for one in tried_values(runs, stage)]
    return size_of_png(draw(lambda_search(stages, choose(values, 5000))))


# --- the search

COARSE = searched((1e-4, 0.48), (1e-3, 0.52), (1e-2, 0.515), (1e-1, None))
FINE = searched((4e-3, 0.53), (4e-3, 0.51), first=5)


def test_the_points_of_a_search() -> None:
    stages = [("coarse", COARSE), ("fine", FINE)]
    values = [one for stage, runs in stages for one in tried_values(runs, stage)]
    scatter = lambda_search(stages, choose(values, 2500))
    [[panel]] = scatter.panels
    every = [(line.label, [(pytest.approx(x), y) for x, y in points(line)]) for line in panel.lines]
    assert every[2] == (None, [(-2.39794, 0.53), (-2.39794, 0.51)])  # the repeats of one lambda
    assert {label: own for label, own in every if label} == {
        "coarse, runs 1-4": [(-4, 0.48), (-3, 0.52), (-2, 0.515)],
        "fine, runs 5-6": [(-2.39794, pytest.approx(0.52))],
        "chosen lambda 0.004": [(-2.39794, 0.52)],  # tied with 1e-3; the middle of the plateau is 3.4e-3
    }
    assert panel.lines[3].spread == [pytest.approx(0.02 / 2**0.5)]  # of two values, |a - b| / sqrt 2
    assert panel.xlabel == "log10 lambda"
    error = (0.52 * 0.48 / 2500) ** 0.5
    assert panel.band == (pytest.approx(0.52 - error), 0.52)
    assert scatter.title == "Lambda search: 3-layer 50-30 with BN"
    assert "lambda" not in scatter.caption
    for part in ("synthetic", "n_s 900", "seed 7", "study 3"):
        assert part in scatter.caption


def test_a_lambda_of_zero_has_a_place_of_its_own_below_the_others() -> None:
    """It has no logarithm; on a linear axis, all but the largest lambdas would lie on one another."""
    runs = searched((0.0, 0.5), (2e-5, 0.3), (1e-4, 0.2), (0.1, 0.4))
    [[panel]] = lambda_search([("values", runs)], choose(tried_values(runs, "values"), 5000)).panels
    assert panel.xlabel == "log10 lambda"
    assert points(panel.lines[0]) == [(-6, 0.5), (pytest.approx(math.log10(2e-5)), 0.3), (-4, 0.2), (-1, 0.4)]
    assert panel.limits == {"lambda 0": -6}
    assert points(panel.lines[-1]) == [(-6, 0.5)]  # the chosen one
    alone = searched((0.0, 0.5))
    [[panel]] = lambda_search([("values", alone)], choose(tried_values(alone, "values"), 5000)).panels
    assert panel.limits == {"lambda 0": points(panel.lines[0])[0][0]}
    [[panel]] = lambda_search([("coarse", COARSE)], choose(tried_values(COARSE, "coarse"), 5000)).panels
    assert panel.limits == {}


@pytest.mark.parametrize(
    "runs",
    [
        COARSE,
        *(pytest.param(runs, marks=pytest.mark.slow) for runs in (FINE, COARSE[:1])),
        searched((0.0, 0.5), (0.1, 0.4)),
        searched((0.0, 0.5)),
        searched((1e-3, 0.1), (1.0001e-3, 0.1)),
        searched((1e-3, None), (1e-2, 1.0)),
        searched((1e-30, 0.3), (1e3, 0.2)),
    ],
    ids=["decades", "one lambda", "one point", "with zero", "zero alone", "very near", "diverged", "very far"],
)
def test_a_search_of_any_kind_is_drawn(runs: list[Run]) -> None:
    width, height = drawn(("coarse", runs))
    assert width > 800
    assert height > 500


def test_the_captions_name_the_runs_that_did_not_complete() -> None:
    runs = searched((1e-3, 0.5), (1e-2, 0.4))
    choice = choose(tried_values(runs, "values"), 5000)
    assert "not complete" not in lambda_search([("values", runs)], choice).caption
    lost = searched((1e-1, None), (1.0, None), first=3)
    assert lambda_search([("values", [*runs, *lost])], choice).caption.endswith("; not complete: runs 3-4 (diverged)")
    sweep, epochs = swept()
    sweep[5] = replace(sweep[5], state="diverged")
    assert sigma_curves(sweep, epochs).caption.endswith("; not complete: run 6 (diverged)")


def test_the_caption_says_in_what_the_stages_of_a_search_differ() -> None:
    longer = [trained(3, validation_accuracy=0.6, lam=2e-3, cycles=4, evaluations_per_cycle=2)]
    stages = [("coarse", searched((1e-3, 0.5), (1e-2, 0.4))), ("fine", longer)]
    values = [one for stage, runs in stages for one in tried_values(runs, stage)]
    assert "; the stages differ in cycles" in lambda_search(stages, choose(values, 5000)).caption


def test_many_stages_are_drawn_to_the_last() -> None:
    stages = [("coarse", COARSE)] + [(f"fine {i}", searched((2e-3 + i * 1e-5, 0.5), first=10 + i)) for i in range(2, 9)]
    values = [one for stage, runs in stages for one in tried_values(runs, stage)]
    assert len(lines_of(lambda_search(stages, choose(values, 5000)))) == 8 + 1  # and the chosen one
    drawn(*stages)


# --- the sweep


def swept(steps: int = 4) -> tuple[list[Run], dict[int, list[Epoch]]]:
    runs = [
        trained(number, sigma=sigma, batch_norm=bn, initializer="normal")
        for number, (sigma, bn) in enumerate([(s, b) for b in (False, True) for s in (0.1, 1e-4)] * 2, start=1)
    ]
    epochs = {
        one.id: [
            epoch(
                100 * i,
                validation_loss=one.id + i,
                validation_accuracy=one.id / 10 + i / 100,
                train_loss=one.id,
                train_accuracy=one.id / 20,
                train_cost=10 + one.id,
                validation_cost=11 + one.id + i,
            )
            for i in range(1, steps + 1)
        ]
        for one in runs
    }
    return runs, epochs


def scales(sweep: Chart) -> set[str]:
    """The scales of the losses, which share their axis."""
    return {panel.yscale for panel in sweep.panels[1]}


def test_the_curves_of_a_sweep() -> None:
    runs, epochs = swept()
    curves = sigma_curves(runs, epochs)
    costs, losses, accuracies = curves.panels
    assert [panel.title for panel in costs] == ["sigma 0.1\nruns 1, 3, 5, 7", "sigma 0.0001\nruns 2, 4, 6, 8"]
    assert [row[0].ylabel for row in curves.panels] == ["cost", "loss", "accuracy"]
    every = [panel.lines for row in curves.panels for panel in row]
    looks = [
        (f"{split}, {name}", style, OF_BN[name == "with BN"])
        for name in ("without BN", "with BN")
        for split, style in (("train", "-"), ("validation", "--"))
    ]
    drawn = [(label if is_mean else None, *look) for label, *look in looks for is_mean in (False, False, True)]
    assert [[(line.label, line.style, line.colour) for line in lines] for lines in every] == [drawn] * 6
    first, second, mean = losses[1].lines[9:]  # of validation: runs 4 and 8
    assert points(losses[1].lines[6]) == [(100, 4), (200, 4), (300, 4), (400, 4)]
    assert points(first) == [(100, 5), (200, 6), (300, 7), (400, 8)]
    assert list(second.y) == [9, 10, 11, 12]
    assert list(mean.y) == [7, 8, 9, 10]
    assert list(accuracies[1].lines[9].y) == pytest.approx([0.41, 0.42, 0.43, 0.44])
    assert list(accuracies[1].lines[6].y) == pytest.approx([0.2] * 4)
    assert list(costs[1].lines[9].y) == [16, 17, 18, 19]
    assert [[panel.shares_y for panel in row] for row in curves.panels] == [[False] * 2, [True] * 2, [True] * 2]
    assert {panel.cycle for row in curves.panels for panel in row} == {1800}
    assert scales(curves) == {"linear"}
    assert curves.title.startswith("Sigma and batch normalisation: 3-layer 50-30")
    assert "sigma" not in curves.caption
    for part in ("synthetic", "lambda 0.005", "study 3"):
        assert part in curves.caption
    runs, epochs = swept()
    of_two = [replace(run, study_id=3 + run.config.batch_norm) for run in runs]  # a report trains them with quirks
    assert "studies 3, 4" in sigma_curves(of_two, epochs).caption


@pytest.mark.parametrize("steps", mostly_slow([1, 0, 4, 60], 4))
def test_a_sweep_of_any_length_is_drawn(steps: int) -> None:
    size_of_png(draw(sigma_curves(*swept(steps))))


def test_a_run_without_an_evaluation_takes_no_place_in_a_picture() -> None:
    """The layout kept place for its line at a corner of the figure: the panels had none, the legend covered titles."""
    runs, epochs = swept(2)
    [[panel, *_], *_] = sigma_curves(runs, epochs | {runs[0].id: []}).panels
    assert [] in [list(line.x) for line in panel.lines]
    boxes = []
    for lines in (panel.lines, [line for line in panel.lines if line.x]):
        axes = Figure().subplots()
        _draw(axes, replace(panel, lines=lines))
        boxes.append(axes.get_tightbbox().bounds)
    assert boxes[0] == boxes[1]


@pytest.mark.slow
def test_a_sweep_is_drawn_on_its_way_to_infinity_and_for_one_sigma() -> None:
    runs, epochs = swept()
    epochs[1][3] = replace(epochs[1][3], validation_loss=1e30)
    assert scales(sigma_curves(runs, epochs)) == {"log"}
    size_of_png(draw(sigma_curves(runs, epochs)))
    assert {panel.yscale for panel in sigma_curves(runs, epochs).panels[0]} == {"linear"}, "the costs are small"
    one = [r for r in runs if r.config.sigma == 0.1]
    size_of_png(draw(sigma_curves(one, epochs)))


@pytest.mark.parametrize("width", mostly_slow([6, 7, 8], 3))
def test_no_letter_of_a_narrow_sweep_is_cut_off(width: int) -> None:
    """The names of sigma are wider than the panels of a sweep in a column of a document: the edges stay white."""
    content = draw(sigma_curves(*swept()), "png", Look(width, title=False))
    pixels = imread(BytesIO(content))
    assert pixels[:, [0, -1], :3].min() == 1


@pytest.mark.slow
def test_columns_of_a_sweep_that_do_not_fit_are_refused_with_the_width_that_they_need() -> None:
    chart = sigma_curves(*swept())
    wide = replace(chart, panels=[[*row, *row] for row in chart.panels])
    columns = len(wide.panels[0])
    assert columns >= 4
    with pytest.raises(ConfigError, match=rf"--width 8: {columns} columns .* at least {math.ceil(columns * 2.54)} cm"):
        draw(wide, "png", Look(8))
    draw(wide, "png")  # a screen has place for any number
