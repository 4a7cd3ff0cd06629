"""The curves of a sweep of sigma, with and without BN."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from klcli.report.plots.figure import BLUE, ORANGE, dress, legend_below_title, measured, new_figure, to_bytes
from klcli.report.words import layers_name, settings_line, statistics_words
from klcli.store.records import Epoch, Run

MEASURES = ("loss", "accuracy")
WIDE = 20.0  # with a larger loss the others would be a flat line on a linear axis; chance is ln 10 = 2.3


@dataclass(frozen=True)
class SigmaCurves:
    """The validation curves of every sigma."""

    title: str
    caption: str
    sigmas: list[float]
    curves: dict[tuple[float, bool], list[tuple[list[int], dict[str, list[float]]]]]  # (sigma, BN): steps, measures

    @property
    def largest_loss(self) -> float:
        """The largest loss of all curves."""
        return max((loss for many in self.curves.values() for _, one in many for loss in one["loss"]), default=0.0)


def sigma_curves(runs: Sequence[Run], epochs: Mapping[int, Sequence[Epoch]]) -> SigmaCurves:
    """Gather the validation curves of the runs of a sweep; repeats are curves of their own."""
    first = runs[0]
    curves: dict[tuple[float, bool], list[tuple[list[int], dict[str, list[float]]]]] = {}
    for run in runs:
        curve = ([epoch.step for epoch in epochs[run.id]], measured(epochs[run.id], "validation", MEASURES))
        curves.setdefault((_sigma(run), run.config.batch_norm), []).append(curve)
    return SigmaCurves(
        title=f"Sigma and batch normalisation: {layers_name(first.config)}, validation{statistics_words(runs)}",
        caption=f"{settings_line(first, omit=('initializer',), together_with=runs)}, study {first.study_id}",
        sigmas=list(dict.fromkeys(map(_sigma, runs))),
        curves=curves,
    )


def draw_sigma_sweep(sweep: SigmaCurves, suffix: str = "png") -> bytes:
    """Draw a column per sigma and a row per measure, with and without BN in each; return a picture file."""
    figure = new_figure(max(6, 3.4 * len(sweep.sigmas)), 6, sweep.title, sweep.caption)
    panels = figure.subplots(len(MEASURES), len(sweep.sigmas), sharex=True, sharey="row", squeeze=False)
    for column, sigma in enumerate(sweep.sigmas):
        for row, name in enumerate(MEASURES):
            axes = panels[row, column]
            for batch_norm, colour, style in ((False, ORANGE, "--"), (True, BLUE, "-")):
                for index, (steps, measures) in enumerate(sweep.curves.get((sigma, batch_norm), [])):
                    label = ("with BN" if batch_norm else "without BN") if index == 0 else None
                    marker = "o" if len(steps) < 3 else None  # a line of one point cannot be seen
                    axes.plot(steps, measures[name], color=colour, ls=style, marker=marker, label=label, alpha=0.85)
            dress(axes)
            if name == "loss":
                axes.set_yscale("log" if sweep.largest_loss > WIDE else "linear")
            if row == 0:
                axes.set_title(f"sigma {sigma:g}")
            if column == 0:
                axes.set_ylabel(name)
            if row == len(MEASURES) - 1:
                axes.set_xlabel("update step")
    # Outside of the panels, in which a curve may run anywhere.
    legend_below_title(figure, panels[0, 0], columns=2)
    return to_bytes(figure, suffix)


def _sigma(run: Run) -> float:
    return run.config.sigma or 0.0  # every run of a sweep has one
