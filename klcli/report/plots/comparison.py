"""Pictures of several runs: repeats as a band, and one network with and without batch normalisation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle, product
from statistics import fmean, stdev

from klcli.report import words
from klcli.report.plots.chart import BLUE, COLOURS, LINES, ORANGE, Chart, Line, Panel, steps_limit
from klcli.report.plots.training import MEASURES, cycle_length
from klcli.report.tables.groups import varying
from klcli.settings.sameness import SETTINGS, differences, without_seeds
from klcli.settings.setting import Setting
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Epoch, Run

Runs = Sequence[Run]
Epochs = Mapping[int, Sequence[Epoch]]
Curve = tuple[str, Runs, str, str, str]  # label, repeats, split, colour, style


def validation_overlay(runs: Runs, epochs: Epochs) -> Chart:
    """Gather the validation curves of runs with evaluations; repeats of one setting become one curve with a band."""
    drawn, empty = [run for run in runs if epochs[run.id]], [run for run in runs if not epochs[run.id]]
    groups: dict[tuple[str, TrainConfig], list[Run]] = {}
    for run in drawn:
        groups.setdefault((run.dataset_sha256, without_seeds(run.config)), []).append(run)
    repeats, looks = list(groups.values()), cycle(product(LINES, COLOURS))
    curves = [
        (f"{label} (n = {len(own)})" if len(own) > 1 else label, own, "validation", colour, style)
        for label, own, (style, colour) in zip(_labels(repeats), repeats, looks, strict=False)
    ]
    missing = f"without any evaluation: {words.run_numbers(empty)}" if empty else ""
    band = "the band is one standard deviation over seeds" if len(drawn) > len(repeats) else ""
    caption = (_common(drawn), words.run_numbers(drawn), missing, band)
    return _chart(f"Validation over update steps{words.subset_words(drawn)}", caption, curves, epochs)


def bn_overlay(without: Run, with_bn: Run, epochs: Epochs) -> Chart:
    """Gather train and validation curves of one network without and with BN, by colour; validation is dashed."""
    pair = (without, with_bn)
    curves: list[Curve] = [
        (f"{split}, {name}", [run], split, colour, style)
        for run, name, colour in ((without, "without BN", ORANGE), (with_bn, words.bn_words(with_bn.config), BLUE))
        for split, style in (("train", "-"), ("validation", "--"))
    ]
    also = ", ".join(
        f"{one.label} {one.words(words.setting_value(without, one.key))} without BN and "
        f"{one.words(words.setting_value(with_bn, one.key))} with it"
        for one in _differing(pair)
        if one.key not in words.IN_NAME
    )
    caption = (_common(pair), f"also different: {also}" if also else "", words.run_numbers(pair))
    title = f"Without and with batch normalisation: {words.network_name(without.config)}{words.subset_words(pair)}"
    return _chart(title, caption, curves, epochs)


def bn_pair(runs: Runs) -> tuple[Run, Run] | None:
    """Return the runs without and with BN, of equal images and widths, that differ in the fewest settings."""
    of = {run.id: (run.dataset_sha256, run.split, run.config.hidden) for run in runs}
    without, with_bn = ([run for run in runs if run.config.batch_norm is is_bn] for is_bn in (False, True))
    pairs = [(a, b) for a, b in product(without, with_bn) if of[a.id] == of[b.id]]
    return min(pairs, key=lambda pair: len(differences(pair[0].config, pair[1].config)), default=None)


def _chart(title: str, caption: Sequence[str], curves: Sequence[Curve], epochs: Epochs) -> Chart:
    cycles, panels = {cycle_length(run) for _, runs, *_ in curves for run in runs}, []
    for name in MEASURES:
        lines = [_mean_curve(label, runs, epochs, f"{split}_{name}", *look) for label, runs, split, *look in curves]
        panels.append(Panel(lines, name, xlim=steps_limit(lines), cycle=min(cycles) if len(cycles) == 1 else 0))
    return Chart(title, "; ".join(filter(None, caption)), [panels], 12, 4.4)


def _mean_curve(label: str, runs: Runs, epochs: Epochs, key: str, colour: str, style: str) -> Line:
    """Return the mean at the steps at which all runs were evaluated and, for several runs, the standard deviation."""
    by_step = [{epoch.step: getattr(epoch, key) for epoch in epochs[run.id]} for run in runs]
    steps = sorted(set(by_step[0]).intersection(*by_step[1:]))
    values = [[one[step] for one in by_step] for step in steps]
    return Line(label, steps, [*map(fmean, values)], colour, style, [*map(stdev, values)] if len(runs) > 1 else [])


def _differing(runs: Runs) -> list[Setting]:
    settings = [one for one in SETTINGS.values() if one.column in varying(runs)]
    return [one for one in settings if len({words.setting_value(run, one.key) for run in runs}) > 1]


def _labels(groups: Sequence[Runs]) -> list[str]:
    """Name each group by the settings in which it differs from the others; if two names are equal, add run numbers."""
    firsts = [members[0] for members in groups]
    differing = _differing(firsts)
    parts: list[list[str]] = [[] for _ in groups]
    splits = tuple(key for key in SETTINGS if key.startswith("split."))
    networks = [words.network_name(run.config) for run in firsts]
    for names, told in (([*map(words.images_words, firsts)], splits), (networks, words.IN_NAME)):
        if len(set(names)) > 1:
            parts = [[*part, name] for part, name in zip(parts, names, strict=True)]
            differing = [one for one in differing if one.key not in told]
    phrases = [_phrases(run, differing) for run in firsts]
    labels = [", ".join(filter(None, [*own, one])) or networks[0] for own, one in zip(parts, phrases, strict=True)]
    n = Counter(labels)
    named = zip(labels, groups, strict=True)
    return [label if n[label] == 1 else f"{label} ({words.run_numbers(own)})" for label, own in named]


def _phrases(run: Run, settings: Sequence[Setting]) -> str:
    """`lambda 0.1, momentum 0.9`; if all values are None, the settings without a value, as `without whitening`."""
    values = {one: words.setting_value(run, one.key) for one in settings}
    given = [one.phrase(value) for one, value in values.items() if value is not None]
    return ", ".join(given or [f"without {one.label}" for one in settings])


def _common(runs: Runs) -> str:
    if not runs:
        return ""
    lines = [{"network": words.network_name(run.config), **words.settings_words(run)} for run in runs]
    options, seeds = [one["options"].split(", ") for one in lines], words.settings_words(runs[0], runs)
    shared = {key: word if all(line[key] == word for line in lines) else "" for key, word in lines[0].items()}
    shared |= {"seed": seeds["seed"], "order": seeds["order"]}
    shared["options"] = ", ".join(word for word in options[0] if all(word in other for other in options))
    return ", ".join(filter(None, shared.values()))
