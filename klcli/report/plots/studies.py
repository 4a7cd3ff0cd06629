"""Pictures of studies: the accuracies of a lambda search, the curves of a sigma sweep, the errors of gradients."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle, product

from klcli.procedures.searches import mixed, tried_values
from klcli.report import words
from klcli.report.plots.chart import COLOURS, DURING, OF_BN, STYLES, Chart, Line, Panel, marks, scale_of
from klcli.report.plots.curves import MEASURES, complete_of, mean_curve, shared_cycle
from klcli.report.tables.later_checks import gradient_check_title, gradient_method
from klcli.store.records import Epoch, GradientCheck, Run
from klcli.studies.lambda_search import Choice
from klcli.studies.statistics import Sample

MARKS = tuple(zip("o^sDvP", COLOURS, strict=True))
SMALLEST_ERROR = 1e-17  # where an error of exactly 0 is drawn
PARAMETERS = dict(zip(("W", "b", "gamma", "beta"), MARKS, strict=False))


def lambda_search(stages: Sequence[tuple[str, Sequence[Run]]], choice: Choice, split: str = "validation") -> Chart:
    """Gather the accuracies of a search over log10 lambda, as published; diverged runs have none.

    Repeats of a lambda are small marks, with their mean and a bar of one standard deviation. The standard error is that
    of the accuracies that chose the lambda; the picture of other ones, of the train split say, is without it.
    """
    first, together = stages[0][1][0], [run for _, runs in stages for run in runs]
    tried = [
        (stage, runs, [one for one in tried_values(runs, stage, split) if one.accuracies]) for stage, runs in stages
    ]
    every = [one for *_, values in tried for one in values]
    positive = [math.log10(one.lam) for one in every if one.lam > 0]
    zero = math.floor(min(positive, default=0.0)) - 1.0  # where 0 is, which has no logarithm; a vertical line names it
    places = {one.lam: math.log10(one.lam) if one.lam else zero for one in every}
    limits, lines = {"lambda 0": zero} if 0 in places else {}, list[Line]()
    has_repeats = any(len(one.accuracies) > 1 for one in every)
    for (stage, runs, values), (marker, colour) in zip(tried, cycle(MARKS), strict=False):
        if has_repeats:
            each = [(places[one.lam], accuracy) for one in values for accuracy in one.accuracies]
            lines += marks(None, each, colour, marker=marker, size=3)
        means = [(places[one.lam], one.accuracy) for one in values]
        spread = [Sample(one.accuracies).std or 0.0 for one in values] if has_repeats else []
        lines += marks(f"{stage}, {words.run_numbers(runs)}", means, colour, marker=marker, size=6.5, spread=spread)
    chosen = choice.chosen
    band = (choice.best.accuracy - choice.standard_error, chosen.accuracy) if chosen in every else None
    ring = [(places[one.lam], one.accuracy) for one in every if (one.lam, one.stage) == (chosen.lam, chosen.stage)]
    lines += marks(f"chosen lambda {chosen.lam:.4g}", ring, "black", size=14, fill="none")
    panel = Panel(lines, xlabel="log10 lambda", ylabel=f"{split.replace('_', ' ')} accuracy", limits=limits, band=band)
    title = f"Lambda search: {words.network_name(first.config)}{words.subset_words(together)}"
    studies = words.numbered("study", list(dict.fromkeys(runs[0].study_id or 0 for _, runs in stages)))
    repeated = "; the bars are one standard deviation over seeds" if has_repeats else ""
    caption = f"{words.settings_line(first, omit=('lambda',), together_with=together)}, {studies}{repeated}"
    if differing := mixed(together):
        caption += f"; the stages differ in {differing}"
    return Chart(title, caption + words.not_complete(together), [[panel]], 8, 4.2)


def sigma_curves(runs: Sequence[Run], epochs: Mapping[int, Sequence[Epoch]], splits: Sequence[str] = ()) -> Chart:
    """Gather the training and validation curves of a sweep: a row per measure, a column per sigma.

    Repeats are thin curves below their mean: some may have left their plateau and others not, which a band would hide.
    """
    first, sigmas = runs[0], list(dict.fromkeys(run.config.sigma or 0.0 for run in runs))  # every run has one
    rows: list[list[Panel]] = [[] for _ in MEASURES]
    shown = splits or DURING
    for (name, row), sigma in product(zip(MEASURES, rows, strict=True), sigmas):
        mine = [run for run in runs if run.config.sigma == sigma]
        shares_y = name != "cost"  # the L2 term alone makes that of a large sigma several times that of a small one
        measured = [one for run in (runs if shares_y else mine) for one in epochs[run.id]]
        values = [getattr(one, f"{split}_{name}") for one in measured for split in DURING]
        scale = "linear" if name == "accuracy" else scale_of(values)
        lines = list[Line]()
        for bn, split in product((False, True), shown):
            if own := [run for run in mine if run.config.batch_norm is bn]:
                key, colour, style = f"{split}_{name}", OF_BN[bn], STYLES[split]
                if len(own) > 1 and split in DURING:
                    each = [line for run in own for line in mean_curve(None, [run], epochs, key, colour, style)]
                    lines += [replace(line, width=0.5) for line in each]
                label = f"{split}, {'with' if bn else 'without'} BN"
                means = mean_curve(label, complete_of(own), epochs, key, colour, style)
                lines += [replace(line, spread=()) for line in means]
        title = f"sigma {sigma:g}\n{words.run_numbers(mine)}" if name == MEASURES[0] else ""
        ylabel = name if sigma == sigmas[0] else ""
        xlabel = "update step" if name == MEASURES[-1] else ""
        row.append(Panel(lines, title, xlabel, ylabel, yscale=scale, cycle=shared_cycle(mine), shares_y=shares_y))
    network = f"{words.sweep_name(runs)}{words.subset_words(runs)}"
    repeated = "; of repeats, thin curves and their mean" if len(runs) > 2 * len(sigmas) else ""
    settings = words.settings_line(first, omit=("initializer",), together_with=runs)
    studies = words.numbered("study", list(dict.fromkeys(run.study_id or 0 for run in runs)))
    title, caption = f"Sigma and batch normalisation: {network}", f"{settings}, {studies}{repeated}"
    return Chart(title, caption + words.not_complete(runs), rows, max(7, 3.6 * len(sigmas)), 7.8, shares_axes=True)


def gradient_errors(checks: Sequence[GradientCheck]) -> Chart:
    """Gather the largest errors of a suite: a row per network, a mark per tensor, a cross where one failed."""
    rows = enumerate(checks)
    every = [(max(one.max_absolute, SMALLEST_ERROR), row, one) for row, check in rows for one in check.errors]
    lines: list[Line] = []
    for offset, (parameter, (marker, colour)) in enumerate(PARAMETERS.items()):
        of_it = [(x, row + 0.18 * (offset - 1.5)) for x, row, one in every if one.tensor.endswith(f".{parameter}")]
        lines += marks(parameter, of_it, colour, marker=marker, size=5.3)
    lines += marks("FAIL", [(x, row) for x, row, one in every if not one.passed], "black", marker="x", size=8.4)
    names, ylim = [gradient_check_title(check) for check in checks], (len(checks) - 0.5, -0.5)
    panel = Panel(lines, xlabel="max |ga - gn|", xscale="log", ylim=ylim, names=names)
    caption = f"suite {checks[0].suite}: {gradient_method(checks[0])}"
    title = "Gradient check: largest absolute error of every tensor"
    return Chart(title, caption, [[panel]], 9, 1 + 0.36 * len(checks))
