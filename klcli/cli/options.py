"""Options, generated from settings: the fields of a dataclass or the parameters of a command."""

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from klcli.cli import streams
from klcli.cli.completion import completion, of_setting
from klcli.cli.help_screen import TYPED, show_help
from klcli.errors import ConfigError, StoreError
from klcli.settings.setting import Setting, setting_of, settings_of, with_values
from klcli.text import command_text, path_text, user_path

Command = Callable[..., Any]
# Typer bundles its own copy of Click, not the package `click`; its UsageError is the base class of BadParameter.
UsageError: Any = typer.BadParameter.__mro__[1]
NUMBERS = ("N", "X")  # placeholders of options whose last value counts, so that a script can replace another's


class KlcliCommand(TyperCommand):
    """A command with klcli's help and variadic options, which Typer lacks: a list takes all values up to an option.

    `--hidden 50 30 20` is passed to the parser as `--hidden 50 --hidden 30 --hidden 20`. A negative
    number counts as a value, so that the message names it; any other word with a dash begins the next option. An
    argument RUN can be a negative number, too: -1 is the newest run. Arguments of such a command go behind a `--`.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        show_help(self, ctx)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete a further value of a variadic option, which Typer takes for an argument."""
        last = next((word for word in reversed(ctx.meta[TYPED]) if word.startswith("--")), None)
        of_list = [one for one in self.params if getattr(one, "multiple", False) and last in one.opts]
        if of_list and not incomplete.startswith("-"):
            return of_list[0].shell_complete(ctx, incomplete)
        return super().shell_complete(ctx, incomplete)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[TYPED] = args
        options: list[Any] = [one for one in self.params if one.param_type_name == "option"]
        lists = {name for one in options if one.multiple for name in one.opts}
        single = {name: one for one in options if not (one.is_flag or one.count or one.multiple) for name in one.opts}
        names = {name for one in self.get_params(ctx) for name in (*one.opts, *one.secondary_opts)}
        given = dict[str, list[str]]()  # values of options of one value
        takes_runs = any(one.metavar in ("RUN", "RUN...") for one in self.params if one not in options)
        words, arguments, rest = list[str](), list[str](), list(args)
        while rest and rest[0] != "--":
            name = rest.pop(0)
            option, joined, value = name.partition("=")
            is_long = name.startswith("-") and option not in names and f"-{option}" in names
            if is_long and not ctx.resilient_parsing:
                raise UsageError(f"No such option: {option} (nearest: -{option})", ctx=ctx)  # not one per letter
            if option in single and single[option].metavar not in NUMBERS:
                given.setdefault(single[option].opts[0], []).extend([value] if joined else rest[:1])
            values = list[str]()
            while name in lists and rest and not _is_option(rest[0]):
                values.append(rest.pop(0))
            if name in lists and not values and not ctx.resilient_parsing:
                raise typer.BadParameter(f"{name} needs at least one value", ctx=ctx)
            words += [word for value in values for word in (name, value)]
            if name in single:
                if rest and rest[0].partition("=")[0] in names and not ctx.resilient_parsing:
                    as_value = f"{max(single[name].opts, key=len)}={rest[0]}"
                    raise ConfigError(f"{name} needs a value, and {rest[0]} is an option; as a value: {as_value}")
                words += [name, *rest[:1]]
                arguments = arguments if rest else []  # the parser would take the `--` for the missing value
                del rest[:1]
            elif name not in lists:
                (arguments if takes_runs and not _is_option(name) else words).append(name)
        for option, values in given.items():
            if len(set(values)) > 1 and not ctx.resilient_parsing:  # the parser would silently use the last one
                raise ConfigError(f"{option} is given {len(values)} times: {_for_one(option, values)}")
        try:
            return super().parse_args(ctx, words + (["--", *arguments, *rest[1:]] if arguments or rest else []))
        except UsageError as error:  # the parser does not say which command has no value behind an option
            error.ctx = error.ctx or ctx
            needed = [str(one.metavar) for one in self.params if one not in options and one.required]
            if getattr(error, "param", None) in self.params and len(needed) > 1:  # it would name the first alone
                raise UsageError(f"an argument is missing, give {' '.join(needed)}", ctx=ctx) from None
            raise


