"""Options, generated from settings: the fields of a dataclass or the parameters of a command."""

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import Field
from itertools import pairwise
from typing import Annotated, Any

import typer

from klcli.cli import streams
from klcli.cli.completion import completion, of_setting
from klcli.cli.help_screen import HelpfulCommand
from klcli.errors import ConfigError, StoreError
from klcli.settings.setting import Setting, setting_of, settings_of, with_values
from klcli.text import command_text

Command = Callable[..., Any]


class KlcliCommand(HelpfulCommand):
    """A command with variadic options, which Typer lacks: a list takes every value up to the next option.

    `--hidden 50 30 20` is passed to the parser as `--hidden 50 --hidden 30 --hidden 20`. A negative
    number counts as a value, so that the message names it; any other word with a dash begins the next option. An
    argument RUN can be a negative number, too: -1 is the newest run.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options: list[Any] = [one for one in self.params if one.param_type_name == "option"]
        lists = {name for one in options if one.multiple for name in one.opts}
        with_value = {name for one in options if not (one.is_flag or one.count) for name in one.opts}
        takes_runs = any(one.metavar in ("RUN", "RUN...") for one in self.params if one not in options)
        words, rest = list[str](), list(args)
        while rest and rest[0] != "--":
            name = rest.pop(0)
            values = list[str]()
            while name in lists and rest and (not rest[0].startswith("-") or rest[0][1:2].isdigit()):
                values.append(rest.pop(0))
            if name in lists and not values and not ctx.resilient_parsing:
                raise typer.BadParameter(f"{name} needs at least one value", ctx=ctx)
            words += [word for value in values for word in (name, value)]
            if name in with_value - lists:
                words += [name, *rest[:1]]
                del rest[:1]
            elif name not in lists:
                words.append(f"{_DASH}{name[1:]}" if takes_runs and _is_number(name, "-") else name)
        _require_one_database(words)
        unparsed = super().parse_args(ctx, words + rest)
        for one in self.params if takes_runs else ():
            value = ctx.params.get(one.name)
            ctx.params[one.name] = [*map(_with_dash, value)] if isinstance(value, list | tuple) else _with_dash(value)
        return unparsed


_DASH = "\0"  # in place of a dash, which the parser takes for the beginning of an option; no argument can contain it


def _is_number(word: str, dash: str) -> bool:
    return word[:1] == dash and word[1:2].isdigit()


def _with_dash(value: Any) -> Any:
    return f"-{value[1:]}" if isinstance(value, str) and _is_number(value, _DASH) else value


def _require_one_database(words: list[str]) -> None:
    """Raise ConfigError if `--db` is given more than once: the parser would silently use the last one."""
    given = [after for word, after in pairwise(words) if word == "--db"]
    given += [word.removeprefix("--db=") for word in words if word.startswith("--db=")]
    if len(given) > 1:
        cure = f"`klcli runs merge {command_text(given)} --db all.db` puts them into one"
        raise ConfigError(f"--db is given {len(given)} times: a command uses one database, {cure}")


class RecordingCommand(KlcliCommand):
    """A command that, if its result could not be written to stdout, names the database that stores it."""

    def invoke(self, ctx: Any) -> None:
        super().invoke(ctx)
        connection = sys.modules.get("klcli.store.connection")  # a list of presets or reports opens no database
        if (loss := streams.loss()) is not None and connection and connection.has_opened():
            stored = f"it is stored in {ctx.params['db']}"
            raise StoreError(f"the result could not be written to stdout ({loss.strerror}), {stored}")


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


def argument(metavar: str, help: str) -> Any:
    """Return the declaration of an argument; its placeholder says which values complete it: `RUN...`, `REPORT...`."""
    return typer.Argument(metavar=metavar, help=help, autocompletion=completion(metavar))


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
        kind, more = int, {"count": True, "show_default": False}
    elif one.kind is tuple:
        kind = tuple[str, str] | None if one.is_pair else list[str]
        default = default and [*map(str, default)]
    elif default is not None:
        default = str(default)
    more["autocompletion"] = of_setting(one)
    option = typer.Option(*one.names, rich_help_panel=str(one.role), help=one.help, envvar=one.envvar, **more)
    return _parameter(name, Annotated[kind, option], default)


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _name(key: str) -> str:
    return key.rpartition(".")[2]
