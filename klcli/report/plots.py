"""Plots: what is gathered from stored records is a plain value; drawing it is a second step."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from klcli.report.tables import gradient_check_title, gradient_method, network_name

# Okabe and Ito's colours, told apart with every common colour blindness and in grey print.
TRAIN, VALIDATION, RATE = "#0072B2", "#D55E00", "#555555"


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


def training_curves(run: dict[str, Any], epochs: Sequence[dict[str, Any]]) -> TrainingCurves:
    """Gather the curves of one run and its evaluations."""
    measures = ("cost", "loss", "accuracy")
    n_s, updates = run["step_size"], epochs[-1]["step"] if epochs else 0
    if run["schedule"] == "constant":
        corners = [(0, run["eta_max"]), (updates, run["eta_max"])]
    else:
        corners = [(i * n_s, run["eta_max"] if i % 2 else run["eta_min"]) for i in range(updates // n_s + 1)]
        if updates % n_s:  # ended in the middle of a ramp
            corners.append((updates, epochs[-1]["learning_rate"]))
    settings = (
        f"{run['dataset']}, lambda {run['lambda']:g}, eta {run['eta_min']:g} to {run['eta_max']:g}, n_s {n_s}, "
        f"n_batch {run['batch_size']}, {run['initializer']}"
        + (f" sigma {run['sigma']:g}" if run["sigma"] is not None else "")
        + f", seed {run['seed']}"
    )
    return TrainingCurves(
        title=f"Run {run['id']}: {network_name(run)}",
        caption=settings,
        steps=[epoch["step"] for epoch in epochs],
        train={name: [epoch[f"train_{name}"] for epoch in epochs] for name in measures},
        validation={name: [epoch[f"validation_{name}"] for epoch in epochs] for name in measures},
        test_accuracy=run["test_accuracy"],
        learning_rate=corners,
        cycle=2 * n_s if run["schedule"] == "cyclical" else 0,
    )


def draw_training(curves: TrainingCurves) -> bytes:
    """Draw cost, loss, accuracy and the learning rate over update steps; return a PNG."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(curves.title, fontsize=14, fontweight="bold")
    figure.supxlabel(curves.caption, fontsize=9, color="#444444")
    panels = figure.subplots(2, 2)
    for axes, name in zip((panels[0, 0], panels[0, 1], panels[1, 0]), curves.train, strict=True):
        _draw_measure(axes, curves, name)
    axes = panels[1, 1]
    axes.plot(*zip(*curves.learning_rate, strict=True), color=RATE)
    axes.set(title="learning rate eta", xlabel="update step", ylim=(0, None))
    for axes in panels.flat:
        _dress(axes, curves)
    return _png(figure)


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
    axes.legend(frameon=False)


def _dress(axes: Axes, curves: TrainingCurves) -> None:
    """Mark the ends of the cycles and take away what carries no information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_xlim(0, max(1, *curves.steps, 1) if curves.steps else 1)
    if curves.cycle and curves.steps:
        for end in range(curves.cycle, curves.steps[-1] + 1, curves.cycle):
            axes.axvline(end, color="#999999", lw=0.8, zorder=0)


@dataclass(frozen=True)
class GradientErrors:
    """The errors of all tensors of a suite of gradient checks."""

    networks: list[str]
    points: list[tuple[int, str, float, bool]]  # network, parameter (W, b, gamma, beta), max absolute error, passed
    atol: float
    caption: str


def gradient_errors(checks: Sequence[dict[str, Any]]) -> GradientErrors:
    """Gather the errors of a suite."""
    first = checks[0]
    return GradientErrors(
        networks=[gradient_check_title(check) for check in checks],
        points=[
            (index, error["tensor"].split(".")[1], error["max_absolute"], bool(error["passed"]))
            for index, check in enumerate(checks)
            for error in check["errors"]
        ],
        atol=first["atol"],
        caption=f"suite {first['suite']}: {gradient_method(first)}",
    )


def draw_gradient_checks(errors: GradientErrors) -> bytes:
    """Draw one row per network and one mark per tensor on a logarithmic axis; return a PNG."""
    figure = Figure(figsize=(9, 1.8 + 0.36 * len(errors.networks)), layout="constrained")
    figure.suptitle("Gradient check: largest absolute error of every tensor", fontsize=13, fontweight="bold")
    figure.supxlabel(errors.caption, fontsize=9, color="#444444")
    axes = figure.subplots()
    for offset, (parameter, (marker, colour)) in enumerate(_PARAMETER_MARKS.items()):
        points = [
            (max(error, SMALLEST_ERROR), row + 0.18 * (offset - 1.5))
            for row, name, error, _ in errors.points
            if name == parameter
        ]
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, marker=marker, color=colour, s=28, label=parameter, alpha=0.85)
    failed = [(max(error, SMALLEST_ERROR), row) for row, _, error, passed in errors.points if not passed]
    if failed:
        x, y = zip(*failed, strict=True)
        axes.scatter(x, y, marker="x", color="black", s=70, label="FAIL")
    axes.axvline(errors.atol, color="#D55E00", lw=1.2, label=f"tolerance {errors.atol:g}")
    axes.set(xscale="log", xlabel="max |ga - gn|", ylim=(len(errors.networks) - 0.5, -0.5))
    axes.set_yticks(range(len(errors.networks)), errors.networks)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", frameon=False)
    return _png(figure)


SMALLEST_ERROR = 1e-17  # where an error of exactly 0 is drawn
_PARAMETER_MARKS = {"W": ("o", "#0072B2"), "b": ("s", "#E69F00"), "gamma": ("^", "#009E73"), "beta": ("v", "#CC79A7")}


def _png(figure: Figure) -> bytes:
    content = BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
