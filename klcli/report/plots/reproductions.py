"""Pictures of a reproduction: the panels that a published report draws, from our runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from klcli.procedures.searches import tried_values
from klcli.published.report import Figure
from klcli.published.reproduction import Reproduction
from klcli.report.plots.comparison import bn_overlay, draw_bn_overlay
from klcli.report.plots.lambda_search import draw_lambda_search, lambda_search
from klcli.report.plots.sigma_sweep import draw_sigma_sweep, sigma_curves
from klcli.report.plots.training import draw_training, training_curves
from klcli.report.plots.warm_start import draw_warm_start, warm_start
from klcli.report.words import settings_line
from klcli.store.records import Epoch, Run
from klcli.studies.lambda_search import choose

Epochs = Callable[[int], Sequence[Epoch]]


def pictures(found: Reproduction, epochs: Epochs, suffix: str = "png") -> Iterator[tuple[str, str, bytes]]:
    """Yield every figure that can be drawn: a name for its file, what it shows in words, the picture.

    What has no complete run has no figure.
    """
    by_name = {one.name: one for one in found.report.experiments}
    marks = "".join(f" [{mark.partition(':')[0]}]" for mark in found.terms.marks)
    for figure in found.report.figures:
        experiments = [by_name[name] for name in figure.experiments if name in by_name]
        runs = {
            one.name: [run for base in one.configs for run in found.runs_of(base) if run.state == "complete"]
            for one in experiments
        }
        if len(experiments) < len(figure.experiments) or not all(runs.values()):
            continue
        words = f"{_rows(figure)}: {', '.join(figure.experiments)}{marks}"
        yield f"{found.report.name}-{figure.rows[0]}", words, _draw(figure, words, runs, epochs, suffix)
    for chain in (one for one in found.report.experiments if one.is_chain):
        lines = [one for one in found.comparisons if one.line.config in chain.configs]
        runs_of_first = found.runs_of(chain.configs[0])
        if runs_of_first and any(one.ours for one in lines):
            caption = f"{settings_line(runs_of_first[0], omit=('lambda',))}; no lambda starts from fresh weights"
            words = f"{lines[0].line.row} to {lines[-1].line.row}: {chain.name}{marks}"
            drawn = draw_warm_start(warm_start(words, caption, lines), suffix)
            yield f"{found.report.name}-{lines[0].line.row}-as-published", words, drawn


def _draw(figure: Figure, title: str, runs: Mapping[str, list[Run]], epochs: Epochs, suffix: str) -> bytes:
    first = [many[0] for many in runs.values()]
    every = [run for many in runs.values() for run in many]
    if figure.panels == "training":
        return draw_training(replace(training_curves(first[0], epochs(first[0].id)), title=title), suffix)
    if figure.panels == "bn":
        without, with_bn = first
        overlay = bn_overlay(without, with_bn, {run.id: epochs(run.id) for run in first})
        return draw_bn_overlay(replace(overlay, title=title), suffix)
    if figure.panels == "sigma":
        curves = sigma_curves(every, {run.id: epochs(run.id) for run in every})
        return draw_sigma_sweep(replace(curves, title=title), suffix)
    [(name, searched)] = runs.items()
    choice = choose(tried_values(searched, name), searched[0].split.sizes()[1])
    return draw_lambda_search(replace(lambda_search([(name, searched)], choice), title=title), suffix)


def _rows(figure: Figure) -> str:
    """`003-T2a to 003-T2d`."""
    return figure.rows[0] if len(figure.rows) == 1 else f"{figure.rows[0]} to {figure.rows[-1]}"
