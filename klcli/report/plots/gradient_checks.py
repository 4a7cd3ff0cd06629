"""The errors of gradient checks."""

from collections.abc import Sequence

from klcli.report.plots.chart import BLUE, GREEN, PINK, YELLOW, Chart, Line, Panel
from klcli.report.tables.gradient_checks import gradient_check_title, gradient_method
from klcli.store.records import GradientCheck

SMALLEST_ERROR = 1e-17  # where an error of exactly 0 is drawn
_MARKS = {"W": ("o", BLUE), "b": ("s", YELLOW), "gamma": ("^", GREEN), "beta": ("v", PINK)}


def gradient_errors(checks: Sequence[GradientCheck]) -> Chart:
    """Gather the largest errors of a suite: a row per network, a mark per tensor, a cross where one failed."""
    every = [
        (max(one.max_absolute, SMALLEST_ERROR), row, one) for row, check in enumerate(checks) for one in check.errors
    ]
    lines = []
    for offset, (parameter, (marker, colour)) in enumerate(_MARKS.items()):
        points = [(x, row + 0.18 * (offset - 1.5)) for x, row, error in every if error.tensor.endswith(f".{parameter}")]
        if points:
            x, y = zip(*points, strict=True)
            lines.append(Line(parameter, x, y, colour, "", marker=marker, size=5.3))
    failed = [(x, row) for x, row, error in every if not error.passed]
    if failed:
        x, y = zip(*failed, strict=True)
        lines.append(Line("FAIL", x, y, "black", "", marker="x", size=8.4))
    panel = Panel(
        lines,
        xlabel="max |ga - gn|",
        xscale="log",
        ylim=(len(checks) - 0.5, -0.5),
        names=[gradient_check_title(check) for check in checks],
    )
    title = "Gradient check: largest absolute error of every tensor"
    caption = f"suite {checks[0].suite}: {gradient_method(checks[0])}"
    return Chart(title, caption, [[panel]], 9, 1.8 + 0.36 * len(checks))
