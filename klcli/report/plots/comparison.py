"""Several runs over one another, and the overlay of one network with and without batch normalisation."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean, stdev
from typing import Any

from matplotlib.axes import Axes

from klcli.report.plots.figure import (
    BLUE,
    COLOURS,
    LINES,
    ORANGE,
    dress,
    legend_below_title,
    mark_cycles,
    new_figure,
    say_empty,
    to_bytes,
)
from klcli.report.tables.table import bn_words, network_name, options_words, settings_line, significant
from klcli.report.words import images_words
from klcli.settings.train_config import CYCLIC

MEASURES = ("cost", "loss", "accuracy")
SEEDS = ("seed", "order_seed", "preset")  # of a config; runs that differ only in these are repeats
Runs = Sequence[Any]
Epochs = Mapping[int, Sequence[Any]]


@dataclass(frozen=True)
class Curve:
    """The mean of repeats over update steps, with one standard deviation; that of a single run is 0."""

    label: str
    steps: list[int]
    mean: dict[str, list[float]]  # cost, loss, accuracy
    std: dict[str, list[float]]
    n: int


@dataclass(frozen=True)
class Overlay:
    """Curves over one another."""

    title: str
    caption: str
    curves: list[Curve]
    cycle: int  # updates; 0 where the curves differ in it


def validation_overlay(runs: Runs, epochs: Epochs) -> Overlay:
    """Gather the validation curves of runs that have any; repeats of one setting become one curve with a band."""
    drawn = [run for run in runs if epochs[run["id"]]]
    groups: dict[str, list[Any]] = {}
    for run in drawn:
        settings = {key: value for key, value in json.loads(run["config"]).items() if key not in SEEDS}
        groups.setdefault(json.dumps([run["dataset_sha256"], settings]), []).append(run)
    differing = [word for word in _WORDS if len({word(members[0]) for members in groups.values()}) > 1] or [
        network_name
    ]
    curves = [
        _curve(", ".join(word(members[0]) for word in differing), members, epochs, "validation")
        for members in groups.values()
    ]
    common = ", ".join(dict.fromkeys(word(drawn[0]) for word in _WORDS if word not in differing)) if drawn else ""
    empty = [run for run in runs if not epochs[run["id"]]]
    missing = f"; without any evaluation: {_numbers(empty)}" if empty else ""
    band = "; the band is one standard deviation over seeds" if any(curve.n > 1 for curve in curves) else ""
    return Overlay(
        title="Validation over update steps",
        caption=f"{common}; {_numbers(drawn)}{missing}{band}" if drawn else missing.removeprefix("; "),
        curves=curves,
        cycle=_cycle(drawn),
    )


def bn_overlay(without: Any, with_bn: Any, epochs: Epochs) -> Overlay:
    """Gather train and validation curves of one network without and with BN: four lines."""
    curves = [
        _curve(f"{split}, {word}", [run], epochs, split)
        for (run, word), split in product(
            ((without, "without BN"), (with_bn, bn_words(with_bn))), ("train", "validation")
        )
    ]
    return Overlay(
        title=f"Without and with batch normalisation: {network_name(without)}",
        caption=f"{settings_line(without)}; {_numbers([without, with_bn])}",
        curves=curves,
        cycle=_cycle([without, with_bn]),
    )


def bn_pair(runs: Runs) -> tuple[Any, Any] | None:
    """Return the first two runs of which one has BN and the other does not, preferring those alike in all else."""
    pairs = [
        (a, b) for a, b in product(runs, runs) if (a["batch_norm"], b["batch_norm"]) == (0, 1) and _comparable(a, b)
    ]
    return min(pairs, key=lambda pair: sum(word(pair[0]) != word(pair[1]) for word in _FINE_WORDS), default=None)


def _comparable(a: Any, b: Any) -> bool:
    return all(a[key] == b[key] for key in ("dataset_sha256", "split", "hidden"))


def draw_validation_overlay(overlay: Overlay, suffix: str = "png") -> bytes:
    """Draw cost, loss and accuracy side by side, a colour per curve; return a picture file."""
    styles = [(colour, line) for line in LINES for colour in COLOURS]
    return _draw(overlay, styles, suffix)


def draw_bn_overlay(overlay: Overlay, suffix: str = "png") -> bytes:
    """Draw the four lines: colour tells BN, dashes tell validation; return a picture file."""
    return _draw(overlay, [(ORANGE, "-"), (ORANGE, "--"), (BLUE, "-"), (BLUE, "--")], suffix)


def _draw(overlay: Overlay, styles: Sequence[tuple[str, str]], suffix: str) -> bytes:
    legend_rows = -(-len(overlay.curves) // _columns(overlay))
    figure = new_figure(12, 4.4 + 0.22 * legend_rows, overlay.title, overlay.caption)
    panels = figure.subplots(1, len(MEASURES))
    for axes, name in zip(panels, MEASURES, strict=True):
        for index, curve in enumerate(overlay.curves):
            _draw_curve(axes, curve, name, styles[index % len(styles)])
        axes.set(title=name, xlabel="update step")
        dress(axes)
        if not overlay.curves:
            say_empty(axes)
        last = max((curve.steps[-1] for curve in overlay.curves if curve.steps), default=0)
        axes.set_xlim(0, last or 1)
        mark_cycles(axes, overlay.cycle, last)
    legend_below_title(figure, panels[0], _columns(overlay))
    return to_bytes(figure, suffix)


def _columns(overlay: Overlay) -> int:
    """How many labels fit side by side into the legend."""
    longest = max((len(curve.label) for curve in overlay.curves), default=1)
    return max(1, min(len(overlay.curves), 125 // (longest + 8)))


def _draw_curve(axes: Axes, curve: Curve, name: str, style: tuple[str, str]) -> None:
    colour, line = style
    mean, std = curve.mean[name], curve.std[name]
    label = f"{curve.label} (n = {curve.n})" if curve.n > 1 else curve.label
    axes.plot(curve.steps, mean, color=colour, ls=line, label=label, marker="o" if len(mean) == 1 else None)
    if curve.n > 1:
        low = [m - s for m, s in zip(mean, std, strict=True)]
        high = [m + s for m, s in zip(mean, std, strict=True)]
        axes.fill_between(curve.steps, low, high, color=colour, alpha=0.18, lw=0)


def _curve(label: str, runs: Runs, epochs: Epochs, split: str) -> Curve:
    """The mean curve over the steps at which all of the runs were evaluated."""
    by_step = [{epoch["step"]: epoch for epoch in epochs[run["id"]]} for run in runs]
    steps = sorted(set(by_step[0]).intersection(*by_step[1:]))
    values = {name: [[one[step][f"{split}_{name}"] for one in by_step] for step in steps] for name in MEASURES}
    return Curve(
        label=label,
        steps=steps,
        mean={name: [fmean(column) for column in values[name]] for name in MEASURES},
        std={name: [stdev(column) if len(column) > 1 else 0.0 for column in values[name]] for name in MEASURES},
        n=len(runs),
    )


def _cycle(runs: Runs) -> int:
    """The length of a cycle, where all runs have the same."""
    lengths = {2 * run["step_size"] if run["schedule"] in CYCLIC else 0 for run in runs}
    return lengths.pop() if len(lengths) == 1 else 0


def _numbers(runs: Runs) -> str:
    return f"run{'s' if len(runs) > 1 else ''} {', '.join(str(run['id']) for run in runs)}"


def _part(*keys: str) -> Callable[[Any], str]:
    """One piece of the settings line."""
    every = ("dataset", "lambda", "eta", "cycles", "n_s", "n_batch", "options", "initializer", "seed")
    return lambda run: settings_line(run, omit=tuple(key for key in every if key not in keys))


_WORDS: tuple[Callable[[Any], str], ...] = (
    images_words,
    network_name,
    _part("initializer"),
    lambda run: f"lambda {significant(run['lambda'])}",
    _part("eta"),
    _part("n_s"),
    _part("cycles"),
    _part("n_batch"),
    lambda run: options_words(run) or "sgd",
    lambda run: run["dtype"],
)
_FINE_WORDS = (*_WORDS[2:], _part("seed"))
