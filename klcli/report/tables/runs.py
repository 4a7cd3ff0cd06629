"""Tables of runs: ranking, list, comparison side by side, and the splits of one run."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from klcli.report import words
from klcli.report.tables.table import SPLITS, Column, Shown, Table, fraction, numbers, seconds, show, significant, texts
from klcli.settings.columns import columns
from klcli.settings.sameness import SETTINGS
from klcli.settings.split_config import SplitConfig
from klcli.store.records import Evaluation, ImageSet, Run

MEASURES = tuple(f"{split}_{name}" for split in SPLITS for name in ("accuracy", "loss", "cost"))
ENSEMBLE = tuple(f"ensemble_{split}_{name}" for split in SPLITS[1:] for name in ("accuracy", "loss"))
RESULTS = (*MEASURES, *ENSEMBLE, "best_validation_accuracy")  # columns that are comparable only on the same images
LONGEST = 60  # characters of a note in a list
IN_RANKING = ("hidden", "batch_norm", "bn_position", "bn_statistics", "lam", "initializer", "sigma", "seed")
Line = tuple[str, list[Any], Callable[[Any], str]]  # row of the comparison: title, one value per run, format


def ranking_table(runs: Sequence[Run], by: str) -> Table:
    """Runs on the same images, in the order of one of their columns."""
    title = f"Best runs on {runs[0].dataset}, by {by.replace('_', ' ')}; {words.split_words(runs[0].split)}"
    is_shown = by in ("id", *(column.key for column in _RANKING))
    return _runs_table(
        title,
        runs,
        _RANKING,
        () if is_shown else numbers(lambda value: significant(value) if isinstance(value, float) else str(value), by),
    )


def summary_table(image_sets: Sequence[ImageSet], best: Sequence[Run]) -> Table:
    """The number of runs on each set of images, and the best run."""
    pairs = zip(image_sets, best, strict=True)
    rows = [_row(run) | {"images": words.images_words(run), "runs": images.runs} for images, run in pairs]
    columns = (
        *texts("images"),
        *numbers(str, runs="complete runs", id="best run"),
        *texts("network"),
        *numbers(fraction, validation_accuracy="validation", test_accuracy="test"),
    )
    return Table("The best run by validation accuracy", columns, rows)


def list_table(runs: Sequence[Run], title: str) -> Table:
    """Runs of any images in any state."""
    return _runs_table(title, runs, _LIST)


def _runs_table(title: str, runs: Sequence[Run], columns: Sequence[Column], extra: Sequence[Column] = ()) -> Table:
    rows = [_row(run) for run in runs]
    optional = [column for column in (*extra, *_OPTIONAL) if any(row.get(column.key) is not None for row in rows)]
    return Table(title, (*columns, *optional), rows)


def _row(run: Run) -> dict[str, Any]:
    """A run by the columns of the database, with the name of its network and its other settings."""
    own = {
        "network": words.network_name(run.config),
        "settings": words.options_words(run.config, IN_RANKING) or None,
        "dataset": Shown(run.dataset, run.dataset if run.split == SplitConfig() else words.images_words(run)),
    }
    return vars(run) | columns(run.config) | own


def _short(text: str) -> str:
    """A text on one line, truncated to LONGEST characters; `--run` shows the whole text."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


_OPTIONAL = (
    *numbers(significant, "sigma"),
    *texts("settings"),
    *texts(error="why it ended", tags="tags", note="note", form=_short),
)
_RANKING = (
    *numbers(str, id="run"),
    *texts("network"),
    *numbers(significant, "lambda"),
    *texts(initializer="init"),
    *numbers(str, "seed"),
    *numbers(significant, epochs_done="epochs"),
    *numbers(fraction, train_accuracy="train", validation_accuracy="validation", test_accuracy="test"),
    *numbers(seconds, "seconds"),
)
_LIST = (
    *numbers(str, id="run"),
    *texts(started_at="started (UTC)", form=lambda text: text[:16].replace("T", " ")),
    *texts("state"),
    *numbers(str, study_id="study"),
    *texts(dataset="images"),
    *_RANKING[1:],
)


def splits_table(title: str, run: Run) -> Table:
    """Loss, cost and accuracy of one run on its splits."""
    names = ("loss", "cost", "accuracy")
    rows: list[Any] = [{"split": split} | {name: run.measure(split, name) for name in names} for split in SPLITS]
    for split in SPLITS[1:] if run.snapshots else ():
        ensemble = {name: run.measure(f"ensemble_{split}", name) for name in ("loss", "accuracy")}
        rows.append({"split": f"{split}, mean of {run.snapshots} snapshots"} | ensemble)
    return Table(title, (*texts(split=""), *numbers(fraction, *names)), rows)


def comparison_table(runs: Sequence[Run], diff_only: bool, evaluations: Sequence[Evaluation] = ()) -> Table:
    """Every setting and result of runs, one column per run; with `diff_only`, only the differences.

    The results of later evaluations are below those of the training.
    """
    results = [(one.title, [getattr(run, one.key) for run in runs], one.form) for one in _RESULTS]
    lines: list[Line] = [
        ("images", [run.dataset for run in runs], str),
        ("images sha256", [run.dataset_sha256 for run in runs], lambda sha256: sha256[:12]),
        ("split", ["{} train, {} validate, {} test".format(*run.split.sizes()) for run in runs], str),
        ("network", [words.network_name(run.config) for run in runs], str),
        *(
            (one.label, [words.setting_value(run, one.key) for run in runs], partial(words.value_words, one.key))
            for one in SETTINGS.values()
        ),
        *(line for line in results if line[1] != [None] * len(runs)),
        *_evaluated(runs, evaluations),
    ]
    if diff_only:
        lines = [line for line in lines if line[0] not in _ALWAYS_DIFFER and len(set(line[1])) > 1]
    keys = [f"run_{run.id}" for run in runs]
    rows = [
        {"setting": title} | {key: show(value, form) for key, value in zip(keys, values, strict=True)}
        for title, values, form in lines
    ]
    numbered = words.run_numbers(runs)
    title = f"Differences between {numbered}" if diff_only else numbered.capitalize()
    return Table(title, (*texts(setting=""), *numbers(str, *keys)), rows)


def _evaluated(runs: Sequence[Run], evaluations: Sequence[Evaluation]) -> list[Line]:
    """Two rows per kind of evaluation, with a value for every run that has one."""
    from klcli.report.tables.evaluations import evaluation_words

    found: dict[str, dict[int, float | None]] = {}
    for one in evaluations:
        for split in SPLITS[1:]:
            values = found.setdefault(f"{split} accuracy, {evaluation_words(one)}", {})
            values |= dict.fromkeys(one.runs, one.measure(split, "accuracy"))
    return [(title, [values.get(run.id) for run in runs], fraction) for title, values in found.items()]


_ALWAYS_DIFFER = ("started (UTC)", "seconds")
_RESULTS = (
    *numbers(str, "threads", study_id="study"),
    *texts("state", error="why it ended"),
    *numbers(significant, "epochs_done"),
    *numbers(fraction, *MEASURES),
    *numbers(str, snapshots="snapshots averaged"),
    *numbers(fraction, *ENSEMBLE, "best_validation_accuracy"),
    *numbers(seconds, "seconds"),
    *texts(started_at="started (UTC)"),
    *texts("host", "tags", "note"),
)
