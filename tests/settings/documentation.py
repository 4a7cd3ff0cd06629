"""The page of settings that ships with klcli: `python -m tests.settings.documentation` prints it."""

from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import Role, Setting


def settings_page() -> str:
    """Return klcli/docs/settings.md: every setting of a training with its option, values, default and column."""
    parts = [
        "# The settings of a training",
        "Every setting is an option of `klcli train`, a field of `TrainConfig` in Python, a key of a preset and of the "
        "column `config`, and a column of the table `runs`, by which `klcli report --where` filters. Columns hold NULL "
        "where a setting has no value, those of batch files an empty text; `step_size`, `cycles` and `epochs` hold "
        "what follows from all settings.",
    ]
    for role in Role:
        if rows := [_row(one) for one in SETTINGS.values() if one.role == role]:
            head = "| option | values | default | field | column | meaning |\n|---|---|---|---|---|---|"
            parts += [f"## {role}", "\n".join([head, *rows])]
    return "\n\n".join(parts) + "\n"


def _row(one: Setting) -> str:
    values = "yes, no" if one.kind is bool else one.metavar
    cells = (f"`{one.names[0]}`", values, one.words(one.default), f"`{one.key}`", f"`{one.column}`", one.help)
    return f"| {' | '.join(cell.replace('|', ', ') for cell in cells)} |"


if __name__ == "__main__":
    print(settings_page(), end="")
