"""The curves of a sweep of sigma, with and without BN."""

from collections.abc import Mapping, Sequence

from klcli.report.plots.figure import BLUE, ORANGE, Chart, Line, Panel
from klcli.report.words import layers_name, settings_line, statistics_words
from klcli.store.records import Epoch, Run

MEASURES = ("loss", "accuracy")
WIDE = 20.0  # with a larger loss the others would be a flat line on a linear axis; chance is ln 10 = 2.3
LOOKS = {False: ("without BN", ORANGE, "--"), True: ("with BN", BLUE, "-")}


def sigma_curves(runs: Sequence[Run], epochs: Mapping[int, Sequence[Epoch]]) -> Chart:
    """Gather the validation curves of a sweep, a column per sigma, a row per measure; repeats are own curves."""
    first, sigmas = runs[0], list(dict.fromkeys(run.config.sigma or 0.0 for run in runs))  # every run has one
    is_wide = max((epoch.validation_loss for run in runs for epoch in epochs[run.id]), default=0.0) > WIDE
    rows = []
    for name in MEASURES:
        row = []
        for sigma in sigmas:
            lines = []
            for run in sorted(
                (run for run in runs if run.config.sigma == sigma), key=lambda run: run.config.batch_norm
            ):
                label, colour, style = LOOKS[run.config.batch_norm]
                values = [getattr(epoch, f"validation_{name}") for epoch in epochs[run.id]]
                lines.append(Line(label, [epoch.step for epoch in epochs[run.id]], values, colour, style))
            scale = "log" if is_wide and name == "loss" else "linear"
            title, ylabel = f"sigma {sigma:g}" if name == MEASURES[0] else "", name if sigma == sigmas[0] else ""
            xlabel = "update step" if name == MEASURES[-1] else ""
            row.append(Panel(lines, title, xlabel, ylabel, yscale=scale))
        rows.append(row)
    title = f"Sigma and batch normalisation: {layers_name(first.config)}, validation{statistics_words(runs)}"
    caption = f"{settings_line(first, omit=('initializer',), together_with=runs)}, study {first.study_id}"
    return Chart(title, caption, rows, max(6, 3.4 * len(sigmas)), 6, shares_axes=True)
