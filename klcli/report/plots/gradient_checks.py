"""The errors of gradient checks."""

from collections.abc import Sequence
from dataclasses import dataclass

from klcli.report.plots.figure import BLUE, GREEN, ORANGE, PINK, YELLOW, dress, new_figure, to_bytes
from klcli.report.tables.gradient_checks import gradient_check_title, gradient_method
from klcli.store.records import GradientCheck

SMALLEST_ERROR = 1e-17  # where an error of exactly 0 is drawn
_PARAMETER_MARKS = {"W": ("o", BLUE), "b": ("s", YELLOW), "gamma": ("^", GREEN), "beta": ("v", PINK)}


@dataclass(frozen=True)
class GradientErrors:
    """The errors of all tensors of a suite of gradient checks."""

    networks: list[str]
    points: list[tuple[int, str, float, bool]]  # network, parameter (W, b, gamma, beta), max absolute error, passed
    atol: float
    caption: str


def gradient_errors(checks: Sequence[GradientCheck]) -> GradientErrors:
    """Gather the errors of a suite."""
    first = checks[0]
    return GradientErrors(
        networks=[gradient_check_title(check) for check in checks],
        points=[
            (index, error.tensor.split(".")[1], error.max_absolute, error.passed)
            for index, check in enumerate(checks)
            for error in check.errors
        ],
        atol=first.atol,
        caption=f"suite {first.suite}: {gradient_method(first)}",
    )


def draw_gradient_checks(errors: GradientErrors, suffix: str = "png") -> bytes:
    """Draw one row per network and one mark per tensor on a logarithmic axis; return a picture file."""
    height = 1.8 + 0.36 * len(errors.networks)
    figure = new_figure(9, height, "Gradient check: largest absolute error of every tensor", errors.caption)
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
    axes.axvline(errors.atol, color=ORANGE, lw=1.2, label=f"tolerance {errors.atol:g}")
    axes.set(xscale="log", xlabel="max |ga - gn|", ylim=(len(errors.networks) - 0.5, -0.5))
    axes.set_yticks(range(len(errors.networks)), errors.networks)
    dress(axes)
    axes.legend(loc="upper left", frameon=False)
    return to_bytes(figure, suffix)
