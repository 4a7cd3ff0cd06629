"""The picture of a warm-started search."""

from klcli.published.comparison import Comparison
from klcli.published.report import Line
from klcli.report.plots.figure import draw
from klcli.report.plots.reproductions import warm_start
from klcli.studies.statistics import Sample


def line(quantity: str, published: float, ours: float | None) -> Comparison:
    sample = None if ours is None else Sample((ours, ours + 0.02))
    return Comparison(Line(row="r", what="w", quantity=quantity, published=published), "differs", "", ours=sample)


def test_accuracies_in_the_order_of_the_trainings() -> None:
    lines = [
        line("train_accuracy", 0.7, 0.6),
        line("validation_accuracy", 0.4, 0.5),
        line("validation_cost", 1.4, 1.5),
        line("train_accuracy", 0.9, 0.8),
        line("train_accuracy", 1.0, None),
    ]
    chain = warm_start("t", "c", lines)
    [[panel]] = chain.panels
    assert {line.label: list(line.y) for line in panel.lines} == {
        "train": [0.61, 0.81], "validation": [0.51], "test": [],
        "train, published": [0.7, 0.9], "validation, published": [0.4], "test, published": [],
    }  # fmt: skip
    assert draw(chain)[:4] == b"\x89PNG"
