"""Pictures of a reproduction: the figures of a published report, drawn from our runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from klcli.procedures.searches import tried_values
from klcli.published.comparison import Comparison
from klcli.published.reproduction import Reproduction
from klcli.report.plots.chart import COLOURS, Chart, Line, Panel
from klcli.report.plots.comparison import bn_overlay
from klcli.report.plots.studies import lambda_search, sigma_curves
from klcli.report.plots.training import training_curves
from klcli.report.tables.table import SPLITS
from klcli.report.words import settings_line
from klcli.store.records import Epoch, Run
from klcli.studies.lambda_search import choose

Epochs = Callable[[int], Sequence[Epoch]]


def pictures(found: Reproduction, epochs: Epochs) -> Iterator[tuple[str, str, Callable[[], Chart]]]:
    """Yield the figures whose experiments have complete runs: name of the file, caption, function that gathers it."""
    report, marks = found.report, found.terms.brackets
    by_name = {one.name: one for one in report.experiments}
    for figure in report.figures:
        runs = {
            name: [
                run
                for base in by_name[name].configs
                for run in found.runs_of(base, by_name[name].method)
                if run.state == "complete"
            ]
            for name in figure.experiments
            if name in by_name
        }
        if len(runs) == len(figure.experiments) and all(runs.values()):
            first = figure.rows[0]
            rows = first if len(figure.rows) == 1 else f"{first} to {figure.rows[-1]}"
            words = f"{rows}: {', '.join(figure.experiments)}{marks}"
            yield f"{report.name}-{first}", words, partial(_chart, words, figure.panels, runs, epochs)
    for chain in (one for one in report.experiments if one.is_chain):
        lines = [one for one in found.comparisons if one.line.method == chain.method]
        runs_of_first = found.runs_of(chain.configs[0], chain.method)
        if runs_of_first and any(one.ours for one in lines):
            caption = f"{settings_line(runs_of_first[0], omit=('lambda',))}; no lambda starts from fresh weights"
            words = f"{lines[0].line.row} to {lines[-1].line.row}: {chain.name}{marks}"
            yield f"{report.name}-{lines[0].line.row}-warm-started", words, partial(warm_start, words, caption, lines)


def _chart(title: str, kind: str, runs: Mapping[str, list[Run]], epochs: Epochs) -> Chart:
    first, every = [many[0] for many in runs.values()], [run for many in runs.values() for run in many]
    if kind == "training":
        chart = training_curves(first[0], epochs(first[0].id))
    elif kind == "bn":
        chart = bn_overlay(first[0], first[1], {run.id: epochs(run.id) for run in first})
    elif kind == "sigma":
        chart = sigma_curves(every, {run.id: epochs(run.id) for run in every})
    else:
        [name] = runs
        chart = lambda_search([(name, every)], choose(tried_values(every, name), every[0].split.sizes()[1]))
    return replace(chart, title=title)


def warm_start(title: str, caption: str, compared: Sequence[Comparison]) -> Chart:
    """Gather the accuracies of a chain, ours as lines and the published ones as dots, except those without ours."""
    lines = []
    for split, colour in zip(SPLITS, COLOURS, strict=False):
        mine = [one for one in compared if one.line.quantity == f"{split}_accuracy"]
        pairs = [(one.ours.mean, one.line.published) for one in mine if one.ours and one.line.published is not None]
        places = range(1, len(pairs) + 1)
        lines.append(Line(split, places, [ours for ours, _ in pairs], colour))
        lines.append(Line(f"{split}, published", places, [number for _, number in pairs], colour, "", size=4))
    xlabel = "training, each with the weights of the one before"
    return Chart(title, caption, [[Panel(lines, "", xlabel, "accuracy", ylim=(0, 1.02))]], 8, 5)
