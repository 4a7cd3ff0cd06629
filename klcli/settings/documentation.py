"""The page of settings that ships with klcli: `python -m klcli.settings.documentation` prints it."""

from collections.abc import Iterator

from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import Role, Setting


def settings_page() -> str:
    """Return klcli/docs/settings.md: every setting of a training with its option, values, default and column."""
    parts = [
        "# The settings of a training",
        "Every setting is an option of `klcli train`, a field of `TrainConfig` in Python, a key of a preset and of the "
        "column `config`, and a column of the table `runs`, by which `klcli report --where` filters. Columns hold NULL "
        "where a setting has no value; `step_size`, `cycles` and `epochs` hold what follows from all settings.",
    ]
    for role in Role:
        rows = list(_rows(role))
        if rows:
            head = "| option | values | default | field | column | meaning |\n|---|---|---|---|---|---|"
            parts += [f"## {role}", "\n".join([head, *rows])]
    return "\n\n".join(parts) + "\n"


def _rows(role: Role) -> Iterator[str]:
    for one in (one for one in SETTINGS.values() if one.role is role):
        cells = (f"`{_option(one)}`", _values(one), one.words(one.default), f"`{one.key}`", f"`{one.column}`", one.help)
        yield f"| {' | '.join(cell.replace('|', ', ') for cell in cells)} |"


def _option(one: Setting) -> str:
    return f"{one.option}/--no-{one.option.removeprefix('--')}" if one.kind is bool else one.option


def _values(one: Setting) -> str:
    return "yes, no" if one.kind is bool else one.metavar


if __name__ == "__main__":
    print(settings_page(), end="")
