"""The curves of one run or of its repeats, its learning rate, and those of a learning-rate range test."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from klcli.report.plots.chart import (
    DURING,
    GREY,
    OF_SPLIT,
    STYLES,
    Chart,
    Line,
    Panel,
    curve,
    later_limits,
    steps_limit,
)
from klcli.report.tables.studies import suggestion_of
from klcli.report.tables.table import SPLITS
from klcli.report.words import counted, network_name, run_numbers, run_title, settings_line, subset_words
from klcli.settings.train_config import CYCLIC
from klcli.store.records import Epoch, Run
from klcli.training.budget import Budget

MEASURES = ("cost", "loss", "accuracy")
BAND = "the band is one standard deviation over seeds"
LINES_OF_A_CURVE = 50  # number of straight segments that look like a cosine
WORST = 2.0  # times the largest loss below the best eta: the upper limit of the axis, or the rest would be a flat line


def training_curves(runs: Sequence[Run], epochs: Mapping[int, Sequence[Epoch]], splits: Sequence[str] = ()) -> Chart:
    """Gather cost, loss, accuracy and learning rate of a run over update steps; for a range test, over eta.

    Several runs are repeats of one setting: their means, with a band over the seeds. Of the `splits`, by default train,
    validation and the accuracy of test. Repeats that are not complete are left out, because a mean ends with the
    shortest; without a complete one, all show.
    """
    if runs[0].config.schedule == "range":
        return _range_curves(runs[0], epochs[runs[0].id], splits)
    drawn = complete_of([run for run in runs if epochs[run.id]] or runs[:1])
    first, left = drawn[0], [f"run {run.id}, {run.state}" for run in runs if run not in drawn]
    panels = []
    for name in MEASURES:
        lines = list[Line]()
        for split in splits or (SPLITS if name == "accuracy" else DURING):
            label: str | None = split
            if split == "test":  # one entry of the legend, with the number that counts
                tests = [run.test_accuracy for run in drawn if run.test_accuracy is not None]
                label = f"test {fmean(tests):.4f}" if name == "accuracy" and tests else None
            lines += mean_curve(label, drawn, epochs, f"{split}_{name}", OF_SPLIT[split], STYLES[split], dots_below=40)
        ylim = None if name == "accuracy" else later_limits(lines)
        panels.append(Panel(lines, name, xlim=steps_limit(lines), ylim=ylim, cycle=cycle_length(first)))
    panels.append(_rate_panel(first, epochs[first.id], title="learning rate eta"))
    title, more = run_title("Run", first), [f"without {', '.join(left)}"] * bool(left)
    if len(drawn) > 1:
        title = f"{network_name(first.config)}, mean of {len(drawn)} runs{subset_words(drawn)}"
        more = [run_numbers(drawn), BAND, *more]
    elif first.state != "complete":
        more.append(first.state)
    caption = "; ".join([settings_line(first, together_with=drawn), *more])
    return Chart(title, caption, [panels[:2], panels[2:]], 10, 6.4)


def complete_of(runs: Sequence[Run]) -> Sequence[Run]:
    """Return the complete runs, or all if none is."""
    return [run for run in runs if run.state == "complete"] or runs


def mean_curve(
    label: str | None, runs: Sequence[Run], epochs: Mapping[int, Sequence[Epoch]], key: str, colour: str, style: str,
    dots_below: int = 3,
) -> list[Line]:  # fmt: skip
    """Return the mean of a metric such as `train_loss`, and for several runs its standard deviation, as one line.

    It has the steps at which all runs were evaluated. A metric of the test split, which is measured after the training,
    is a horizontal line over its length, and none if it was not measured.
    """
    if key.startswith("test"):
        values = [value for run in runs if (value := getattr(run, key)) is not None]
        last = max((epochs[run.id][-1].step for run in runs if epochs[run.id]), default=0)
        return [Line(label, (0, last), (fmean(values),) * 2, colour, style, dots_below=0)] if values else []
    by_step = [{epoch.step: getattr(epoch, key) for epoch in epochs[run.id]} for run in runs]
    steps = sorted(set(by_step[0]).intersection(*by_step[1:]))
    each = [[one[step] for one in by_step] for step in steps]
    spread = [*map(stdev, each)] if len(runs) > 1 else []
    return [Line(label, steps, [*map(fmean, each)], colour, style, spread, dots_below)]


def learning_rate_curve(run: Run, epochs: Sequence[Epoch]) -> Chart:
    """Gather eta over update steps."""
    panel = _rate_panel(run, epochs, ylabel="eta")
    return Chart(run_title("Learning rate, run", run), settings_line(run), [[panel]], 8, 3)


def cycle_length(run: Run) -> int:
    """Return the number of updates in a cycle, 0 without cycles. Raises StoreError if the row is damaged."""
    run.require_length()
    return 2 * run.step_size if run.config.schedule in CYCLIC else 0


def _rate_panel(run: Run, epochs: Sequence[Epoch], title: str = "", ylabel: str = "") -> Panel:
    steps, etas = zip(*learning_rates(run, epochs[-1]), strict=True) if epochs else ((), ())
    lines = [Line(None, steps, etas, GREY, dots_below=0)]
    return Panel(lines, title, ylabel=ylabel, xlim=steps_limit(lines), ylim=(0, None), cycle=cycle_length(run))


def learning_rates(run: Run, last: Epoch) -> list[tuple[float, float]]:
    """Return the vertices (step, eta) of a polyline up to the last evaluation."""
    config, updates, cycle = run.config, last.step, cycle_length(run)
    total = round(run.cycles * 2 * run.step_size)
    # n_s and the length are the stored values of the run: they do not depend on the available images.
    budget = Budget(config, round(total / run.epochs) if run.epochs else 1, run.step_size, total, ())
    if config.schedule == "constant":
        return [(step, budget.learning_rate(step, config)) for step in (0, updates)]
    length = cycle or total
    lines, points = 2 if config.schedule == "cyclical" else LINES_OF_A_CURVE, list[tuple[float, float]]()
    for piece in range(updates // cycle + 1 if cycle else 1):
        end = (piece + 1) * length
        steps = sorted({round(length * (piece + line / lines)) for line in range(lines)} - {end})
        points += [(step, budget.learning_rate(step, config)) for step in steps if step < updates]
        if 0 < end <= updates and config.schedule != "range":  # the end of a cosine, before eta jumps up again
            points.append((end, config.eta_min))
    if not points or points[-1][0] < updates:  # training ended within a cycle
        points.append((updates, last.learning_rate))
    return list(dict.fromkeys(points))


def _range_curves(run: Run, epochs: Sequence[Epoch], splits: Sequence[str]) -> Chart:
    found, panels = suggestion_of(run, epochs), []
    ends = (("min", found.eta_min), ("max", found.eta_max)) if found else ()
    limits = {f"suggested eta {end} {eta:.2g}": eta for end, eta in ends}
    for name in ("loss", "accuracy"):
        lines = [
            curve(epochs, f"{split}_{name}", split, OF_SPLIT[split], STYLES[split], x="learning_rate", dots_below=60)
            for split in splits or DURING
            if split != "test"
        ]
        losses, ylim = lines[-1].y if lines else (), None
        if name == "loss" and losses and max(losses) > WORST * losses[0]:
            ylim = 0.95 * min(min(line.y) for line in lines), WORST * losses[0]
        panels.append(Panel(lines, name, "eta", xscale="log", ylim=ylim, limits=limits))
    caption = f"{settings_line(run, omit=('cycles', 'n_s'))}, over {run.epochs:g} {counted(run.epochs, 'epoch')}"
    return Chart(run_title("Learning-rate range test, run", run), caption, [panels], 10, 4)
