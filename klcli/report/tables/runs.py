"""Tables of runs: ranked, listed, and set side by side."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from klcli.report.tables.evaluations import evaluation_words
from klcli.report.tables.table import (
    Column,
    Row,
    Table,
    fraction,
    network_name,
    seconds,
    significant,
    transductive_words,
)
from klcli.report.words import images_words, split_of, split_words

MEASURES = tuple(
    f"{split}_{name}" for split in ("train", "validation", "test") for name in ("accuracy", "loss", "cost")
)
LONGEST = 60  # letters of a note in a list
ENSEMBLE = tuple(f"ensemble_{split}_{name}" for split in ("validation", "test") for name in ("accuracy", "loss"))
RESULTS = (*MEASURES, *ENSEMBLE, "best_validation_accuracy")  # what may only be compared on the same images


def ranking_table(runs: Sequence[Row], by: str) -> Table:
    """Runs on the same images, in the order of one of their columns."""
    [first, *_] = runs
    title = f"Best runs on {first['dataset']}, by {by.replace('_', ' ')}; {split_words(split_of(first))}"
    extra = () if by in ("id", *(column.key for column in _RANKING)) else (_column(by),)
    return Table(title, _known(runs, _RANKING, extra), _named(runs))


def summary_table(image_sets: Sequence[Row], best: Sequence[Row]) -> Table:
    """What there is, and the best run on each set of images."""
    rows = [
        run | {"images": images_words(run), "runs": images["runs"], "network": network_name(run)}
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


def list_table(runs: Sequence[Row], title: str) -> Table:
    """Runs of any images in any state."""
    return Table(title, _known(runs, _LIST), _named(runs))


def _named(runs: Sequence[Row]) -> list[Row]:
    return [run | {"network": network_name(run)} for run in runs]


def _known(runs: Sequence[Row], columns: Sequence[Column], extra: Sequence[Column] = ()) -> tuple[Column, ...]:
    """The columns, without those that nobody needs where no run has a value."""
    optional = [column for column in (*extra, *_OPTIONAL) if any(run.get(column.key) is not None for run in runs)]
    return (*columns, *optional)


def _column(key: str) -> Column:
    return Column(key, key.replace("_", " "), value_text)


def _short(text: str) -> str:
    """A text on one line, cut where a table would lose its shape; `--run` shows all of it."""
    words = " ".join(text.split())
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 3]}..."


_OPTIONAL = (
    Column("sigma", "sigma", significant),
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


@dataclass(frozen=True)
class Shown:
    """A stored value with the text that a person reads."""

    value: Any
    text: str

    def __str__(self) -> str:
        return self.text


def value_text(value: Any) -> str:
    """Any stored value as a person reads it."""
    return significant(value) if isinstance(value, float) else str(value)


def comparison_table(runs: Sequence[Row], diff_only: bool, evaluations: Sequence[Row] = ()) -> Table:
    """Every setting and result of runs, one column per run; with `diff_only`, what differs.

    What later evaluations gave stands behind the results of the training.
    """
    rows: list[Row] = [
        {"setting": name} | {f"run_{run['id']}": _shown(run, read, form) for run in runs} for name, read, form in _LINES
    ]
    rows += _evaluated(runs, evaluations)
    rows = [row for row in rows if any(row[f"run_{run['id']}"] is not None for run in runs)]
    if diff_only:
        rows = [row for row in rows if row["setting"] not in _ALWAYS_DIFFER]
        rows = [row for row in rows if len({_key(row[f"run_{run['id']}"]) for run in runs}) > 1]
    columns = (
        Column("setting", "", is_number=False),
        *(Column(f"run_{run['id']}", f"run {run['id']}") for run in runs),
    )
    what = "What differs between runs" if diff_only else ("Runs" if len(runs) > 1 else "Run")
    return Table(f"{what} {', '.join(str(run['id']) for run in runs)}", columns, rows)


def _evaluated(runs: Sequence[Row], evaluations: Sequence[Row]) -> list[Row]:
    """Two rows per way of evaluation, with a value for every run that was evaluated in this way."""
    rows: dict[tuple[str, str], Row] = {}
    for one in evaluations:
        for split in ("validation", "test"):
            value = one[f"{split}_accuracy"]
            row = rows.setdefault((evaluation_words(one), split), {f"run_{run['id']}": None for run in runs})
            row |= {f"run_{number}": Shown(value, fraction(value)) for number in one["runs"]}
    return [{"setting": f"{split} accuracy, {words}"} | row for (words, split), row in rows.items()]


def _key(shown: Shown | None) -> str:
    return json.dumps(None if shown is None else shown.value)


def _shown(run: Row, read: Callable[[Row], Any], form: Callable[[Any], str]) -> Shown | None:
    value = read(run)
    return None if value is None else Shown(value, form(value))


def _of(key: str) -> Callable[[Row], Any]:
    return lambda run: run[key]


def _config(key: str) -> Callable[[Row], Any]:
    return lambda run: json.loads(run["config"]).get(key)


def _yes_no(value: Any) -> str:
    return "yes" if value else "no"


_ALWAYS_DIFFER = ("started (UTC)", "seconds")
_LINES: tuple[tuple[str, Callable[[Row], Any], Callable[[Any], str]], ...] = (
    ("images", _of("dataset"), str),
    ("training images", lambda run: split_of(run).sizes()[0], str),
    ("validation images", lambda run: split_of(run).sizes()[1], str),
    ("images sha256", _of("dataset_sha256"), lambda sha256: sha256[:12]),
    ("preset", _config("preset"), str),
    ("network", network_name, str),
    ("batch normalisation", _of("batch_norm"), _yes_no),
    ("BN momentum", _config("bn_momentum"), value_text),
    ("BN eps", _config("bn_eps"), value_text),
    ("BN statistics", _of("bn_statistics"), lambda policy: f"{policy}{transductive_words(policy)}"),
    ("BN samples", _config("bn_samples"), str),
    ("init", _of("initializer"), str),
    ("sigma", _of("sigma"), significant),
    ("lambda", _of("lambda"), significant),
    ("optimizer", _of("optimizer"), str),
    ("momentum", _of("momentum"), value_text),
    ("weight decay", _of("weight_decay"), value_text),
    ("schedule", _of("schedule"), str),
    ("eta min", _of("eta_min"), significant),
    ("eta max", _of("eta_max"), significant),
    ("eta decay", _of("eta_decay"), value_text),
    ("n_s", _of("step_size"), str),
    ("cycles", _of("cycles"), significant),
    ("epochs", _of("epochs"), significant),
    ("n_batch", _of("batch_size"), str),
    ("flip", _of("flip"), _yes_no),
    ("shift", _of("shift"), value_text),
    ("mixup", _of("mixup"), value_text),
    ("dropout", _of("dropout"), value_text),
    ("label smoothing", _of("label_smoothing"), value_text),
    ("weight average", _of("weight_average"), value_text),
    ("standardised", lambda run: _config("standardise")(run) or "pixel", "by {}".format),
    ("shuffled", lambda run: _config("shuffle")(run) is not False, _yes_no),
    ("seed", _of("seed"), str),
    ("order seed", _config("order_seed"), str),
    ("dtype", _of("dtype"), str),
    ("threads", _of("threads"), str),
    ("study", _of("study_id"), str),
    ("state", _of("state"), str),
    ("why it ended", _of("error"), str),
    ("epochs done", _of("epochs_done"), significant),
    *((name.replace("_", " "), _of(name), fraction) for name in MEASURES),
    ("snapshots", _of("snapshots"), str),
    *((name.replace("_", " "), _of(name), fraction) for name in ENSEMBLE),
    ("best validation accuracy", _of("best_validation_accuracy"), fraction),
    ("seconds", _of("seconds"), seconds),
    ("started (UTC)", _of("started_at"), str),
    ("host", _of("host"), str),
    ("tags", _of("tags"), str),
    ("note", _of("note"), str),
)