def _for_one(option: str, values: Sequence[str]) -> str:
    """Return what to give instead of several values of an option that takes one."""
    if option == "--db":
        return f"a command uses one database, `klcli runs merge {command_text(values)} --db all.db` puts them into one"
    if option == "--where":
        return f"give one condition, {command_text([option, ' AND '.join(f'({value})' for value in values)])}"
    return f"give one of {', '.join(map(path_text, values))}"


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not word[1].isdigit()


class RecordingCommand(KlcliCommand):
    """A command that, if its result could not be written to stdout, names the database that stores it."""

    def invoke(self, ctx: Any) -> None:
        super().invoke(ctx)
        connection = sys.modules.get("klcli.store.connection")  # a list of presets opens none, a dry run stores nothing
        if (loss := streams.loss()) is not None and connection and connection.last_written:
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
        own: dict[str, Setting] = {}
        shown = [] if "ctx" in given else [_parameter("ctx", typer.Context)]
        for name, one in given.items():
            if name == argument:
                shown += [_option(_name(key), it, defaults.get(key, it.default)) for key, it in settings.items()]
            elif isinstance(one.default, Field):
                own[name] = setting_of(name, one.annotation, one.default)
                shown.append(_option(name, own[name], own[name].default))
            else:
                shown.append(_parameter(name, one.annotation, one.default))

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
    # `readable` would refuse a file without its permissions here, with a message that has no cure.
    how: dict[str, Any] = {"autocompletion": completion(metavar), "readable": False, "callback": _expanded}
    return typer.Argument(metavar=metavar, help=help, **how)


def _expanded(value: Any) -> Any:
    """Return the value of an argument with the home of every path expanded."""
    if isinstance(value, list | tuple):
        return [_expanded(one) for one in value]
    return user_path(value) if isinstance(value, Path) else value


def typed_settings(ctx: typer.Context, owner: type[Any]) -> tuple[str, ...]:
    """Return the settings that the user gave on the command line, by key."""
    return tuple(key for key in settings_of(owner) if is_typed(ctx, _name(key)))


def is_typed(ctx: typer.Context, name: str) -> bool:
    """Whether the user gave the parameter of this name on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _made(owner: type[Any], typed: dict[str, Any], ctx: typer.Context) -> Any:
    given = typed_settings(ctx, owner)
    if typed.get("preset") is None:
        made = with_values(owner(), typed)
    else:
        from klcli.settings.presets import override, preset

        made = override(preset(typed["preset"]).config, {key: typed[key] for key in given})
    if not ctx.params.get("resume"):  # what is resumed may be of an older klcli
        made.require_effect(given, typed)  # a setting that is no option of the command is the command's choice
    return made


def _option(name: str, one: Setting, default: Any) -> inspect.Parameter:
    """Return the parameter of a setting. Values are passed as text: the setting parses them, with its own messages."""
    kind: Any = str | None
    if one.kind is bool:
        kind = bool | None if one.is_optional else bool
    elif one.is_counted:
        kind = int
    elif one.kind is tuple:
        kind = list[str]
        default = default and [*map(str, default)]
    elif default is not None:
        default = str(default)
    more: dict[str, Any] = {} if one.kind is bool else {"metavar": one.metavar}
    if one.is_counted:
        more = {"count": True, "show_default": False}
    more |= {"help": one.help, "envvar": one.envvar, "autocompletion": of_setting(one)}
    return _parameter(name, Annotated[kind, typer.Option(*one.names, rich_help_panel=str(one.role), **more)], default)


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _name(key: str) -> str:
    return key.rpartition(".")[2]
