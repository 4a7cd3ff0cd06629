"""Curves over update steps: of one run, its repeats or several settings, without and with BN, of a range test."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, product
from statistics import fmean, stdev
from textwrap import shorten
from typing import Any

from klcli.report import words
from klcli.report.plots import chart
from klcli.report.plots.chart import DURING, GREY, OF_BN, OF_SPLIT, STYLES, Chart, Line, Panel
from klcli.report.tables.groups import varying
from klcli.report.tables.studies import suggestion_of
from klcli.report.tables.table import SPLITS
from klcli.settings.sameness import SETTINGS, differences, settings_and_seeds, without_seeds
from klcli.settings.setting import with_valid
from klcli.settings.train_config import CYCLIC, TrainConfig
from klcli.store.records import Epoch, Run
from klcli.training.budget import Budget

Runs = Sequence[Run]
Epochs = Mapping[int, Sequence[Epoch]]
Curve = tuple[str, Runs, str, str, str]  # label, repeats, split, colour, style
MEASURES = ("cost", "loss", "accuracy")
BAND = "the band is one standard deviation over seeds"
LINES_OF_A_CURVE = 50  # number of straight segments that look like a cosine
WORST = 2.0  # times the largest loss below the best eta: the upper limit of the axis, or the rest would be a flat line


def training_curves(runs: Runs, epochs: Epochs, splits: Sequence[str] = ()) -> Chart:
    """Gather cost, loss, accuracy and learning rate of a run over update steps; for a range test, over eta.

    Several runs are repeats of one setting: their means, with a band over the seeds. Of the `splits`, by default train,
    validation and the accuracy of test. Repeats that are not complete are left out, because a mean ends with the
    shortest; without a complete one, all show.
    """
    if runs[0].config.schedule == "range":
        return _range_curves(runs[0], epochs[runs[0].id], splits)
    [drawn], left = _drawn(runs, [run for run in runs if epochs[run.id]] or runs[:1])
    first = drawn[0]
    tests = [run.test_accuracy for run in drawn if run.test_accuracy is not None]
    names = {"test": f"test {fmean(tests):.4f}"} if tests else {}  # the number that counts
    panels = []
    for name in MEASURES:
        own = splits or (SPLITS if name == "accuracy" else DURING)
        curves = [(names.get(split, split), drawn, split, OF_SPLIT[split], STYLES[split]) for split in own]
        panels.append(_panel(name, curves, epochs, dots_below=40))
    panels.append(_rate_panel(first, epochs[first.id], title="learning rate eta"))
    title, more = words.run_title("Run", first), [left]
    if len(drawn) > 1:
        title = f"{words.network_name(first.config)}, mean of {len(drawn)} runs{words.subset_words(drawn)}"
        more = [words.run_numbers(drawn), BAND, left]
    caption = "; ".join(filter(None, [words.settings_line(first, together_with=drawn), *more]))
    return Chart(title, caption + words.not_complete(drawn), [panels[:2], panels[2:]], 10, 6.4)


def _panel(name: str, curves: Sequence[Curve], epochs: Epochs, dots_below: int = 3) -> Panel:
    lines = list[Line]()
    for label, runs, split, colour, style in curves:
        lines += mean_curve(label, runs, epochs, f"{split}_{name}", colour, style, dots_below)
    ylim, scale = (None, "linear") if name == "accuracy" else chart.later_scale(lines)
    length = shared_cycle(run for _, runs, *_ in curves for run in runs)
    return Panel(lines, name, yscale=scale, from_zero=True, ylim=ylim, cycle=length)


def complete_of(runs: Runs) -> Runs:
    """Return the complete runs, or all if none is."""
    return [run for run in runs if run.state == "complete"] or runs


def mean_curve(
    label: str | None, runs: Runs, epochs: Epochs, key: str, colour: str, style: str, dots_below: int = 3
) -> list[Line]:
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
    title, caption = words.run_title("Learning rate, run", run), words.settings_line(run) + words.not_complete([run])
    return Chart(title, caption, [[_rate_panel(run, epochs, ylabel="eta")]], 8, 3)


def shared_cycle(runs: Iterable[Run]) -> int:
    """Return the number of updates in a cycle of all these runs, 0 if they differ or have none.

    Raises StoreError if a row is damaged.
    """
    lengths = set()
    for run in runs:
        run.require_length()
        lengths.add(2 * run.step_size if run.config.schedule in CYCLIC else 0)
    return lengths.pop() if len(lengths) == 1 else 0


def _rate_panel(run: Run, epochs: Sequence[Epoch], title: str = "", ylabel: str = "") -> Panel:
    steps, etas = zip(*learning_rates(run, epochs[-1]), strict=True) if epochs else ((), ())
    lines = [Line(None, steps, etas, GREY, dots_below=0)]
    return Panel(lines, title, ylabel=ylabel, from_zero=True, ylim=(0, None), cycle=shared_cycle([run]))


def learning_rates(run: Run, last: Epoch) -> list[tuple[float, float]]:
    """Return the vertices (step, eta) of a polyline up to the last evaluation."""
    config, updates, points = run.config, last.step, list[tuple[float, float]]()
    total = round(run.cycles * 2 * run.step_size)
    # n_s and the length are the stored values of the run: they do not depend on the available images.
    budget = Budget(config, 1, run.step_size, total, ())
    if config.schedule == "constant":
        return [(step, budget.learning_rate(step, config)) for step in (0, updates)]
    length, lines = shared_cycle([run]) or total, 2 if config.schedule == "cyclical" else LINES_OF_A_CURVE
    for start in range(0, updates, length or 1):
        steps = sorted({start + length * line // lines for line in range(lines)})
        points += [(step, budget.learning_rate(step, config)) for step in steps if step < updates]
        if start + length <= updates and config.schedule != "range":  # a cosine ends, before eta jumps up again
            points.append((start + length, config.eta_min))
    if not points or points[-1][0] < updates:  # training ended within a cycle
        points.append((updates, last.learning_rate))
    return list(dict.fromkeys(points))


def _range_curves(run: Run, epochs: Sequence[Epoch], splits: Sequence[str]) -> Chart:
    found, panels, etas = suggestion_of(run, epochs), [], [one.learning_rate for one in epochs]
    limits = {f"suggested eta {end} {eta:.2g}": eta for end, eta in zip(("min", "max"), found or (), strict=False)}
    shown = [split for split in splits or DURING if split != "test"]
    for name in ("loss", "accuracy"):
        measured = {split: [getattr(one, f"{split}_{name}") for one in epochs] for split in shown}
        lines = [Line(split, etas, y, OF_SPLIT[split], STYLES[split], dots_below=60) for split, y in measured.items()]
        losses, ylim = lines[-1].y if lines else (), None
        if name == "loss" and losses and max(losses) > WORST * losses[0]:
            ylim = 0.95 * min(min(line.y) for line in lines), WORST * losses[0]
        panels.append(Panel(lines, name, "eta", xscale="log", ylim=ylim, limits=limits))
    settings = words.settings_line(run, omit=("cycles", "n_s"))
    caption = f"{settings}, over {run.epochs:g} {words.counted(run.epochs, 'epoch')}{words.not_complete([run])}"
    return Chart(words.run_title("Learning-rate range test, run", run), caption, [panels], 10, 4)


FEW, LETTERS = 6, 60  # curves of a comparison, and the most letters of each label if there are more


def overlay(runs: Runs, epochs: Epochs, splits: Sequence[str] = ()) -> Chart:
    """Gather the validation curves of runs with evaluations, or those of the `splits`, a colour per setting.

    Repeats become one curve with a band. Of several splits, each has a style of its own. Of repeats, those that are not
    complete are left out if one is, because a mean ends with the shortest.
    """
    splits = splits or ("validation",)
    (groups, left), is_one = _drawn(runs, [run for run in runs if epochs[run.id]]), len(splits) == 1
    drawn = [run for own in groups for run in own]
    looks = cycle(chart.LOOKS if is_one else [("", colour) for colour in chart.COLOURS])
    if sorted(own[0].config.batch_norm for own in groups) == [False, True]:
        looks = cycle([("", OF_BN[own[0].config.batch_norm]) for own in groups])
    labels = _labels(groups) if len(groups) <= FEW else _shortened(_labels(groups))
    curves: list[Curve] = [
        (label if is_one else f"{split}, {label}", own, split, colour, style or ("-" if is_one else STYLES[split]))
        for label, own, (style, colour) in zip(labels, groups, looks, strict=False)
        for split in splits
    ]
    band = BAND if len(drawn) > len(groups) else ""
    what = " and ".join("training" if split == "train" else split for split in splits).capitalize()
    caption = (_common(drawn) + words.not_complete(drawn), band, left)
    return _chart(f"{what} over update steps{words.subset_words(drawn)}", caption, curves, epochs)


def bn_overlay(without: Runs, with_bn: Runs, epochs: Epochs, splits: Sequence[str] = ()) -> Chart:
    """Gather train and validation curves of one network, or its repeats, without and with BN: a colour for each.

    As in `overlay`, repeats that are not complete are left out if one is.
    """
    every = [*without, *with_bn]
    (without, with_bn), left = _drawn(every, every)
    both, first, other = [*without, *with_bn], without[0], with_bn[0]
    curves: list[Curve] = [
        (f"{split}, {name} ({words.run_numbers(runs)})", runs, split, OF_BN[runs is with_bn], STYLES[split])
        for runs, name in ((without, "without BN"), (with_bn, words.bn_words(other.config)))
        for split in splits or DURING
    ]
    differing = [one for one in varying([first, other]) if one.key not in words.IN_BN_WORDS]
    mine, its = ([one.words(words.setting_value(run, one.key)) for one in differing] for run in (first, other))
    also = [f"{one.label} {a} without BN and {b} with it" for one, a, b in zip(differing, mine, its, strict=True)]
    if first.method != other.method:
        also.append(f"{words.method_words(first)} without BN and {words.method_words(other)} with it")
    different = f"also different: {', '.join(also)}" if also else ""
    caption = (_common(both) + words.not_complete(both), different, BAND if len(both) > 2 else "", left)
    title = f"Without and with batch normalisation: {words.network_name(first.config)}{words.subset_words(both)}"
    return _chart(title, caption, curves, epochs)


def _drawn(runs: Runs, evaluated: Runs) -> tuple[list[Runs], str]:
    """Return the runs of each curve, which are evaluated, and for the caption those that are left out."""
    groups, why = [complete_of(own) for own in repeats(evaluated)], {"complete": "with settings and seeds of others"}
    out = [run for run in runs if not any(run in own for own in groups)]
    states = {run.state: [one for one in out if one.state == run.state] for run in out}
    left = ", ".join(f"{words.run_numbers(own)}, {why.get(state, state)}" for state, own in states.items())
    return groups, f"without {left}" if left else ""


def repeats(runs: Runs) -> list[list[Run]]:
    """Return the runs of each setting and method, which differ in their seeds alone, in the order of the first ones.

    Of several runs with one seed, a complete one, if possible with a test accuracy, is there alone: the others would
    narrow the band.
    """
    groups: dict[tuple[Any, ...], dict[Any, Run]] = {}
    for run in runs:
        repeated, seeds = settings_and_seeds(run.config)
        own = groups.setdefault((run.dataset_sha256, run.method, repeated), {})
        known = own.setdefault(seeds, run)
        if known.state != "complete" or known.test_accuracy is None is not run.test_accuracy:
            own[seeds] = run
    return [[*own.values()] for own in groups.values()]


def bn_pairs(runs: Runs) -> list[tuple[Runs, Runs]]:
    """Return the repeats without and with BN of each setting that has both, all else being equal.

    Those of one method are compared with each other; a report may have a quirk in the networks of one kind alone.
    """
    found: dict[tuple[str, TrainConfig], tuple[list[Runs], list[Runs]]] = {}
    for own in repeats(runs):
        alike = own[0].dataset_sha256, with_valid(without_seeds(own[0].config), batch_norm=True)
        found.setdefault(alike, ([], []))[own[0].config.batch_norm].append(own)
    pairs = [[*product(*both)] for both in found.values()]
    return [one for own in pairs for one in [(a, b) for a, b in own if a[0].method == b[0].method] or own[:1]]


def bn_pair(runs: Runs) -> tuple[Run, Run] | None:
    """Return the runs without and with BN, of equal images and widths, if possible of one method, that differ in the
    fewest settings.
    """
    of = {run.id: (run.dataset_sha256, run.split, run.config.hidden) for run in runs}
    without, with_bn = ([run for run in runs if run.config.batch_norm is is_bn] for is_bn in (False, True))
    pairs = [(a, b) for a, b in product(without, with_bn) if of[a.id] == of[b.id]]
    unlike = [(a.method != b.method, len(differences(a.config, b.config))) for a, b in pairs]
    return pairs[unlike.index(min(unlike))] if pairs else None


def _chart(title: str, caption: Sequence[str], curves: Sequence[Curve], epochs: Epochs) -> Chart:
    panels = [_panel(name, curves, epochs) for name in MEASURES]
    return Chart(title, "; ".join(filter(None, caption)), [panels], 12, 3.8)


def _labels(groups: Sequence[Runs]) -> list[str]:
    """Name each group by its run numbers and the settings in which it differs from the others."""
    firsts = [own[0] for own in groups]
    splits = tuple(key for key in SETTINGS if key.startswith("split."))
    images, methods = [*map(words.images_words, firsts)], [*map(words.method_words, firsts)]
    networks = [words.network_name(run.config) for run in firsts]
    every = ((images, splits), (networks, words.IN_NAME), (methods, ()))  # names, and the settings that they tell
    named = [(names, told) for names, told in every if len(set(names)) > 1]
    differing = [one for one in varying(firsts) if not any(one.key in told for _, told in named)]
    labels = []
    for number, own in enumerate(groups):
        values = {one: words.setting_value(own[0], one.key) for one in differing}
        phrases = [one.phrase(value) for one, value in values.items() if value is not None]
        phrases = phrases or [f"without {one.label}" for one in differing]  # all values are None
        parts = [*(names[number] for names, _ in named), *phrases]
        labels.append(f"{words.run_numbers(own)}: {', '.join(parts) or networks[0]}")
    return labels


def _shortened(labels: Sequence[str]) -> list[str]:
    """Return labels of at most LETTERS letters, or of as many as tell their settings apart."""
    for most in range(LETTERS, max(map(len, labels), default=0), LETTERS // 2):
        short = [shorten(label, most, placeholder=" ...") for label in labels]
        if len({label.partition(": ")[2] for label in short}) == len(labels):
            return short
    return [*labels]


def _common(runs: Runs) -> str:
    if not runs:
        return ""
    drawn = runs if all(run.split.split_seed is not None for run in runs) else ()  # the seeds are named together
    own = [words.settings_words(run) | {"images": words.images_words(run, *drawn)} for run in runs]
    lines = [{"network": words.network_name(run.config), **line} for run, line in zip(runs, own, strict=True)]
    configs, seeds = [run.config for run in runs], words.settings_words(runs[0], runs)
    options = [words.options_words(one, together_with=configs).split(", ") for one in configs]
    shared = {key: word if all(line[key] == word for line in lines) else "" for key, word in lines[0].items()}
    shared |= {"seed": seeds["seed"], "order": seeds["order"]}
    shared["options"] = ", ".join(word for word in options[0] if all(word in other for other in options))
    return ", ".join(filter(None, shared.values()))
