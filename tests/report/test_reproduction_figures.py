"""The figures of a reproduced report: their networks and images are named, though the title is the report's."""

import pytest
from records import epoch, points, run

from klcli.errors import ConfigError
from klcli.published.comparison import compare
from klcli.published.planning import planned
from klcli.published.report import parse
from klcli.published.reproduction import Reproduction, Terms
from klcli.report.plots.reproductions import pictures
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Run
from tests.published.evidence import evidence

REPORT = """
report = "009"
course = "c"
date = "d"
summary = "s"
[[experiments]]
name = "plain"
rows = [{ row = "009-1", lam = 0.1, test_accuracy = 0.5000 }, { row = "009-1", lam = 0.2, test_accuracy = 0.5000 }]
[[experiments]]
name = "one"
config = { hidden = [9], batch_norm = true }
rows = [{ row = "009-2", test_accuracy = 0.5000 }]
[[experiments]]
name = "swept"
config = { hidden = [7], initializer = "normal", sigma = 0.1, split = { subset = 100 } }
rows = [{ row = "009-3", test_accuracy = 0.5000 }, { row = "009-3", batch_norm = true, test_accuracy = 0.5000 }]
[[experiments]]
name = "chained"
is_chain = true
config = { hidden = [8], batch_norm = true }
rows = [{ row = "009-4", lam = 0.1, test_accuracy = 0.5000 }]
[[figures]]
rows = ["009-F"]
reason = "curves"
panels = "PANELS"
experiments = ["NAME"]
"""


@pytest.mark.parametrize(
    ("panels", "name", "words"),
    [
        ("training", "one", "2-layer 9 with BN, mean of 2 runs; cifar10, "),
        ("training", "swept", "over update steps, subset of 100 with 22 test images; cifar10, "),
        ("bn", "swept", ": 2-layer 7, subset of 100 with 22 test images; cifar10, "),
        ("sigma", "swept", ": 2-layer 7 without and with BN, subset of 100 with 22 test images; cifar10, "),
        ("lambda", "plain", ": 3-layer 50-50; cifar10, "),
        ("lambda", "chained", "2-layer 8 with BN, cifar10, "),
    ],
)
def test_the_caption_names_the_network(panels: str, name: str, words: str) -> None:
    report = parse("test", REPORT.replace("PANELS", panels).replace("NAME", name))
    settings: dict[str, dict[TrainConfig, Run]] = {}
    for method, configs, *_ in planned(report, 2):
        own = settings.setdefault(method, {})
        for config in configs:
            accuracies = dict.fromkeys(("train_accuracy", "validation_accuracy", "test_accuracy"), 0.5)
            own[config] = run(1 + sum(map(len, settings.values())), config, **accuracies)
    of_runs = evidence(settings)
    drawn = pictures(
        Reproduction(report, Terms("cifar10", "a" * 64, 2), compare(report, of_runs), of_runs, [1]),
        lambda run: [epoch(0), epoch(100)],
    )
    [*_, chart] = [gather() for _, title, gather in drawn if name in title]
    assert name in chart.title and words in chart.caption


SEARCHED = """
report = "009"
course = "c"
date = "d"
summary = "s"
[[experiments]]
name = "searched"
rows = [
  { row = "009-1", lam = 0.1, best_validation_accuracy = 0.5 },
  { row = "009-1", lam = 1.0, best_validation_accuracy = 0.5 },
]
[[conclusions]]
row = "009-2"
what = "the chosen lambda"
kind = "lambda"
experiments = ["searched"]
quantity = "QUANTITY"
published = 0.1
[[figures]]
rows = ["009-1"]
panels = "lambda"
experiments = ["searched"]
"""


@pytest.mark.parametrize(
    ("quantity", "splits", "ylabel", "ring", "has_band"),
    [
        ("best_validation_accuracy", (), "best validation accuracy", (-1, 0.6), True),
        ("best_validation_accuracy", ("validation",), "validation accuracy", (-1, 0.5), False),
        ("validation_accuracy", (), "validation accuracy", (0, 0.54), True),
        ("test_accuracy", (), "test accuracy", (-1, 0.53), True),
        ("test_accuracy", ("train",), "train accuracy", (-1, 0.7), False),
    ],
)
def test_the_picture_of_a_search_rings_the_lambda_of_its_table(
    quantity: str, splits: tuple[str, ...], ylabel: str, ring: tuple[float, float], has_band: bool
) -> None:
    report = parse("test", SEARCHED.replace("QUANTITY", quantity))
    names = ("best_validation_accuracy", "validation_accuracy", "test_accuracy", "train_accuracy")
    measured = {0.1: (0.6, 0.5, 0.53, 0.7), 1.0: (0.55, 0.54, 0.4, 0.8)}
    [(_, configs, *_)] = planned(report, 1)
    runs = {one: run(i, one, **dict(zip(names, measured[one.lam], strict=True))) for i, one in enumerate(configs)}
    of_runs = evidence({"": runs})
    compared = compare(report, of_runs)
    chosen = [one.ours.mean for one in compared if one.line.quantity == "lambda" and one.ours]
    found = Reproduction(report, Terms("cifar10", "a" * 64, 1), compared, of_runs, [1])
    [[[panel]]] = [gather().panels for *_, gather in pictures(found, lambda run: [], splits=splits)]
    [[place]] = [points(line) for line in panel.lines if line.label == f"chosen lambda {chosen[0]:.4g}"]
    assert (panel.ylabel, place, panel.band is not None) == (ylabel, ring, has_band)


@pytest.mark.parametrize("splits", [(), ("validation", "train"), ("train",), ("test", "validation")])
@pytest.mark.parametrize("settings", [2, 6, 7, 10])
def test_no_two_settings_of_a_figure_look_the_same(settings: int, splits: tuple[str, ...]) -> None:
    rows = ", ".join(f'{{ row = "009-1", lam = {number}, test_accuracy = 0.5 }}' for number in range(settings))
    [head, _] = SEARCHED.split("rows = [", 1)
    figure = '[[figures]]\nrows = ["009-F"]\nreason = "curves"\npanels = "training"\nexperiments = ["searched"]'
    report = parse("test", f"{head}rows = [{rows}]\n{figure}")
    [(_, configs, *_)] = planned(report, 1)
    runs = {one: run(number, one, test_accuracy=0.5) for number, one in enumerate(configs)}
    of_runs = evidence({"": runs})
    found = Reproduction(report, Terms("cifar10", "a" * 64, 1), compare(report, of_runs), of_runs, [1])
    measured = [epoch(step) for step in range(0, 500, 100)]
    if settings > 6 and len(splits) > 1:
        with pytest.raises(ConfigError, match="name one"):
            [gather() for *_, gather in pictures(found, lambda run: measured, splits=splits)]
        return
    [[[panel, *_]]] = [gather().panels for *_, gather in pictures(found, lambda run: measured, splits=splits)]
    shown = len(splits or ("train", "validation")) if settings <= 6 else 1
    assert len(panel.lines) == settings * shown - settings * ("test" in splits and settings <= 6)  # no cost of test
    assert len({(line.style, line.colour) for line in panel.lines}) == len(panel.lines)
