"""Options, generated from settings: the fields of a dataclass or the parameters of a command."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from klcli.settings.setting import Setting, setting_of, settings_of, with_values

Command = Callable[..., Any]


class KlcliCommand(TyperCommand):
    """A command with variadic options, which Typer lacks: a list takes every value up to the next option.

    `--hidden 50 30 20` is passed to the parser as `--hidden 50 --hidden 30 --hidden 20`. A negative
    number counts as a value, so that the message names it; any other word with a dash begins the next option.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        lists = {name for one in self.params if getattr(one, "multiple", False) for name in one.opts}
        repeated, rest = list[str](), list(args)
        while rest and rest[0] != "--":
            name = rest.pop(0)
            before = len(repeated)
            while name in lists and rest and (not rest[0].startswith("-") or rest[0][1:2].isdigit()):
                repeated += [name, rest.pop(0)]
            if name not in lists:
                repeated.append(name)
            elif len(repeated) == before and not ctx.resilient_parsing:
                raise typer.BadParameter(f"{name} needs at least one value", ctx=ctx)
        return super().parse_args(ctx, repeated + rest)


def takes(
    owner: type[Any], *, only: tuple[str, ...] = (), omit: tuple[str, ...] = (), **defaults: Any
) -> Callable[[Command], Command]:
    """Replace the parameter of a command that is annotated with `owner`, a dataclass of settings, by options.

    The command receives a validated `owner`. `only` names the settings that become options, all of them if it is
    empty; `omit` names settings that do not; `defaults` replaces defaults of the dataclass.
    Other parameters become options too if their default is a `setting(...)`.
    """
    settings = {key: one for key, one in settings_of(owner).items() if key not in omit and (not only or key in only)}

    def decorate(command: Command) -> Command:
        given = inspect.signature(command, eval_str=True).parameters
        argument = next(name for name, one in given.items() if one.annotation is owner)
        declared = [one for one in given.values() if isinstance(one.default, Field)]
        own = {one.name: setting_of(one.name, one.annotation, one.default) for one in declared}
        shown = [] if "ctx" in given else [_parameter("ctx", typer.Context)]
        for one in given.values():
            if one.name == argument:
                shown += [_option(_name(key), it, defaults.get(key, it.default)) for key, it in settings.items()]
            elif one.name in own:
                shown.append(_option(one.name, own[one.name], own[one.name].default))
            else:
                shown.append(one.replace(kind=inspect.Parameter.KEYWORD_ONLY))

        @functools.wraps(command)
        def wrapper(**values: Any) -> Any:
            ctx = values["ctx"] if "ctx" in given else values.pop("ctx")
            typed = {key: one.read(values.pop(_name(key))) for key, one in settings.items()}
            values |= {name: one.checked(one.read(values[name])) for name, one in own.items()}
            return command(**{argument: _made(owner, typed, ctx)}, **values)

        wrapper.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {one.name: one.annotation for one in shown}
        return wrapper

    return decorate


def typed_settings(ctx: typer.Context, owner: type[Any]) -> tuple[str, ...]:
    """Return the settings that the user gave on the command line, by key."""
    return tuple(key for key in settings_of(owner) if is_typed(ctx, _name(key)))


def is_typed(ctx: typer.Context, name: str) -> bool:
    """Whether the user gave the parameter of this name on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _made(owner: type[Any], typed: dict[str, Any], ctx: typer.Context) -> Any:
    if typed.get("preset") is None:
        return with_values(owner(), typed)
    from klcli.settings.presets import override, preset

    return override(preset(typed["preset"]).config, {key: typed[key] for key in typed_settings(ctx, owner)})


def _option(name: str, one: Setting, default: Any) -> inspect.Parameter:
    """Return the parameter of a setting. Values are passed as text: the setting parses them, with its own messages."""
    more: dict[str, Any] = {"metavar": one.metavar}
    kind: Any = str | None
    if one.kind is bool:
        kind, more = bool | None if one.is_optional else bool, {}
    elif one.is_counted:
        kind, more = int, {"count": True}
    elif one.kind is tuple:
        kind = tuple[str, str] | None if one.is_pair else list[str]
        default = default and [*map(str, default)]
    elif default is not None:
        default = str(default)
    option = typer.Option(*one.names, rich_help_panel=str(one.role), help=one.help, envvar=one.envvar, **more)
    return _parameter(name, Annotated[kind, option], default)


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _name(key: str) -> str:
    return key.rpartition(".")[2]
