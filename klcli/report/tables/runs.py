"""Tables of runs: ranking, list, comparison side by side, and the splits of one run."""

from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from itertools import chain, product
from typing import Any

from klcli.errors import StoreError
from klcli.report import words
from klcli.report.tables.table import SPLITS, Column, Form, Row, Shown, Table, columns, fraction, show, significant
from klcli.settings.columns import columns as settings_columns
from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import value_of
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Evaluation, ImageSet, Run, repeated_of

MEASURES = tuple(f"{split}_{name}" for split in SPLITS for name in ("accuracy", "loss", "cost"))
ENSEMBLE = tuple(f"ensemble_{split}_{name}" for split in SPLITS[1:] for name in ("accuracy", "loss"))
RESULTS = (*MEASURES, *ENSEMBLE, "best_validation_accuracy")  # columns that are comparable only on the same images
LONGEST = 60  # characters of a note in a list; `--run` shows the whole text
IN_RANKING = (*words.IN_NAME, "lam", "initializer", "sigma", "seed")  # settings that have a column
Line = tuple[str, list[Any], Form]  # row of the comparison: title, one value per run, format


def ranking_table(runs: Iterable[Run], by: str, descending: bool = True) -> Table | None:
    """Runs on the same images, in the order of one of their columns; None without any."""
    if (first := next(rest := iter(runs), None)) is None:
        return None
    is_best = by.endswith("accuracy") and descending
    order = "" if is_best else ", descending" if descending else ", ascending"
    what = f"{'Best runs' if is_best else 'Runs'} on {first.dataset}, by {by.replace('_', ' ')}{order}"
    is_shown = by in (column.key for column in (*_RANKING, *_OPTIONAL))
    number = fraction if by in RESULTS else significant
    extra = columns(f"{by}:", **{by: lambda value: number(value) if isinstance(value, float) else str(value)})
    title = f"{what}; {words.split_words(first.split)}"
    return _runs_table(title, chain([first], rest), _RANKING, () if is_shown else extra)


def summary_table(image_sets: Sequence[ImageSet], best: Sequence[Run]) -> Table:
    """The number of runs on each set of images, and the best run."""
    named = zip(words.image_sets_words(image_sets), image_sets, best, strict=True)
    rows = [
        vars(run) | {"images": name, "runs": images.runs, "network": words.network_name(run.config)}
        for name, images, run in named
    ]
    accuracies = "validation_accuracy:.4f=validation; test_accuracy:.4f=test"
    head = columns(f"*images; runs:=complete runs; id:=best run; network; {accuracies}")
    return Table("The best run by validation accuracy", head, rows)


def list_table(runs: Iterable[Run], title: str) -> Table:
    """Runs of any images in any state, of which the rows keep only what is shown."""
    return _runs_table(title, runs, _LIST)


def _runs_table(title: str, runs: Iterable[Run], head: Sequence[Column], extra: Sequence[Column] = ()) -> Table:
    optional = (*extra, *_OPTIONAL)
    rows = [*map(partial(_row, keys=[column.key for column in (*head, *optional)]), runs)]
    used = set().union(*rows)
    return Table(title, (*head, *(column for column in optional if column.key in used)), rows)


def _row(run: Run, keys: Sequence[str]) -> Row:
    try:
        config, seed, order_seed = repeated_of(run.config_json, f"run {run.id}")
    except StoreError as error:
        values = vars(run) | {"settings": f"UNREADABLE: {error}"}
    else:
        # Without an order seed of its own, a run shares the words of all its repeats.
        shared = _settings_row(run.dataset, config if order_seed is None else run.config)
        values = vars(run) | shared | {"seed": seed}
    return {key: value for key in keys if (value := values.get(key)) is not None}


@lru_cache(maxsize=1024)
def _settings_row(dataset: str, config: TrainConfig) -> Row:
    """Return what a table shows of the settings: columns of the database, and words."""
    is_whole = config.split == SplitConfig()
    images = Shown(dataset, dataset if is_whole else f"{dataset}, {words.split_words(config.split)}")
    other = words.options_words(config, IN_RANKING) or None
    return settings_columns(config) | {"network": words.network_name(config), "dataset": images, "settings": other}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


