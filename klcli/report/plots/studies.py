"""Pictures of studies: the accuracies of a lambda search, the curves of a sigma sweep, the errors of gradients."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle, product

from klcli.procedures.searches import tried_values
from klcli.report.plots.chart import (
    BLUE,
    COLOURS,
    GREEN,
    OF_BN,
    PINK,
    SPLITS,
    YELLOW,
    Chart,
    Line,
    Panel,
    curve,
    marks,
)  # fmt: skip
from klcli.report.plots.training import MEASURES, cycle_length
from klcli.report.tables.later_checks import gradient_check_title, gradient_method
from klcli.report.words import layers_name, network_name, settings_line, statistics_words, subset_words
from klcli.store.records import Epoch, GradientCheck, Run
from klcli.studies.lambda_search import Choice

MARKS = tuple(zip("o^sDv", COLOURS, strict=False))
WIDE = 20.0  # above this loss the axis is logarithmic, or the others would be a flat line; chance is ln 10 = 2.3
SMALLEST_ERROR = 1e-17  # where an error of exactly 0 is drawn
PARAMETERS = {"W": ("o", BLUE), "b": ("s", YELLOW), "gamma": ("^", GREEN), "beta": ("v", PINK)}


def lambda_search(stages: Sequence[tuple[str, Sequence[Run]]], choice: Choice) -> Chart:
    """Gather the validation accuracies of a search over log10 lambda, as published; diverged runs have none."""
    first, together = stages[0][1][0], [run for _, runs in stages for run in runs]
    tried = [(stage, [*tried_values(runs, stage)]) for stage, runs in stages]
    is_log = all(one.lam > 0 for _, values in tried for one in values if one.accuracies)  # 0 has no logarithm
    place, lines = math.log10 if is_log else float, list[Line]()
    for (stage, values), (marker, colour) in zip(tried, cycle(MARKS), strict=False):
        points = [(place(one.lam), accuracy) for one in values for accuracy in one.accuracies]
        lines += marks(stage, points, colour, marker, 6.5)
    lam, accuracy = choice.chosen.lam, choice.chosen.accuracy
    lines.append(Line(f"chosen lambda {lam:.4g}", [place(lam)], [accuracy], "black", "", size=14, fill="none"))
    band = (choice.best.accuracy - choice.standard_error, accuracy)
    panel = Panel(lines, xlabel="log10 lambda" if is_log else "lambda", ylabel="validation accuracy", band=band)
    title = f"Lambda search: {network_name(first.config)}{subset_words(together)}"
    numbers = list(dict.fromkeys(str(runs[0].study_id) for _, runs in stages))
    studies = f"{'study' if len(numbers) == 1 else 'studies'} {', '.join(numbers)}"
    caption = f"{settings_line(first, omit=('lambda',), together_with=together)}, {studies}"
    return Chart(title, caption, [[panel]], 8, 5)


def sigma_curves(runs: Sequence[Run], epochs: Mapping[int, Sequence[Epoch]]) -> Chart:
    """Gather the training and validation curves of a sweep: a row per measure, a column per sigma, a curve per run.

    Repeats stay single, because a mean over networks that have left their plateau and others that have not is neither.
    """
    first, sigmas = runs[0], list(dict.fromkeys(run.config.sigma or 0.0 for run in runs))  # every run has one
    ordered = sorted(runs, key=lambda run: run.config.batch_norm)
    width = 1.5 if len(runs) <= 2 * len(sigmas) else 0.9
    rows: list[list[Panel]] = [[] for _ in MEASURES]
    for (name, row), sigma in product(zip(MEASURES, rows, strict=True), sigmas):
        mine = [run for run in ordered if run.config.sigma == sigma]
        shares_y = name != "cost"  # the L2 term alone makes that of a large sigma several times that of a small one
        measured = [one for run in (runs if shares_y else mine) for one in epochs[run.id]]
        values = [getattr(one, f"{split}_{name}") for one in measured for split in SPLITS]
        is_wide = name != "accuracy" and max(values, default=0.0) > max(WIDE, 10 * min(values, default=0.0))
        lines = [
            curve(epochs[run.id], f"{split}_{name}", f"{split}, {label}", colour, style, width=width)
            for run in mine
            for label, colour in [("with BN" if run.config.batch_norm else "without BN", OF_BN[run.config.batch_norm])]
            for split, style in SPLITS.items()
        ]
        title, ylabel = f"sigma {sigma:g}" if name == MEASURES[0] else "", name if sigma == sigmas[0] else ""
        xlabel, scale = "update step" if name == MEASURES[-1] else "", "log" if is_wide else "linear"
        lengths = {cycle_length(run) for run in mine}
        end = min(lengths) if len(lengths) == 1 else 0
        row.append(Panel(lines, title, xlabel, ylabel, yscale=scale, cycle=end, shares_y=shares_y))
    words = f"Sigma and batch normalisation: {layers_name(first.config)}{statistics_words(runs)}{subset_words(runs)}"
    caption = f"{settings_line(first, omit=('initializer',), together_with=runs)}, study {first.study_id}"
    return Chart(words, caption, rows, max(7, 3.6 * len(sigmas)), 8.4, shares_axes=True)


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
