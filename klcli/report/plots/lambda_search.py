"""The lambdas of a search against their validation accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.ticker import LogLocator, NullFormatter

from klcli.procedures.searches import tried_values
from klcli.report.plots.figure import BLUE, GREEN, GREY, ORANGE, PINK, YELLOW, dress, new_figure, to_bytes
from klcli.report.words import network_name, settings_line
from klcli.store.records import Run
from klcli.studies.lambda_search import Choice

_STAGE_MARKS = (("o", BLUE), ("^", ORANGE), ("s", GREEN), ("D", PINK), ("v", YELLOW))


@dataclass(frozen=True)
class LambdaScatter:
    """The points of a search."""

    title: str
    caption: str
    stages: list[tuple[str, list[tuple[float, float]]]]  # stage, (lambda, validation accuracy) of every run
    chosen: tuple[float, float]
    plateau: tuple[float, float]  # lambdas from and to
    plateau_floor: float  # the accuracy one standard error below the best


def lambda_search(stages: Sequence[tuple[str, Sequence[Run]]], choice: Choice) -> LambdaScatter:
    """Gather the points of a search; runs that diverged have none."""
    first = stages[0][1][0]
    together = [run for _, runs in stages for run in runs]
    studies = ", ".join(str(runs[0].study_id) for _, runs in stages)
    return LambdaScatter(
        title=f"Lambda search: {network_name(first.config)}",
        caption=f"{settings_line(first, omit=('lambda',), together_with=together)}, study {studies}",
        stages=[
            (stage, [(one.lam, accuracy) for one in tried_values(runs, stage) for accuracy in one.accuracies])
            for stage, runs in stages
        ],
        chosen=(choice.chosen.lam, choice.chosen.accuracy),
        plateau=(choice.plateau[0].lam, choice.plateau[-1].lam),
        plateau_floor=choice.best.accuracy - choice.standard_error,
    )


def draw_lambda_search(scatter: LambdaScatter, suffix: str = "png") -> bytes:
    """Draw validation accuracy over lambda on a logarithmic axis; return a picture file."""
    figure = new_figure(8, 5, scatter.title, scatter.caption)
    axes = figure.subplots()
    axes.axhspan(scatter.plateau_floor, scatter.chosen[1], color=GREY, alpha=0.15, lw=0, label="one standard error")
    for (stage, points), (marker, colour) in zip(scatter.stages, cycle(_STAGE_MARKS), strict=False):
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, marker=marker, color=colour, s=42, label=stage, zorder=3)
    axes.scatter(*scatter.chosen, s=190, facecolors="none", edgecolors="black", lw=1.6, zorder=4)
    axes.annotate(
        f"chosen {scatter.chosen[0]:.4g}", scatter.chosen, xytext=(0, 12), textcoords="offset points", ha="center"
    )
    lambdas = [x for _, points in scatter.stages for x, _ in points]
    axes.set(xlabel="lambda", ylabel="validation accuracy")
    axes.margins(y=0.15)
    if min(lambdas) > 0:
        axes.set_xscale("log")
        if max(lambdas) / min(lambdas) < 100:  # too few powers of ten to read by
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
    # Above the points: inside the axes it would hide some of them, wherever it stands.
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(scatter.stages) + 1, borderaxespad=0)
    dress(axes)
    return to_bytes(figure, suffix)
