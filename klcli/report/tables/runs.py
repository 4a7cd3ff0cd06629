"""Tables of runs: ranking, list, comparison side by side, and the splits of one run."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import chain
from operator import attrgetter
from typing import Any

from klcli.report import words
from klcli.report.tables.table import SPLITS, Column, Row, Table, fraction, numbers, seconds, show, significant, texts
from klcli.settings.columns import stored_value
from klcli.settings.sameness import SETTINGS, without_seeds
from klcli.settings.split_config import SplitConfig
from klcli.store.records import Evaluation, ImageSet, Run

MEASURES = tuple(f"{split}_{name}" for split in SPLITS for name in ("accuracy", "loss", "cost"))
ENSEMBLE = tuple(f"ensemble_{split}_{name}" for split in SPLITS[1:] for name in ("accuracy", "loss"))
RESULTS = (*MEASURES, *ENSEMBLE, "best_validation_accuracy")  # columns that are comparable only on the same images
LONGEST = 60  # characters of a note in a list
IN_RANKING = ("hidden", "batch_norm", "bn_position", "bn_statistics", "lam", "initializer", "sigma", "seed")
Line = tuple[str, list[Any], Callable[[Any], str]]  # row of the comparison: title, one value per run, format


def ranking_table(runs: Iterable[Run], by: str, descending: bool = True) -> Table | None:
    """Runs on the same images, in the order of one of their columns; None without any."""
    if (first := next(rest := iter(runs), None)) is None:
        return None
    is_best = by.endswith("accuracy") and descending
    order = "" if is_best else ", descending" if descending else ", ascending"
    what = f"{'Best runs' if is_best else 'Runs'} on {first.dataset}, by {by.replace('_', ' ')}{order}"
    extra = numbers(lambda value: significant(value) if isinstance(value, float) else str(value), by)
    is_shown = by in (column.key for column in _RANKING)
    title = f"{what}; {words.split_words(first.split)}"
    return _runs_table(title, chain([first], rest), _RANKING, () if is_shown else extra)


def summary_table(image_sets: Sequence[ImageSet], best: Sequence[Run]) -> Table:
    """The number of runs on each set of images, and the best run."""
    rows = [
        vars(run) | {"images": words.images_words(run), "runs": images.runs, "network": words.network_name(run.config)}
        for images, run in zip(image_sets, best, strict=True)
    ]
    columns = (
        *texts("images"),
        *numbers(str, runs="complete runs", id="best run"),
        *texts("network"),
        *numbers(fraction, validation_accuracy="validation", test_accuracy="test"),
    )
    return Table("The best run by validation accuracy", columns, rows)


def list_table(runs: Iterable[Run], title: str) -> Table:
    """Runs of any images in any state, of which the rows keep only what is shown."""
    return _runs_table(title, runs, _LIST)


def _runs_table(title: str, runs: Iterable[Run], columns: Sequence[Column], extra: Sequence[Column] = ()) -> Table:
    possible = (*columns, *extra, *_OPTIONAL)
    values = [(column.key, _reader(column.key)) for column in possible]
    rows = [_row(run, values) for run in runs]
    used = {key for row in rows for key in row}
    return Table(title, (*columns, *(column for column in possible[len(columns) :] if column.key in used)), rows)


def _row(run: Run, values: Sequence[tuple[str, Callable[[Run], Any]]]) -> Row:
    if run.unreadable:
        stored = {key: value for key, _ in values if (value := vars(run).get(key)) is not None}
        return stored | {"settings": f"UNREADABLE: {run.unreadable}"}
    return {key: value for key, read in values if (value := read(run)) is not None}


def _reader(key: str) -> Callable[[Run], Any]:
    """Return the function of a run that gives the value of a column: of the database, or one of the words below."""
    if key in _WORDS:
        return _WORDS[key]
    setting = next((one.key for one in SETTINGS.values() if one.column == key and not one.is_resolved), None)
    if setting is None:
        return attrgetter(key) if key in Run.__dataclass_fields__ else lambda run: None
    return lambda run: stored_value(words.setting_value(run, setting))


@lru_cache(maxsize=1024)
def _shown_images(dataset: str, split: SplitConfig) -> Any:
    return show(dataset, lambda name: name if split == _WHOLE else f"{name}, {words.split_words(split)}")


def _settings(run: Run) -> str | None:
    config = run.config
    # Without an order seed of its own, a run shares the words of all its repeats.
    return _other_settings(without_seeds(config) if config.shared_seed == config.seed else config, IN_RANKING) or None


_other_settings = lru_cache(maxsize=1024)(words.options_words)
_WHOLE = SplitConfig()
_WORDS: dict[str, Callable[[Run], Any]] = {
    "network": lambda run: words.network_name(run.config),
    "settings": _settings,
    "dataset": lambda run: _shown_images(run.dataset, run.split),
}


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
    rows: list[Row] = [{"split": split} | {name: run.measure(split, name) for name in names} for split in SPLITS]
    for split in SPLITS[1:] if run.snapshots else ():
        ensemble = {name: run.measure(f"ensemble_{split}", name) for name in ("loss", "accuracy")}
        rows.append({"split": f"{split}, mean of {run.snapshots} snapshots"} | ensemble)
    return Table(title, (*texts(split=""), *numbers(fraction, *names)), rows)


def comparison_table(runs: Sequence[Run], diff_only: bool, evaluations: Sequence[Evaluation] = ()) -> Table:
    """Every setting and result of runs and of later evaluations, a column per run; `diff_only`: what differs."""
    results: list[Line] = [(one.title, [getattr(run, one.key) for run in runs], one.form) for one in _RESULTS]
    results += [(title, [words.version_words(run, key) for run in runs], str) for key, title in _VERSIONS.items()]
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
    which = words.run_numbers(runs)
    title = f"Differences between {which}" if diff_only else which.capitalize()
    return Table(title + words.subset_words(runs), (*texts(setting=""), *numbers(str, *keys)), rows)


def _evaluated(runs: Sequence[Run], evaluations: Sequence[Evaluation]) -> list[Line]:
    """Two rows per kind of evaluation, with a value for every run that has one."""
    from klcli.report.tables.later_checks import evaluation_words

    found: dict[str, dict[int, float | None]] = {}
    for one in evaluations:
        for split in SPLITS[1:]:
            values = found.setdefault(f"{split} accuracy, {evaluation_words(one)}", {})
            values |= dict.fromkeys(one.runs, one.measure(split, "accuracy"))
    return [(title, [values.get(run.id) for run in runs], fraction) for title, values in found.items()]


_VERSIONS = {"klcli": "klcli", "python": "Python", "numpy": "NumPy", "blas": "BLAS", "simd": "SIMD"}
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
