"""The curves of one run, and its learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from klcli.report.plots.figure import (
    GREY,
    TRAIN,
    VALIDATION,
    dress,
    mark_cycles,
    measured,
    new_figure,
    say_empty,
    to_bytes,
)
from klcli.report.words import network_name, settings_line
from klcli.settings.train_config import CYCLIC
from klcli.store.records import Epoch, Run
from klcli.training.budget import Budget

MEASURES = ("cost", "loss", "accuracy")
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
    cycle: int  # updates; 0 where there are no cycles


def training_curves(run: Run, epochs: Sequence[Epoch]) -> TrainingCurves:
    """Gather the curves of one run and its evaluations."""
    return TrainingCurves(
        title=f"Run {run.id}: {network_name(run.config)}",
        caption=settings_line(run),
        steps=[epoch.step for epoch in epochs],
        train=measured(epochs, "train", MEASURES),
        validation=measured(epochs, "validation", MEASURES),
        test_accuracy=run.test_accuracy,
        learning_rate=_learning_rates(run, epochs[-1] if epochs else None),
        cycle=2 * run.step_size if run.config.schedule in CYCLIC else 0,
    )


def _learning_rates(run: Run, last: Epoch | None) -> list[tuple[float, float]]:
    """Return points (step, eta) to be joined by straight lines, up to the last evaluation."""
    config = run.config
    updates, last_eta = (last.step, last.learning_rate) if last else (0, config.eta_min)
    total = round(run.cycles * 2 * run.step_size)
    # n_s and the length are those that the run has stored: they do not depend on the images at hand.
    budget = Budget(config, round(total / run.epochs) if run.epochs else 1, run.step_size, total, ())
    if config.schedule == "constant":
        return [(step, budget.learning_rate(step, config)) for step in (0, updates)]
    pieces, length = (
        (updates // (2 * run.step_size) + 1, 2 * run.step_size) if config.schedule in CYCLIC else (1, total)
    )
    lines = 2 if config.schedule == "cyclical" else LINES_OF_A_CURVE
    points: list[tuple[float, float]] = []
    for piece in range(pieces):
        steps = sorted({round(length * (piece + line / lines)) for line in range(lines)})
        points += [(step, budget.learning_rate(step, config)) for step in steps if step < updates]
        if 0 < (piece + 1) * length <= updates:  # the end of a cosine, before eta jumps up again
            points.append(((piece + 1) * length, config.eta_min))
    if not points or points[-1][0] < updates:  # training ended within a cycle
        points.append((updates, last_eta))
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
    last = curves.steps[-1] if curves.steps else 0
    for axes in panels.flat:
        dress(axes)
        axes.set_xlim(0, last or 1)
        mark_cycles(axes, curves.cycle, last)
    return to_bytes(figure, suffix)


def draw_learning_rate(curves: TrainingCurves, suffix: str = "png") -> bytes:
    """Draw eta over update steps with the ends of the cycles; return a picture file."""
    figure = new_figure(8, 3.6, f"Learning rate, {curves.title[0].lower()}{curves.title[1:]}", curves.caption)
    axes = figure.subplots()
    steps, etas = zip(*curves.learning_rate, strict=True)
    axes.plot(steps, etas, color=GREY)
    axes.set(xlabel="update step", ylabel="eta", xlim=(0, steps[-1] or 1), ylim=(0, None))
    mark_cycles(axes, curves.cycle, int(steps[-1]))
    dress(axes)
    if not curves.steps:
        say_empty(axes)
    return to_bytes(figure, suffix)


def _draw_measure(axes: Axes, curves: TrainingCurves, name: str) -> None:
    marker = "o" if len(curves.steps) < 40 else None
    for label, values, colour, style in (
        ("train", curves.train, TRAIN, "-"),
        ("validation", curves.validation, VALIDATION, "--"),
    ):
        axes.plot(curves.steps, values[name], color=colour, ls=style, marker=marker, markersize=3.5, label=label)
    if name == "accuracy" and curves.test_accuracy is not None:
        axes.axhline(curves.test_accuracy, color="black", lw=0.8, ls=":", label=f"test {curves.test_accuracy:.4f}")
    axes.set(title=name, xlabel="update step")
    if curves.steps:
        axes.legend(frameon=False)
    else:
        say_empty(axes)
