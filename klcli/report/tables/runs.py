"""Tables of runs: ranked, listed, side by side, and one by its splits."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from klcli.report.tables.table import Column, Row, Shown, Table, fraction, seconds, significant
from klcli.report.words import (
    counted,
    images_words,
    network_name,
    options_words,
    setting_value,
    split_words,
    value_words,
)
from klcli.settings.columns import columns
from klcli.settings.sameness import SETTINGS
from klcli.settings.split_config import SplitConfig
from klcli.store.records import Evaluation, ImageSet, Run

SPLITS = ("train", "validation", "test")
MEASURES = tuple(f"{split}_{name}" for split in SPLITS for name in ("accuracy", "loss", "cost"))
ENSEMBLE = tuple(f"ensemble_{split}_{name}" for split in SPLITS[1:] for name in ("accuracy", "loss"))
RESULTS = (*MEASURES, *ENSEMBLE, "best_validation_accuracy")  # what may only be compared on the same images
Line = tuple[str, list[Shown | None]]  # of the comparison: what it is, and its value for every run
LONGEST = 60  # letters of a note in a list
IN_RANKING = ("hidden", "batch_norm", "bn_position", "bn_statistics", "lam", "initializer", "sigma", "seed")


def ranking_table(runs: Sequence[Run], by: str) -> Table:
    """Runs on the same images, in the order of one of their columns."""
    [first, *_] = runs
    title = f"Best runs on {first.dataset}, by {by.replace('_', ' ')}; {split_words(first.split)}"
    extra = () if by in ("id", *(column.key for column in _RANKING)) else (_column(by),)
    return _runs_table(title, runs, _RANKING, extra)


def summary_table(image_sets: Sequence[ImageSet], best: Sequence[Run]) -> Table:
    """The number of runs on each set of images, and the best of them."""
    rows = [
        _row(run) | {"images": images_words(run), "runs": images.runs}
        for images, run in zip(image_sets, best, strict=True)
    ]
    columns = (
        Column("images", "images", is_number=False),
        Column("runs", "complete runs"),
        Column("id", "best run"),
        Column("network", "network", is_number=False),
        Column("validation_accuracy", "validation", fraction),
        Column("test_accuracy", "test", fraction),
    )
    return Table("The best run by validation accuracy", columns, rows)


def list_table(runs: Sequence[Run], title: str) -> Table:
    """Runs of any images in any state."""
    return _runs_table(title, runs, _LIST)


def _runs_table(title: str, runs: Sequence[Run], columns: Sequence[Column], extra: Sequence[Column] = ()) -> Table:
    rows = [_row(run) for run in runs]
    optional = [column for column in (*extra, *_OPTIONAL) if any(row.get(column.key) is not None for row in rows)]
    return Table(title, (*columns, *optional), rows)


def _row(run: Run) -> Row:
    """A run by the columns of the database, with its name and what its other columns omit."""
    images = run.dataset if run.split == SplitConfig() else images_words(run)
    own = {
        "network": network_name(run.config),
        "settings": options_words(run.config, IN_RANKING) or None,
        "dataset": Shown(run.dataset, images),
    }
    return vars(run) | columns(run.config) | own


def _column(key: str) -> Column:
    return Column(key, key.replace("_", " "), _value_text)


def _value_text(value: Any) -> str:
    return significant(value) if isinstance(value, float) else str(value)


def _short(text: str) -> str:
    """A text on one line, cut where it would make the table too wide; `--run` shows all of it."""
    words = " ".join(text.split())
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 3]}..."


_OPTIONAL = (
    Column("sigma", "sigma", significant),
    Column("settings", "settings", is_number=False),
    Column("error", "why it ended", _short, is_number=False),
    Column("tags", "tags", _short, is_number=False),
    Column("note", "note", _short, is_number=False),
)
_RANKING = (
    Column("id", "run"),
    Column("network", "network", is_number=False),
    Column("lambda", "lambda", significant),
    Column("initializer", "init", is_number=False),
    Column("seed", "seed"),
    Column("epochs_done", "epochs", significant),
    Column("train_accuracy", "train", fraction),
    Column("validation_accuracy", "validation", fraction),
    Column("test_accuracy", "test", fraction),
    Column("seconds", "seconds", seconds),
)
_LIST = (
    Column("id", "run"),
    Column("started_at", "started (UTC)", lambda text: text[:16].replace("T", " "), is_number=False),
    Column("state", "state", is_number=False),
    Column("study_id", "study"),
    Column("dataset", "images", is_number=False),
    *_RANKING[1:],
)


def splits_table(title: str, run: Run) -> Table:
    """Loss, cost and accuracy of one run on its splits."""
    rows: list[Row] = [
        {"split": split} | {name: run.measure(split, name) for name in ("loss", "cost", "accuracy")} for split in SPLITS
    ]
    for split in SPLITS[1:] if run.snapshots else ():
        ensemble = {name: run.measure(f"ensemble_{split}", name) for name in ("loss", "accuracy")}
        rows.append({"split": f"{split}, mean of {run.snapshots} snapshots"} | ensemble)
    columns = (
        Column("split", "", is_number=False),
        *(Column(name, name, fraction) for name in ("loss", "cost", "accuracy")),
    )
    return Table(title, columns, rows)


def comparison_table(runs: Sequence[Run], diff_only: bool, evaluations: Sequence[Evaluation] = ()) -> Table:
    """Every setting and result of runs, one column per run; with `diff_only`, what differs.

    The results of later evaluations are below those of the training.
    """
    lines = [
        *((name, [_shown(run, read, form) for run in runs]) for name, read, form in _IMAGES),
        *((one.label, [_setting(run, one.key) for run in runs]) for one in SETTINGS.values()),
        *((name, cells) for name, read, form in _RESULTS if any(cells := [_shown(run, read, form) for run in runs])),
        *_evaluated(runs, evaluations),
    ]
    if diff_only:
        lines = [line for line in lines if line[0] not in _ALWAYS_DIFFER and _differs(line[1])]
    rows = [{"setting": name} | dict(zip(_keys(runs), cells, strict=True)) for name, cells in lines]
    columns = [Column(key, key.replace("_", " ")) for key in _keys(runs)]
    what = "What differs between runs" if diff_only else counted(len(runs), "Run")
    title = f"{what} {', '.join(str(run.id) for run in runs)}"
    return Table(title, (Column("setting", "", is_number=False), *columns), rows)


def _keys(runs: Sequence[Run]) -> list[str]:
    return [f"run_{run.id}" for run in runs]


def _evaluated(runs: Sequence[Run], evaluations: Sequence[Evaluation]) -> list[Line]:
    """Two lines per way of evaluation, with a value for every run that was evaluated in this way."""
    from klcli.report.tables.evaluations import evaluation_words

    found: dict[str, dict[int, float | None]] = {}
    for one in evaluations:
        for split in SPLITS[1:]:
            values = found.setdefault(f"{split} accuracy, {evaluation_words(one)}", {})
            values |= dict.fromkeys(one.runs, one.measure(split, "accuracy"))
    return [
        (name, [None if (value := values.get(run.id)) is None else Shown(value, fraction(value)) for run in runs])
        for name, values in found.items()
    ]


def _differs(cells: Sequence[Shown | None]) -> bool:
    return len({None if cell is None else cell.value for cell in cells}) > 1


def _setting(run: Run, key: str) -> Shown | None:
    return _shown(run, lambda run: setting_value(run, key), lambda value: value_words(key, value))


def _shown(run: Run, read: Callable[[Run], Any], form: Callable[[Any], str]) -> Shown | None:
    value = read(run)
    return None if value is None else Shown(value, form(value))


_ALWAYS_DIFFER = ("started (UTC)", "seconds")
_IMAGES: tuple[tuple[str, Callable[[Run], Any], Callable[[Any], str]], ...] = (
    ("images", attrgetter("dataset"), str),
    ("images sha256", attrgetter("dataset_sha256"), lambda sha256: sha256[:12]),
    ("split", lambda run: "{} train, {} validate, {} test".format(*run.split.sizes()), str),
    ("network", lambda run: network_name(run.config), str),
)
_RESULTS: tuple[tuple[str, Callable[[Run], Any], Callable[[Any], str]], ...] = (
    ("threads", attrgetter("threads"), str),
    ("study", attrgetter("study_id"), str),
    ("state", attrgetter("state"), str),
    ("why it ended", attrgetter("error"), str),
    ("epochs done", attrgetter("epochs_done"), significant),
    *((name.replace("_", " "), attrgetter(name), fraction) for name in MEASURES),
    ("snapshots averaged", attrgetter("snapshots"), str),
    *((name.replace("_", " "), attrgetter(name), fraction) for name in ENSEMBLE),
    ("best validation accuracy", attrgetter("best_validation_accuracy"), fraction),
    ("seconds", attrgetter("seconds"), seconds),
    ("started (UTC)", attrgetter("started_at"), str),
    ("host", attrgetter("host"), str),
    ("tags", attrgetter("tags"), str),
    ("note", attrgetter("note"), str),
)
