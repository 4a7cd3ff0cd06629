"""Pictures of several runs: repeats as a band, and one network with and without batch normalisation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle, product
from textwrap import shorten

from klcli.report import words
from klcli.report.plots.chart import COLOURS, DURING, LINES, OF_BN, STYLES, Chart, Panel, later_limits, steps_limit
from klcli.report.plots.training import BAND, MEASURES, complete_of, cycle_length, mean_curve
from klcli.report.tables.groups import varying
from klcli.settings.sameness import SETTINGS, differences, without_seeds
from klcli.settings.setting import Setting
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Epoch, Run

Runs = Sequence[Run]
Epochs = Mapping[int, Sequence[Epoch]]
Curve = tuple[str, Runs, str, str, str]  # label, repeats, split, colour, style
FEW, LETTERS = 6, 60  # curves of a comparison, and the most letters of each label if there are more


def overlay(runs: Runs, epochs: Epochs, splits: Sequence[str] = ("validation",)) -> Chart:
    """Gather the curves of runs with evaluations, a colour per setting; its repeats become one curve with a band.

    Of several splits, each has a style of its own. Of repeats, those that are not complete are left out if one is,
    because a mean ends with the shortest.
    """
    measured, empty = [run for run in runs if epochs[run.id]], [run for run in runs if not epochs[run.id]]
    groups, is_one = [complete_of(own) for own in repeats(measured)], len(splits) == 1
    drawn = [run for run in measured if any(run in own for own in groups)]
    left = ", ".join(f"run {run.id}, {run.state}" for run in measured if run not in drawn)
    looks = cycle(product(LINES, COLOURS) if is_one else [("", colour) for colour in COLOURS])
    if sorted(own[0].config.batch_norm for own in groups) == [False, True]:
        looks = cycle([("", OF_BN[own[0].config.batch_norm]) for own in groups])
    labels = [label if len(groups) <= FEW else shorten(label, LETTERS, placeholder=" ...") for label in _labels(groups)]
    curves: list[Curve] = [
        (label if is_one else f"{split}, {label}", own, split, colour, style or ("-" if is_one else STYLES[split]))
        for label, own, (style, colour) in zip(labels, groups, looks, strict=False)
        for split in splits
    ]
    missing = f"without any evaluation: {words.run_numbers(empty)}" if empty else ""
    band = BAND if len(drawn) > len(groups) else ""
    what = " and ".join("training" if split == "train" else split for split in splits).capitalize()
    caption = (_common(drawn), missing, band, f"without {left}" if left else "")
    return _chart(f"{what} over update steps{words.subset_words(drawn)}", caption, curves, epochs)


def bn_overlay(without: Runs, with_bn: Runs, epochs: Epochs, splits: Sequence[str] = ()) -> Chart:
    """Gather train and validation curves of one network, or its repeats, without and with BN: a colour for each."""
    both, first, other = [*without, *with_bn], without[0], with_bn[0]
    curves: list[Curve] = [
        (f"{split}, {name} ({words.run_numbers(runs)})", runs, split, OF_BN[runs is with_bn], STYLES[split])
        for runs, name in ((without, "without BN"), (with_bn, words.bn_words(other.config)))
        for split in splits or DURING
    ]
    also = ", ".join(
        f"{one.label} {one.words(words.setting_value(first, one.key))} without BN and "
        f"{one.words(words.setting_value(other, one.key))} with it"
        for one in _differing([first, other])
        if one.key not in words.IN_NAME
    )
    caption = (_common(both), f"also different: {also}" if also else "", BAND if len(both) > 2 else "")
    title = f"Without and with batch normalisation: {words.network_name(first.config)}{words.subset_words(both)}"
    return _chart(title, caption, curves, epochs)


def repeats(runs: Runs) -> list[list[Run]]:
    """Return the runs of each setting, which differ in their seeds alone, in the order of the first ones."""
    groups: dict[tuple[str, TrainConfig], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.dataset_sha256, without_seeds(run.config)), []).append(run)
    return [*groups.values()]


def bn_pairs(runs: Runs) -> list[tuple[Runs, Runs]]:
    """Return the repeats without and with BN of each setting that has both, all else being equal."""
    found: dict[tuple[str, TrainConfig], dict[bool, Runs]] = {}
    for own in repeats(runs):
        alike = own[0].dataset_sha256, replace(without_seeds(own[0].config), batch_norm=True)
        found.setdefault(alike, {})[own[0].config.batch_norm] = complete_of(own)
    return [(both[False], both[True]) for both in found.values() if len(both) == 2]


def bn_pair(runs: Runs) -> tuple[Run, Run] | None:
    """Return the runs without and with BN, of equal images and widths, that differ in the fewest settings."""
    of = {run.id: (run.dataset_sha256, run.split, run.config.hidden) for run in runs}
    without, with_bn = ([run for run in runs if run.config.batch_norm is is_bn] for is_bn in (False, True))
    pairs = [(a, b) for a, b in product(without, with_bn) if of[a.id] == of[b.id]]
    return min(pairs, key=lambda pair: len(differences(pair[0].config, pair[1].config)), default=None)


def _chart(title: str, caption: Sequence[str], curves: Sequence[Curve], epochs: Epochs) -> Chart:
    cycles, panels = {cycle_length(run) for _, runs, *_ in curves for run in runs}, []
    for name in MEASURES:
        lines = [
            line
            for label, runs, split, colour, style in curves
            for line in mean_curve(label, runs, epochs, f"{split}_{name}", colour, style)
        ]
        ylim, length = later_limits(lines) if name != "accuracy" else None, min(cycles) if len(cycles) == 1 else 0
        panels.append(Panel(lines, name, xlim=steps_limit(lines), ylim=ylim, cycle=length))
    return Chart(title, "; ".join(filter(None, caption)), [panels], 12, 3.8)


def _differing(runs: Runs) -> list[Setting]:
    return [one for one in varying(runs) if len({words.setting_value(run, one.key) for run in runs}) > 1]


def _labels(groups: Sequence[Runs]) -> list[str]:
    """Name each group by its run numbers and the settings in which it differs from the others."""
    firsts = [members[0] for members in groups]
    differing = _differing(firsts)
    parts: list[list[str]] = [[] for _ in groups]
    splits = tuple(key for key in SETTINGS if key.startswith("split."))
    networks = [words.network_name(run.config) for run in firsts]
    for names, told in (([*map(words.images_words, firsts)], splits), (networks, words.IN_NAME)):
        if len(set(names)) > 1:
            parts = [[*part, name] for part, name in zip(parts, names, strict=True)]
            differing = [one for one in differing if one.key not in told]
    labels = []
    for own, part in zip(groups, parts, strict=True):
        values = {one: words.setting_value(own[0], one.key) for one in differing}
        phrases = [one.phrase(value) for one, value in values.items() if value is not None]
        part += phrases or [f"without {one.label}" for one in differing]  # all values are None
        labels.append(f"{words.run_numbers(own)}: {', '.join(part) or networks[0]}")
    return labels


def _common(runs: Runs) -> str:
    if not runs:
        return ""
    lines = [{"network": words.network_name(run.config), **words.settings_words(run)} for run in runs]
    options, seeds = [one["options"].split(", ") for one in lines], words.settings_words(runs[0], runs)
    shared = {key: word if all(line[key] == word for line in lines) else "" for key, word in lines[0].items()}
    shared |= {"seed": seeds["seed"], "order": seeds["order"]}
    shared["options"] = ", ".join(word for word in options[0] if all(word in other for other in options))
    return ", ".join(filter(None, shared.values()))
