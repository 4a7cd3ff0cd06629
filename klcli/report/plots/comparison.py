"""Several runs in one picture: repeats as a band, and one network with and without batch normalisation."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean, stdev

from matplotlib.axes import Axes

from klcli.report.plots.figure import (
    BLUE,
    COLOURS,
    LINES,
    ORANGE,
    dress,
    legend_below_title,
    mark_cycles,
    measured,
    new_figure,
    say_empty,
    to_bytes,
)
from klcli.report.tables.groups import varying
from klcli.report.words import (
    IN_NAME,
    bn_words,
    images_words,
    network_name,
    options_words,
    setting_value,
    settings_words,
)
from klcli.settings.sameness import SETTINGS, differences, without_seeds
from klcli.settings.setting import Setting
from klcli.settings.train_config import CYCLIC, TrainConfig
from klcli.store.records import Epoch, Run

MEASURES = ("cost", "loss", "accuracy")
Runs = Sequence[Run]
Epochs = Mapping[int, Sequence[Epoch]]


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
    drawn = [run for run in runs if epochs[run.id]]
    groups: dict[tuple[str, TrainConfig], list[Run]] = {}
    for run in drawn:
        groups.setdefault((run.dataset_sha256, without_seeds(run.config)), []).append(run)
    repeats = list(groups.values())
    curves = [
        _curve(label, members, epochs, "validation") for label, members in zip(_labels(repeats), repeats, strict=True)
    ]
    empty = [run for run in runs if not epochs[run.id]]
    missing = f"without any evaluation: {_numbers(empty)}" if empty else ""
    band = "the band is one standard deviation over seeds" if any(curve.n > 1 for curve in curves) else ""
    numbers = _numbers(drawn) if drawn else ""
    return Overlay(
        title="Validation over update steps",
        caption=_joined(_common(drawn), numbers, missing, band),
        curves=curves,
        cycle=_cycle(drawn),
    )


def bn_overlay(without: Run, with_bn: Run, epochs: Epochs) -> Overlay:
    """Gather train and validation curves of one network without and with BN: four lines."""
    words = {without.id: "without BN", with_bn.id: bn_words(with_bn.config)}
    curves = [
        _curve(f"{split}, {words[run.id]}", [run], epochs, split)
        for run, split in product((without, with_bn), ("train", "validation"))
    ]
    others = [one for one in _differing([without, with_bn]) if one.key not in IN_NAME]
    pairs = [(one, setting_value(without, one.key), setting_value(with_bn, one.key)) for one in others]
    also = ", ".join(f"{one.label} {one.words(a)} without BN and {one.words(b)} with it" for one, a, b in pairs)
    different = f"also different: {also}" if also else ""
    return Overlay(
        title=f"Without and with batch normalisation: {network_name(without.config)}",
        caption=_joined(_common([without, with_bn]), different, _numbers([without, with_bn])),
        curves=curves,
        cycle=_cycle([without, with_bn]),
    )


def bn_pair(runs: Runs) -> tuple[Run, Run] | None:
    """Return the runs without and with BN that differ in the fewest settings, on the same images with equal widths."""
    pairs = [
        (a, b)
        for a, b in product(runs, runs)
        if not a.config.batch_norm and b.config.batch_norm and _is_comparable(a, b)
    ]
    return min(pairs, key=lambda pair: len(differences(pair[0].config, pair[1].config)), default=None)


def _is_comparable(a: Run, b: Run) -> bool:
    return (a.dataset_sha256, a.split, a.config.hidden) == (b.dataset_sha256, b.split, b.config.hidden)


def _differing(runs: Runs) -> list[Setting]:
    columns = varying(runs)
    settings = [one for one in SETTINGS.values() if one.column in columns]
    return [one for one in settings if len({setting_value(run, one.key) for run in runs}) > 1]


def _labels(groups: Sequence[Runs]) -> list[str]:
    """Name in what each group differs from the others; where no setting tells two of them apart, their runs do."""
    firsts = [members[0] for members in groups]
    differing = _differing(firsts)
    names: list[Callable[[Run], str]] = []
    for word, told in (
        (images_words, [key for key in SETTINGS if key.startswith("split.")]),
        (lambda run: network_name(run.config), IN_NAME),
    ):
        if len({word(run) for run in firsts}) > 1:
            names.append(word)
            differing = [one for one in differing if one.key not in told]
    parts = [[*(word(run) for word in names), _phrases(run, differing)] for run in firsts]
    labels = [", ".join(part for part in own if part) or network_name(firsts[0].config) for own in parts]
    n = Counter(labels)
    return [
        label if n[label] == 1 else f"{label} ({_numbers(members)})"
        for label, members in zip(labels, groups, strict=True)
    ]


def _phrases(run: Run, settings: Sequence[Setting]) -> str:
    """`lambda 0.1, momentum 0.9`; of a setting without a value, `without whitening`, where there is no other."""
    values = {one: setting_value(run, one.key) for one in settings}
    given = [one.phrase(value) for one, value in values.items() if value is not None]
    return ", ".join(given or [f"without {one.label}" for one in settings])


def _common(runs: Runs) -> str:
    """The network and the settings that all runs share."""
    if not runs:
        return ""
    lines = [{"network": network_name(run.config), **settings_words(run)} for run in runs]
    options = [options_words(run.config).split(", ") for run in runs]
    shared = {key: word for key, word in lines[0].items() if all(line[key] == word for line in lines)}
    shared |= {key: word for key, word in settings_words(runs[0], runs).items() if key in ("seed", "order")}
    shared["options"] = ", ".join(word for word in options[0] if all(word in other for other in options))
    return ", ".join(word for key in lines[0] if (word := shared.get(key)))


def draw_validation_overlay(overlay: Overlay, suffix: str = "png") -> bytes:
    """Draw cost, loss and accuracy side by side, a colour per curve; return a picture file."""
    styles = [(colour, line) for line in LINES for colour in COLOURS]
    return _draw(overlay, styles, suffix)


def draw_bn_overlay(overlay: Overlay, suffix: str = "png") -> bytes:
    """Draw the four lines: a colour for BN, dashes for validation; return a picture file."""
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
    """The number of labels that fit side by side into the legend."""
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
    by_step = [{epoch.step: epoch for epoch in epochs[run.id]} for run in runs]
    steps = sorted(set(by_step[0]).intersection(*by_step[1:]))
    repeats = [measured([one[step] for step in steps], split, MEASURES) for one in by_step]
    values = {name: list(zip(*(one[name] for one in repeats), strict=True)) for name in MEASURES}
    return Curve(
        label=label,
        steps=steps,
        mean={name: [fmean(column) for column in values[name]] for name in MEASURES},
        std={name: [stdev(column) if len(column) > 1 else 0.0 for column in values[name]] for name in MEASURES},
        n=len(runs),
    )


def _cycle(runs: Runs) -> int:
    """The length of a cycle, where all runs have the same."""
    lengths = {2 * run.step_size if run.config.schedule in CYCLIC else 0 for run in runs}
    return lengths.pop() if len(lengths) == 1 else 0


def _numbers(runs: Runs) -> str:
    return f"run{'s' if len(runs) > 1 else ''} {', '.join(str(run.id) for run in runs)}"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
