"""The picture of a warm-started search."""

from klcli.published.report import Comparison, Line
from klcli.report.plots.figure import draw
from klcli.report.plots.reproductions import warm_start
from klcli.settings.train_config import TrainConfig
from klcli.studies.statistics import Sample

CHAIN = [TrainConfig(lam=lam) for lam in (0.1, 0.01, 0.001)]


def line(place: int, quantity: str, published: float, ours: float | None) -> Comparison:
    sample = None if ours is None else Sample((ours, ours + 0.02))
    own = Line(row="r", what="w", quantity=quantity, published=published, config=CHAIN[place - 1])
    return Comparison(own, "differs", "", ours=sample)


def test_accuracies_in_the_order_of_the_trainings() -> None:
    lines = [
        line(3, "train_accuracy", 0.9, 0.8),
        line(1, "train_accuracy", 0.7, 0.6),
        line(2, "validation_accuracy", 0.4, 0.5),
        line(2, "validation_cost", 1.4, 1.5),
        line(2, "train_accuracy", 1.0, None),
    ]
    chain = warm_start("t", "c", lines, CHAIN)
    [[panel]] = chain.panels
    assert {line.label: [*zip(line.x, line.y, strict=True)] for line in panel.lines} == {
        "train": [(1, 0.61), (3, 0.81)], "validation": [(2, 0.51)],
        "train, published": [(1, 0.7), (3, 0.9)], "validation, published": [(2, 0.4)],
    }  # fmt: skip
    ours, theirs = ([line for line in panel.lines if bool(line.style) is is_ours] for is_ours in (True, False))
    for mine, published in zip(ours, theirs, strict=True):  # a single training of ours is a dot as well
        assert (mine.fill, published.fill) == (None, "none") and published.size > mine.size
    assert draw(chain)[:4] == b"\x89PNG"
