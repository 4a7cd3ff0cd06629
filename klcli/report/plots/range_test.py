"""A learning-rate range test: loss and accuracy over eta."""

from collections.abc import Sequence
from dataclasses import dataclass

from klcli.report.plots.figure import (
    GREY,
    TRAIN,
    VALIDATION,
    dress,
    legend_below_title,
    measured,
    new_figure,
    say_empty,
    to_bytes,
)
from klcli.report.tables.range_tests import suggestion_of
from klcli.report.words import counted, network_name, settings_line
from klcli.store.records import Epoch, Run
from klcli.studies.range_test import Suggestion

MEASURES = ("loss", "accuracy")
WORST = 2.0  # times the largest loss below the best eta: what is above is cut off, or the rest would be a flat line


@dataclass(frozen=True)
class RangeCurves:
    """The evaluations of one range test."""

    title: str
    caption: str
    etas: list[float]
    train: dict[str, list[float]]
    validation: dict[str, list[float]]
    suggestion: Suggestion | None


def range_curves(run: Run, epochs: Sequence[Epoch]) -> RangeCurves:
    """Gather the evaluations of a range test and what they suggest."""
    return RangeCurves(
        title=f"Learning-rate range test, run {run.id}: {network_name(run.config)}",
        caption=f"{settings_line(run, omit=('cycles', 'n_s'))}, over {run.epochs:g} {counted(run.epochs, 'epoch')}",
        etas=[epoch.learning_rate for epoch in epochs],
        train=measured(epochs, "train", MEASURES),
        validation=measured(epochs, "validation", MEASURES),
        suggestion=suggestion_of(run, epochs),
    )


def draw_range_test(curves: RangeCurves, suffix: str = "png") -> bytes:
    """Draw loss and accuracy over eta on a logarithmic axis, the suggestion as lines; return a picture file."""
    figure = new_figure(10, 4.6, curves.title, curves.caption)
    panels = figure.subplots(1, len(MEASURES))
    for axes, name in zip(panels, MEASURES, strict=True):
        marker = "o" if len(curves.etas) < 60 else None
        for label, colour, style, values in (
            ("train", TRAIN, "-", curves.train[name]),
            ("validation", VALIDATION, "--", curves.validation[name]),
        ):
            axes.plot(curves.etas, values, color=colour, ls=style, marker=marker, markersize=3, label=label)
        if curves.suggestion is not None:
            limits = (("eta min", curves.suggestion.eta_min, ":"), ("eta max", curves.suggestion.eta_max, "-."))
            for word, eta, style in limits:
                axes.axvline(eta, color=GREY, lw=1.2, ls=style, label=f"suggested {word} {eta:.2g}")
        axes.set(title=name, xlabel="eta", xscale="log")
        dress(axes)
        if not curves.etas:
            say_empty(axes)
    losses = curves.validation["loss"]
    if losses and max(losses) > WORST * losses[0]:
        panels[0].set_ylim(0.95 * min(*losses, *curves.train["loss"]), WORST * losses[0])
    if curves.etas:
        legend_below_title(figure, panels[0], columns=4)
    return to_bytes(figure, suffix)
