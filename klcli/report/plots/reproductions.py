"""Pictures of a reproduction: the figures of a published report, drawn from our runs."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from klcli.procedures.searches import tried_values
from klcli.published.intervals import images_of
from klcli.published.report import Comparison
from klcli.published.reproduction import Reproduction
from klcli.report.plots.chart import COLOURS, DURING, OF_SPLIT, Chart, Line, Panel
from klcli.report.plots.curves import bn_overlay, overlay, repeats, training_curves
from klcli.report.plots.studies import lambda_search, sigma_curves
from klcli.report.words import network_name, settings_line
from klcli.settings.setting import require
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Epoch, Run
from klcli.studies.lambda_search import choose

TICKS = 15  # the most trainings of a chain that each have a number on the axis
Epochs = Callable[[int], Sequence[Epoch]]


def pictures(
    found: Reproduction, epochs: Epochs, kind: str | None = None, splits: Sequence[str] = ()
) -> Iterator[tuple[str, str, Callable[[], Chart]]]:
    """Yield the figures whose experiments have complete runs: name of the file, caption, function that gathers it.

    With `kind`, only those with such panels; with `splits`, only the curves of these.
    """
    report, runs_of, names = found.report, found.evidence.runs_of, Counter[str]()

    def named(rows: Sequence[str], what: str, end: str = "") -> tuple[str, str]:
        """Return the name of a file, unlike that of another figure that begins with the same row, and the caption."""
        first, last = rows[0], rows[-1]
        names[first + end] += 1
        again = f"-figure-{names[first + end]}" if names[first + end] > 1 else ""
        caption = f"{first if first == last else f'{first} to {last}'}: {what}{found.terms.brackets}"
        return f"{report.name}-{first}{again}{end}", caption

    trained = {
        one.name: [run for base in one.configs for run in runs_of(base, one.method)] for one in report.experiments
    }
    complete = {name: [run for run in many if run.state == "complete"] for name, many in trained.items()}
    searches = [one.line.conclusion for one in found.comparisons if one.line.quantity == "lambda"]
    chosen_by = {name: one.quantity for one in searches if one for name in one.experiments}
    for figure in report.figures:
        name, words = named(figure.rows, ", ".join(figure.experiments))
        if kind in (None, figure.panels) and all(complete.get(one) for one in figure.experiments):
            of = trained if figure.panels == "lambda" else complete  # a lambda of which some diverged is chosen last
            runs = {one: of[one] for one in figure.experiments}
            by = chosen_by.get(figure.experiments[0], "validation_accuracy")
            yield name, words, partial(_chart, words, figure.panels, runs, epochs, splits, by)
    shown = {f"{split}_accuracy" for split in splits or OF_SPLIT}
    for chain in (one for one in report.experiments if one.is_chain and kind in (None, "lambda")):
        method, configs = chain.method, chain.configs
        lines = [one for one in found.comparisons if one.line.method == method and one.line.config in configs]
        name, words = named([one.line.row for one in lines] or [""], chain.name, "-warm-started")
        has_any = any(one.ours and one.line.quantity in shown for one in lines)
        if has_any and (runs_of_first := runs_of(configs[0], method)):
            settings = settings_line(runs_of_first[0], omit=("lambda",), together_with=runs_of_first)
            is_first = chain is next(one for one in report.experiments if one.method == method)
            fresh = "only the first lambda" if is_first else "no lambda"
            caption = f"{network_name(configs[0])}, {settings}; {fresh} starts from fresh weights"
            yield name, words, partial(warm_start, words, caption, lines, configs, splits)


def _chart(
    title: str, kind: str, runs: Mapping[str, list[Run]], epochs: Epochs, splits: Sequence[str], chosen_by: str
) -> Chart:
    every = [run for many in runs.values() for run in many]
    curves, settings = {run.id: epochs(run.id) for run in every}, repeats(every)
    without, with_bn = ([own for own in settings if own[0].config.batch_norm is bn] for bn in (False, True))
    if kind == "lambda":
        measured = chosen_by.removesuffix("_accuracy")
        tried = [one for name, many in runs.items() for one in tried_values(many, name, measured)]
        choice = choose(tried, images_of(chosen_by, every[0].split))
        chart = lambda_search([*runs.items()], choice, *(splits or [measured])[:1])
    elif kind == "sigma" and len(settings) == len({(run.config.sigma, run.config.batch_norm) for run in every}):
        chart = sigma_curves(every, curves, splits)
    elif kind == "bn" and len(without) == len(with_bn) == 1:
        chart = bn_overlay(without[0], with_bn[0], curves, splits)
    elif len(settings) > 1:
        is_clear = len(settings) <= len(COLOURS)
        require(is_clear or len(splits) < 2, f"--split: {len(settings)} settings need one split, name one")
        chart = overlay(every, curves, splits or (DURING if is_clear else ("validation",)))
    else:
        chart = training_curves(every, curves, splits)
    # Its own title, which names networks and subsets, begins the settings.
    return replace(chart, title=title, caption=f"{chart.title}; {chart.caption}")


def warm_start(
    title: str, caption: str, compared: Sequence[Comparison], chain: Sequence[TrainConfig], splits: Sequence[str] = ()
) -> Chart:
    """Gather the accuracies of a chain, ours as lines and the published ones as rings, except those without ours.

    Their places are those of their trainings in the chain, of which the report may give some alone.
    """
    lines = []
    for split, colour in ((one, OF_SPLIT[one]) for one in OF_SPLIT if one in (splits or OF_SPLIT)):
        mine = [one for one in compared if one.line.quantity == f"{split}_accuracy" and one.line.config in chain]
        points = sorted(
            (chain.index(one.line.config) + 1, one.ours.mean, one.line.published)
            for one in mine
            if one.ours and one.line.config and one.line.published is not None
        )
        if points:
            places, ours, published = zip(*points, strict=True)
            lines.append(Line(split, places, ours, colour))
            lines.append(Line(f"{split}, published", places, published, colour, "", size=7, fill="none"))
    xlabel = "training, each with the weights of the one before"
    xticks = range(1, len(chain) + 1, 1 + len(chain) // TICKS)
    return Chart(title, caption, [[Panel(lines, "", xlabel, "accuracy", ylim=(0, 1.02), xticks=xticks)]], 8, 4.4)
