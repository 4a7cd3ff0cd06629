"""Variadic options: they take any number of values, which Typer itself does not know."""

from typing import Any

import typer
from typer.core import TyperCommand


def variadic(*names: str) -> type[TyperCommand]:
    """Return a command class whose options `names` take every value up to the next option.

    `--hidden 50 30 20` reaches the parser as `--hidden 50 --hidden 30 --hidden 20`. A value may be
    negative, so that it is refused by name; anything else with a dash begins the next option.
    """

    class VariadicCommand(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            return super().parse_args(ctx, _repeat_names(ctx, args, names))

    return VariadicCommand


def _repeat_names(ctx: Any, args: list[str], names: tuple[str, ...]) -> list[str]:
    repeated: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if arg == "--":
            return [*repeated, arg, *rest]
        if arg not in names:
            repeated.append(arg)
            continue
        values = []
        while rest and (not rest[0].startswith("-") or rest[0][1:2].isdigit()):
            values.append(rest.pop(0))
        if not values and not ctx.resilient_parsing:
            raise typer.BadParameter(f"{arg} needs at least one value, for example {arg} 50 30", ctx=ctx)
        repeated += [part for value in values for part in (arg, value)]
    return repeated
