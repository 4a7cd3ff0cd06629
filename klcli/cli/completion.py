"""Completion: the values that a shell offers for an option or argument, found by its choices or its placeholder."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib.resources import files
from typing import Any

import typer

from klcli.errors import StoreError
from klcli.settings.presets import presets
from klcli.settings.run_command import database_in_use
from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import Setting
from klcli.text import user_path

Value = str | tuple[str, str]  # with a description, which zsh, fish and PowerShell show
Complete = Callable[[typer.Context, str], list[Value]]
OFFERED = 50  # the newest runs whose numbers begin as typed
RUNS = (
    "SELECT id, hidden, batch_norm, dataset, state, validation_accuracy FROM runs "
    "WHERE id LIKE ? || '%' AND {} ORDER BY id DESC LIMIT ?"
)
STUDIES = "SELECT id, kind, stage, state FROM studies WHERE id LIKE ? || '%' ORDER BY id DESC LIMIT ?"
TAGS = "SELECT DISTINCT tags FROM runs WHERE tags IS NOT NULL"
COLUMNS = "SELECT name FROM pragma_table_xinfo('runs')"


def of_setting(one: Setting) -> Complete | None:
    """Return what completes the values of a setting."""
    if one.choices:
        return lambda ctx, incomplete: list(one.choices)
    return completion(_OPTIONS.get(one.option, one.metavar))


def completion(metavar: str) -> Complete | None:
    """Return what completes the values with this placeholder: `RUN...`, `PATH|cifar10`; None leaves it to the shell."""
    kind, *words = metavar.replace("...", "").split("|")
    words = words or ["last", "best"] * (kind == "RUN")
    if kind == "COLUMN" and metavar.endswith("..."):  # a setting, as --group-by names it
        kind = "SETTING"
    if kind not in _KINDS and not words:
        return None
    return lambda ctx, incomplete: [*words, *(_KINDS[kind](ctx, incomplete) if kind in _KINDS else ())]


def _read(ctx: typer.Context, query: str, *values: Any) -> list[tuple[Any, ...]]:
    from klcli.store.reading import rows

    with suppress(StoreError, OSError):  # a path that the system refuses
        return rows(user_path(ctx.params.get("db") or database_in_use()), query, *values)
    return []


def _runs(ctx: typer.Context, incomplete: str, condition: str = "1") -> Iterator[Value]:
    for id, hidden, bn, dataset, state, accuracy in _read(ctx, RUNS.format(condition), incomplete, OFFERED):
        network = f"{len(hidden.split()) + 1}-layer {hidden.replace(' ', '-')}{' with BN' * bn} on {dataset}"
        yield str(id), f"{network}, {f'validation {accuracy:.4f}' if state == 'complete' else state}"


def _studies(ctx: typer.Context, incomplete: str) -> Iterator[Value]:
    for id, *words in _read(ctx, STUDIES, incomplete, OFFERED):
        yield str(id), " ".join(filter(None, words))


def _stems(package: str, folder: str) -> list[str]:
    return sorted(one.name.rpartition(".")[0] for one in files(package).joinpath(folder).iterdir())


# The kinds of values of options whose placeholder does not name it.
_OPTIONS = {"--preset": "PRESET", "--resume": "UNFINISHED|last"}
_RESUMABLE = "state NOT IN ('complete', 'diverged') AND study_id IS NULL"  # one of a study continues with that
_KINDS: dict[str, Callable[[typer.Context, str], Iterable[Value]]] = {
    "RUN": _runs,
    "UNFINISHED": partial(_runs, condition=_RESUMABLE),
    "STUDY": _studies,
    "TAG": lambda ctx, _: sorted({tag for (tags,) in _read(ctx, TAGS) for tag in tags.split()}),
    "COLUMN": lambda ctx, _: [name for (name,) in _read(ctx, COLUMNS)],
    "SETTING": lambda *_: [(it.option.removeprefix("--"), it.label) for it in SETTINGS.values() if not it.is_seed],
    "PRESET": lambda *_: [(one.name, one.description) for one in presets().values()],
    "REPORT": lambda *_: ["all", *_stems("klcli.published", "reports")],
    "TOPIC": lambda *_: _stems("klcli", "docs"),
}
