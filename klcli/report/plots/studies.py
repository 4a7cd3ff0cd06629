"""Pictures of studies: the accuracies of a lambda search, the curves of a sigma sweep, the errors of gradients."""

from collections.abc import Mapping, Sequence
from itertools import cycle, product

from klcli.procedures.searches import tried_values
from klcli.report.plots.chart import BLUE, COLOURS, GREEN, ORANGE, PINK, YELLOW, Chart, Line, Panel, curve, marks
from klcli.report.tables.later_checks import gradient_check_title, gradient_method
from klcli.report.words import layers_name, network_name, settings_line, statistics_words, subset_words
from klcli.store.records import Epoch, GradientCheck, Run
from klcli.studies.lambda_search import Choice

MARKS = tuple(zip("o^sDv", COLOURS, strict=False))
MEASURES = ("loss", "accuracy")
WIDE = 20.0  # above this loss the axis is logarithmic, or the others would be a flat line; chance is ln 10 = 2.3
LOOKS = {False: ("without BN", ORANGE, "--"), True: ("with BN", BLUE, "-")}
SMALLEST_ERROR = 1e-17  # where an error of exactly 0 is drawn
PARAMETERS = {"W": ("o", BLUE), "b": ("s", YELLOW), "gamma": ("^", GREEN), "beta": ("v", PINK)}


def lambda_search(stages: Sequence[tuple[str, Sequence[Run]]], choice: Choice) -> Chart:
    """Gather the points of a search; diverged runs have none."""
    first, together = stages[0][1][0], [run for _, runs in stages for run in runs]
    lines = []
    for (stage, runs), (marker, colour) in zip(stages, cycle(MARKS), strict=False):
        points = [(one.lam, accuracy) for one in tried_values(runs, stage) for accuracy in one.accuracies]
        lines += marks(stage, points, colour, marker, 6.5)
    lam, accuracy = choice.chosen.lam, choice.chosen.accuracy
    scale = "log" if min(x for line in lines for x in line.x) > 0 else "linear"
    lines.append(Line(f"chosen {lam:.4g}", [lam], [accuracy], "black", "", size=14, fill="none"))
    band = (choice.best.accuracy - choice.standard_error, accuracy)
    panel = Panel(lines, xlabel="lambda", ylabel="validation accuracy", xscale=scale, band=band)
    title = f"Lambda search: {network_name(first.config)}{subset_words(together)}"
    studies = ", ".join(str(runs[0].study_id) for _, runs in stages)
    caption = f"{settings_line(first, omit=('lambda',), together_with=together)}, study {studies}"
    return Chart(title, caption, [[panel]], 8, 5)


def sigma_curves(runs: Sequence[Run], epochs: Mapping[int, Sequence[Epoch]]) -> Chart:
    """Gather the validation curves of a sweep, a column per sigma, a row per measure, and a curve per repeat."""
    first, sigmas = runs[0], list(dict.fromkeys(run.config.sigma or 0.0 for run in runs))  # every run has one
    is_wide = max((epoch.validation_loss for run in runs for epoch in epochs[run.id]), default=0.0) > WIDE
    ordered = sorted(runs, key=lambda run: run.config.batch_norm)
    rows: list[list[Panel]] = [[] for _ in MEASURES]
    for (name, row), sigma in product(zip(MEASURES, rows, strict=True), sigmas):
        mine = [run for run in ordered if run.config.sigma == sigma]
        lines = [curve(epochs[run.id], f"validation_{name}", *LOOKS[run.config.batch_norm]) for run in mine]
        title, ylabel = f"sigma {sigma:g}" if name == MEASURES[0] else "", name if sigma == sigmas[0] else ""
        xlabel, scale = "update step" if name == MEASURES[-1] else "", "log" if is_wide and name == "loss" else "linear"
        row.append(Panel(lines, title, xlabel, ylabel, yscale=scale))
    words = f"validation{statistics_words(runs)}{subset_words(runs)}"
    title = f"Sigma and batch normalisation: {layers_name(first.config)}, {words}"
    caption = f"{settings_line(first, omit=('initializer',), together_with=runs)}, study {first.study_id}"
    return Chart(title, caption, rows, max(6, 3.4 * len(sigmas)), 6, shares_axes=True)


def gradient_errors(checks: Sequence[GradientCheck]) -> Chart:
    """Gather the largest errors of a suite: a row per network, a mark per tensor, a cross where one failed."""
    rows = enumerate(checks)
    every = [(max(one.max_absolute, SMALLEST_ERROR), row, one) for row, check in rows for one in check.errors]
    lines: list[Line] = []
    for offset, (parameter, (marker, colour)) in enumerate(PARAMETERS.items()):
        of_it = [(x, row + 0.18 * (offset - 1.5)) for x, row, one in every if one.tensor.endswith(f".{parameter}")]
        lines += marks(parameter, of_it, colour, marker, 5.3)
    lines += marks("FAIL", [(x, row) for x, row, one in every if not one.passed], "black", "x", 8.4)
    names, ylim = [gradient_check_title(check) for check in checks], (len(checks) - 0.5, -0.5)
    panel = Panel(lines, xlabel="max |ga - gn|", xscale="log", ylim=ylim, names=names)
    caption = f"suite {checks[0].suite}: {gradient_method(checks[0])}"
    title = "Gradient check: largest absolute error of every tensor"
    return Chart(title, caption, [[panel]], 9, 1.8 + 0.36 * len(checks))
