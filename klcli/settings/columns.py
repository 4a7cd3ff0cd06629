"""Columns: every setting of a run as a column of the table `runs`, for filters."""

from typing import Any

from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import value_of
from klcli.settings.train_config import TrainConfig

OF_BN = ("bn_position", "bn_statistics")  # NULL without batch normalisation
_TYPES: dict[type, str] = {int: "INTEGER", bool: "INTEGER", float: "REAL", str: "TEXT", tuple: "TEXT"}


def columns(config: TrainConfig) -> dict[str, Any]:
    """Return the value of every setting by column, without those that a run resolves: n_s, cycles and epochs."""
    found = {one.column: stored_value(value_of(config, one.key)) for one in SETTINGS.values() if not one.is_resolved}
    return found | ({} if config.batch_norm else dict.fromkeys(OF_BN))


def virtual_columns() -> dict[str, str]:
    """Return the SQL definitions, without names, of generated columns that read the settings from the stored config.

    A config from before a setting existed lacks it, and its training used the default.
    """
    found = {}
    for one in SETTINGS.values():
        value, path = stored_value(one.default), f"json_extract(config, '$.{one.key}')"
        if one.kind is tuple:
            path = f"trim(replace({path}, ',', ' '), '[]')"
        reading = path if value is None else f"coalesce({path}, {value!r})"
        if not one.is_resolved:
            found[one.column] = f"{_TYPES[one.kind]} GENERATED ALWAYS AS ({reading}) VIRTUAL"
    return found


def stored_value(value: Any) -> Any:
    """Return a value as SQLite stores it: a list as text, a boolean as 0 or 1."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return int(value) if isinstance(value, bool) else value
