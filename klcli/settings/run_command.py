"""Run command: the command line that trains one run of a study alone, the whole study, or the rest of it."""

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from klcli.settings.procedures import EvaluationSettings
from klcli.settings.run_names import names_of
from klcli.settings.sameness import SETTINGS, differences
from klcli.settings.setting import settings_of
from klcli.settings.train_config import BN_STATISTICS, SAMPLES, TrainConfig
from klcli.text import command_text, user_path

DEFAULT_DATABASE = Path("results/klcli.db")  # in the working directory, unless --db or KLCLI_DB names another
# Before a `--`, which is not within quotes, and the arguments behind it.
_ARGUMENTS = re.compile(r"""(?= -- (?:[^'"]|'[^']*'|"[^"]*")*$)""")
_FROM = re.compile(r"(--from[ =]|from_study=)('?)(-?\w+)\2")
OF_SEARCH: dict[str, Any] = {"batch_norm": True, "step_epochs": 2.0}  # own defaults of `klcli search-lambda`


def database_in_use() -> Path:
    """Return the database of a command without --db, and of a Lab without `db`."""
    return user_path(os.environ.get("KLCLI_DB") or DEFAULT_DATABASE)


def database_option(db: Path) -> list[str]:
    """Return the option of a command that names `db`; none for the default, unless KLCLI_DB replaces that."""
    return [] if db == DEFAULT_DATABASE == database_in_use() else ["--db", str(db)]


def in_database(command: str, db: Path) -> str:
    """Return a command with `db` if it names no database; that of a study may have been merged into this one."""
    is_silent = command.startswith("klcli ") and "--db" not in command
    return _with_options(command, database_option(db)) if is_silent else command


def run_command(
    config: TrainConfig, name: str = "train", options: Sequence[str] = (), *, data: str, threads: int, db: Path | None,
    only: Collection[str] = SETTINGS,
) -> str:  # fmt: skip
    """Return the command of this name with the settings that matter and are not its defaults, of those in `only`.

    `klcli train` gives the bits of `config`; those of a replica of a stack, to rounding. Without `db`, it names no
    database.
    """
    default, unused = TrainConfig(**OF_SEARCH) if name == "search-lambda" else TrainConfig(), config.unused()
    parts = [*options]
    for key, (value, _) in differences(config, default).items():
        is_of_bn = unused.get(key, ("",))[0] == "batch_norm" and name == "sigma-sweep"  # which also trains with BN
        if key in only and (key not in unused or is_of_bn):
            parts += SETTINGS[key].arguments(value)
    parts += ["--data", data]
    parts += [] if threads == 1 else ["--threads", str(threads)]
    return command_text(["klcli", name, *parts, *(database_option(db) if db else [])])


def evaluation_command(runs: Sequence[int], values: Mapping[str, Any], *, data: str | None, db: Path) -> str:
    """Return the command that repeats an evaluation; `values` are its settings by key, as its row has them.

    In a row, `bn_statistics` are those that were used; those of the run itself, which drew no images, are no setting.
    """
    own = values["bn_statistics"] not in BN_STATISTICS or (
        values["bn_statistics"] in SAMPLES and values["bn_samples"] is None
    )
    parts = [*names_of(runs), *["--ensemble"] * (len(runs) > 1)]
    for key, one in settings_of(EvaluationSettings).items():
        value = bool(values[key]) if one.kind is bool else values[key]
        parts += [] if value == one.default or (own and key == "bn_statistics") else one.arguments(value)
    parts += ["--data", data] if data else []
    return command_text(["klcli", "evaluate", *parts, *database_option(db)])


def with_study(command: str, number: Callable[[str], int]) -> str:
    """Return the command of a search with another number of the study that it starts from, which `number` is given."""
    return _FROM.sub(lambda found: f"{found[1]}{number(found[3])}", command, count=1)


def resuming_command(command: str, kind: str) -> str:
    """Return the command that completes a study of this kind, which `command` began, or what a program calls it."""
    if " --resume" in command or "resume=True" in command:
        return command
    if command.startswith("klcli "):
        return _with_options(command, ["--resume", *["last"] * (kind == "repeats")])
    end = "))" if command.startswith("list(Lab(") else ")" if command.startswith("Lab(") else ""
    return f"{command.removesuffix(end)}, resume=True{end}"


def _with_options(command: str, options: Sequence[str]) -> str:
    words, *arguments = _ARGUMENTS.split(command, maxsplit=1)
    return " ".join(filter(None, [words, command_text(options)])) + "".join(arguments)
