"""The help screen of a command: whole names and values, also at 80 columns, and the common options first."""

import inspect
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.console import RenderableType

ALL = "--help-all"
# Parameters that most people need, of the commands with more than SHORT options.
COMMON = {
    "preset", "hidden", "batch_norm", "initializer", "sigma", "lam", "eta_min", "eta_max", "step_epochs", "cycles",
    "subset", "seed", "repeats", "resume", "data", "db", "as_json", "quiet", "debug", "images", "method", "measures",
    "sigmas", "coarse", "fine", "values", "final", "best", "list_all", "runs", "diff_only", "study", "group_by",
    "gradchecks", "where", "sort", "format", "plot", "to", "html",
}  # fmt: skip
SHORT = 20  # options of a command that need no second screen
TYPED = "typed words"  # key of the context of a command
SIGNATURE = 26  # columns at least of an option with its values; a longer one has a line of its own


class HelpfulGroup(TyperGroup):
    """A group of commands with klcli's help screen."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        show_help(self, ctx)


def options_behind(group: Any) -> set[str]:
    """Return the names of the options of all commands of a group."""
    commands = getattr(group, "commands", {}).values()
    own = {name for one in commands for param in one.params for name in (*param.opts, *param.secondary_opts)}
    return own.union(*map(options_behind, commands))


def show_help(command: Any, ctx: Any) -> None:
    """Print the help of a command or group: of one with many options the common ones, or all with --help-all."""
    from rich.console import Console, Group
    from rich.markdown import Markdown
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.theme import Theme

    console = Console(highlight=False, theme=Theme({"markdown.em": "dim"}))
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    has_more = len(options) > SHORT
    is_short = has_more and ALL not in ctx.meta.get(TYPED, ())
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for kind, params in (("Arguments", arguments), ("Options", options)):
        for one in params:
            if not is_short or one.name in COMMON or one in arguments:
                title = kind if is_short else one.rich_help_panel or kind
                panels.setdefault(title, []).append((_signature(one), one.get_help_record(ctx)[1]))
    panels["Options"].append((", ".join(ctx.help_option_names[:2]), "Show the help and exit."))
    if has_more:
        panels["Options"].append((ALL, f"Show all {len(options)} options and exit."))
    if children := getattr(command, "commands", {}):
        panels["Commands"] = [(name, (child.help or "").partition("\n\n")[0]) for name, child in children.items()]

    words = [_signature(one) if one.required else f"[{_signature(one)}]" for one in arguments]
    words += ["COMMAND ..."] * bool(children)
    console.print(Padding(" ".join(["Usage:", ctx.command_path, "[OPTIONS]", *words]), 1), style="bold", markup=False)
    console.print(Padding(Markdown(inspect.cleandoc(command.help or "")), (0, 1, 1, 1)))
    width = min(max(SIGNATURE, console.width // 3), max(len(name) for own in panels.values() for name, _ in own))
    for title, own in panels.items():
        if own:
            entries = [part for name, text in own for part in _entry(name, text, width)]
            console.print(Panel(Group(*entries), title=title, title_align="left", border_style="dim"))


def _signature(param: Any) -> str:
    """`--hidden, -H N...`, `--bn / --no-bn`, `RUN...`."""
    if param.param_type_name == "argument":
        return str(param.metavar or param.name.upper())
    names = " / ".join(", ".join(own) for own in (param.opts, param.secondary_opts) if own)
    return names if param.is_flag or param.count else f"{names} {param.metavar or param.name.upper()}"


def _entry(signature: str, text: str, width: int) -> "list[RenderableType]":
    from rich.markdown import Markdown
    from rich.table import Table
    from rich.text import Text

    help, found, more = text.rpartition("  [")  # the default, as it can be typed, and the environment variable
    more = more.replace(", ", ",")
    grid, name = Table.grid(padding=(0, 2)), Text(signature, style="bold cyan", no_wrap=True)
    grid.add_column(width=width)
    grid.add_row(name if len(signature) <= width else "", Markdown(f"{help} *[{more}*" if found else text))
    return [grid] if len(signature) <= width else [name, grid]