_OPTIONAL = columns(
    "sigma:.4g; ?settings; ?method; ?error=why it ended; ?tags; ?note; origin=from; &origin_run:=run there",
    **dict.fromkeys(("error", "tags", "note"), _short),
)
_RANKING = columns(
    "*id:=run; network; lambda:.4g; ???initializer=init; ??seed:; ???epochs_done:g=epochs; "
    "??train_accuracy:.4f=train; validation_accuracy:.4f=validation; test_accuracy:.4f=test; ???seconds:.1f"
)
_LIST = columns(
    "*id:=run; ?started_at=started (UTC); state; ???study_id:=study; ??dataset=images",
    started_at=lambda text: text[:16].replace("T", " "),
) + _RANKING[1:]  # fmt: skip


def splits_table(title: str, run: Run) -> Table:
    """Loss, cost and accuracy of one run on its splits."""
    names = ("loss", "cost", "accuracy")
    rows: list[Row] = [{"split": split} | {name: run.measure(split, name) for name in names} for split in SPLITS]
    n = run.snapshots or 0
    for split in SPLITS[1:] if n else ():
        ensemble = {name: run.measure(f"ensemble_{split}", name) for name in ("loss", "accuracy")}
        rows.append({"split": f"{split}, mean of {n} {words.counted(n, 'snapshot')}"} | ensemble)
    return Table(title, columns("split=; loss:.4f; cost:.4f; accuracy:.4f"), rows)


def comparison_table(runs: Sequence[Run], diff_only: bool, evaluations: Sequence[Evaluation] = ()) -> Table:
    """Every setting with an effect and every result of runs, also of later evaluations, a column per run.

    With `diff_only`, those that differ.
    """
    from klcli.report.tables.later_checks import evaluation_words

    later: dict[str, dict[int, float | None]] = {}
    for one, split in product(evaluations, SPLITS[1:]):
        values = later.setdefault(f"{split} accuracy, {evaluation_words(one)}", {})
        values |= dict.fromkeys(one.runs, one.measure(split, "accuracy"))
    results: list[Line] = [(one.title, [getattr(run, one.key) for run in runs], one.form) for one in _RESULTS]
    results += [(title, [words.version_words(run, key) for run in runs], str) for key, title in _VERSIONS.items()]
    lines: list[Line] = [
        ("images", [run.dataset for run in runs], str),
        ("images sha256", [run.dataset_sha256 for run in runs], lambda sha256: sha256[:12]),
        ("split", ["{} train, {} validate, {} test".format(*run.split.sizes()) for run in runs], str),
        ("network", [words.network_name(run.config) for run in runs], str),
        *((one.label, [words.setting_value(run, key) for run in runs], partial(words.value_words, key))
          for key, one in SETTINGS.items() if any(key not in run.config.without_effect for run in runs)),
        *(line for line in results if line[1] != [None] * len(runs)),
        *((title, [values.get(run.id) for run in runs], fraction) for title, values in later.items()),
    ]  # fmt: skip
    if diff_only:
        # A setting with one value is no difference, although it may have an effect in some of the runs alone.
        given = {one: {value_of(run.config, one.key) for run in runs} for one in SETTINGS.values()}
        same = {one.label for one, values in given.items() if len(values) == 1 and not one.is_resolved}
        hidden = {"started (UTC)", "seconds", *same}
        lines = [line for line in lines if line[0] not in hidden and len(set(line[1])) > 1]
    head, which = columns("; ".join(["*setting=", *(f"run_{run.id}:" for run in runs)])), words.run_numbers(runs)
    cells = [(title, *(show(value, form) for value in values)) for title, values, form in lines]
    rows = [{column.key: cell for column, cell in zip(head, own, strict=True)} for own in cells]
    title = f"Differences between {which}" if diff_only else which.capitalize()
    return Table(title + words.subset_words(runs), head, rows)


_VERSIONS = {"klcli": "klcli", "engine": "engine", "python": "Python", "numpy": "NumPy", "blas": "BLAS", "simd": "SIMD"}
_RESULTS = columns(
    f"method; threads; study_id=study; state; error=why it ended; epochs_done:g; {':.4f; '.join(MEASURES)}:.4f; "
    f"snapshots=snapshots averaged; {':.4f; '.join(ENSEMBLE)}:.4f; best_validation_accuracy:.4f; seconds:.1f; "
    "started_at=started (UTC); host; tags; note; origin=from; origin_run=run there"
)
