"""The curves of one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from klcli.engine.schedules import cosine, cyclical, one_cycle, range_test
from klcli.report.plots.figure import (
    GREY,
    TRAIN,
    VALIDATION,
    dress,
    mark_cycles,
    new_figure,
    say_empty,
    to_bytes,
)
from klcli.report.tables.table import network_name, settings_line
from klcli.settings.train_config import CYCLIC

LINES_OF_A_CURVE = 50  # straight lines that look like one


@dataclass(frozen=True)
class TrainingCurves:
    """The curves of one run, over update steps."""

    title: str
    caption: str
    steps: list[int]
    train: dict[str, list[float]]  # cost, loss, accuracy
    validation: dict[str, list[float]]
    test_accuracy: float | None
    learning_rate: list[tuple[float, float]]  # corners of eta over steps
    cycle: int  # updates


def training_curves(run: Any, epochs: Sequence[Any]) -> TrainingCurves:
    """Gather the curves of one run and its evaluations."""
    measures = ("cost", "loss", "accuracy")
    updates = epochs[-1]["step"] if epochs else 0
    return TrainingCurves(
        title=f"Run {run['id']}: {network_name(run)}",
        caption=settings_line(run),
        steps=[epoch["step"] for epoch in epochs],
        train={name: [epoch[f"train_{name}"] for epoch in epochs] for name in measures},
        validation={name: [epoch[f"validation_{name}"] for epoch in epochs] for name in measures},
        test_accuracy=run["test_accuracy"],
        learning_rate=learning_rates(run, updates, epochs[-1]["learning_rate"] if epochs else run["eta_min"]),
        cycle=2 * run["step_size"] if run["schedule"] in CYCLIC else 0,
    )


def learning_rates(run: Any, updates: int, last: float) -> list[tuple[float, float]]:
    """Return points (step, eta) to be joined by straight lines; `last` is the eta of the last update."""
    if run["schedule"] == "constant":
        return [(0, run["eta_max"]), (updates, run["eta_max"])]
    cycle, eta_min, eta_max = 2 * run["step_size"], run["eta_min"], run["eta_max"]
    pieces, length, lines = updates // cycle + 1, cycle, LINES_OF_A_CURVE
    if run["schedule"] in ("one-cycle", "range"):
        pieces, length = 1, round(run["cycles"] * cycle)

    def eta(step: int) -> float:
        if run["schedule"] in ("one-cycle", "range"):
            whole = one_cycle if run["schedule"] == "one-cycle" else range_test
            return whole(step, eta_min=eta_min, eta_max=eta_max, total=length)
        schedule = {"cyclical": cyclical, "cosine": cosine}[run["schedule"]]
        decay = run.get("eta_decay", 1.0)
        return schedule(step, eta_min=eta_min, eta_max=eta_max, step_size=run["step_size"], decay=decay)

    if run["schedule"] == "cyclical":
        lines = 2
    points: list[tuple[float, float]] = []
    for piece in range(pieces):
        steps = sorted({round(length * (piece + line / lines)) for line in range(lines)})
        points += [(step, eta(step)) for step in steps if step < updates]
        if 0 < (piece + 1) * length <= updates:  # before the next one begins, perhaps far above
            points.append(((piece + 1) * length, eta_min))
    if not points or points[-1][0] < updates:  # ended on the way
        points.append((updates, last))
    return list(dict.fromkeys(points))


def draw_training(curves: TrainingCurves, suffix: str = "png") -> bytes:
    """Draw cost, loss, accuracy and the learning rate over update steps; return a picture file."""
    figure = new_figure(10, 7, curves.title, curves.caption)
    panels = figure.subplots(2, 2)
    for axes, name in zip((panels[0, 0], panels[0, 1], panels[1, 0]), curves.train, strict=True):
        _draw_measure(axes, curves, name)
    axes = panels[1, 1]
    axes.plot(*zip(*curves.learning_rate, strict=True), color=GREY)
    axes.set(title="learning rate eta", xlabel="update step", ylim=(0, None))
    for axes in panels.flat:
        _mark_cycles(axes, curves)
    return to_bytes(figure, suffix)


def _draw_measure(axes: Axes, curves: TrainingCurves, name: str) -> None:
    marker = "o" if len(curves.steps) < 40 else None
    axes.plot(curves.steps, curves.train[name], color=TRAIN, marker=marker, markersize=3.5, label="train")
    axes.plot(
        curves.steps,
        curves.validation[name],
        color=VALIDATION,
        marker=marker,
        markersize=3.5,
        ls="--",
        label="validation",
    )
    if name == "accuracy" and curves.test_accuracy is not None:
        axes.axhline(curves.test_accuracy, color="black", lw=0.8, ls=":", label=f"test {curves.test_accuracy:.4f}")
    axes.set(title=name, xlabel="update step")
    if curves.steps:
        axes.legend(frameon=False)
    else:
        say_empty(axes)


def _mark_cycles(axes: Axes, curves: TrainingCurves) -> None:
    """Mark the ends of the cycles."""
    dress(axes)
    axes.set_xlim(0, max(1, *curves.steps, 1) if curves.steps else 1)
    mark_cycles(axes, curves.cycle, curves.steps[-1] if curves.steps else 0)
