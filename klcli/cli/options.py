"""Options: those of the settings, made from the fields that declare them, and those that a command declares."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_type_hints

import typer

from klcli.errors import ConfigError
from klcli.settings.setting import Setting, settings_of, with_values

Command = Callable[..., Any]


def option(*names: str, panel: str, help: str, **more: Any) -> Any:
    """Return a Typer option in the named panel of `--help`."""
    return typer.Option(*names, rich_help_panel=panel, help=help, **more)


def number(convert: type[int] | type[float], bounds: tuple[float, float] | None = None) -> Callable[[str], int | float]:
    """Return a parser whose refusal names the value, which Typer's own leaves out for some types."""

    def parse(text: str) -> int | float:
        try:
            value = convert(text)
        except ValueError:
            kind = "a whole number" if convert is int else "a number"
            raise typer.BadParameter(f"{text!r} is not {kind}") from None
        if bounds and not bounds[0] <= value <= bounds[1]:
            raise typer.BadParameter(f"{text!r} must be from {bounds[0]} to {bounds[1]}")
        return value

    parse.__name__ = "integer" if convert is int else "number"
    return parse


def integer_option(*names: str, panel: str, help: str, bounds: tuple[int, int] | None = None) -> Any:
    """Return an option for a whole number within `bounds`."""
    return option(*names, panel=panel, help=help, parser=number(int, bounds), metavar="N")


def takes(
    owner: type[Any], argument: str, *, only: tuple[str, ...] = (), omit: tuple[str, ...] = (), **defaults: Any
) -> Callable[[Command], Command]:
    """Give a command the options of a dataclass of settings, with its defaults or these, and pass it as `argument`.

    The command is written as `def command(config: TrainConfig, ...)`; what the user typed is validated when the
    config is made, before the command runs. `only` names the settings whose options mean something to the command,
    all of them if it is empty; `omit` those that do not.
    """
    settings = {key: one for key, one in settings_of(owner).items() if key not in omit and (not only or key in only)}
    chosen = {key: one.default for key, one in settings.items()} | defaults

    def decorate(command: Command) -> Command:
        own = [p for p in parameters(command) if p.name != argument]
        context = [] if any(p.name == "ctx" for p in own) else [keyword("ctx", typer.Context)]
        given = [keyword(_name(key), _annotation(one), _text(chosen[key])) for key, one in settings.items()]

        @functools.wraps(command)
        def wrapper(**values: Any) -> Any:
            typed = {key: _value(one, values.pop(_name(key))) for key, one in settings.items()}
            ctx = values.pop("ctx") if context else values["ctx"]
            if typed.get("preset") is None:
                made = with_values(owner(), typed)
            else:
                from klcli.settings.presets import override, preset

                named = set(typed_settings(ctx, owner))
                made = override(preset(typed["preset"]).config, {key: typed[key] for key in typed if key in named})
            return command(**{argument: made}, **values)

        return with_parameters(wrapper, [*context, *given, *own])

    return decorate


def gathers(
    owner: type[Any], argument: str, options: Mapping[str, Any] = {}, *, last: bool = False, **defaults: Any
) -> Callable[[Command], Command]:
    """Give a command the options of a dataclass, and pass an object of it as `argument`.

    The fields are annotated with their options, where `options` does not give those. The defaults are those of the
    dataclass, or these. The options come before those of the command, or `last`.
    """
    options = options or get_type_hints(owner, include_extras=True)
    usual = {
        one.name: one.default if one.default_factory is MISSING else one.default_factory() for one in fields(owner)
    }
    given = [keyword(name, annotation, (usual | defaults)[name]) for name, annotation in options.items()]

    def decorate(command: Command) -> Command:
        own = [p for p in parameters(command) if p.name != argument]

        @functools.wraps(command)
        def wrapper(**values: Any) -> Any:
            gathered = {name: values.pop(name) for name in options}
            return command(**{argument: owner(**gathered)}, **values)

        return with_parameters(wrapper, [*own, *given] if last else [*given, *own])

    return decorate


def typed_settings(ctx: typer.Context, owner: type[Any]) -> tuple[str, ...]:
    """Return the settings whose options the user typed, by key."""
    return tuple(key for key in settings_of(owner) if is_typed(ctx, _name(key)))


def is_typed(ctx: typer.Context, parameter: str) -> bool:
    """Whether the user named the option of this parameter."""
    source = ctx.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def _annotation(one: Setting) -> Any:
    """Return the annotation of a setting's option. Values arrive as text: the setting reads them, with its message."""
    if one.kind is bool:
        names = [f"{one.option}/--no-{one.option.removeprefix('--')}"]
        return Annotated[bool, option(*names, panel=one.role.value, help=one.help)]
    names = [one.option, one.short] if one.short else [one.option]
    kind: Any = list[str] if one.kind is tuple else str | None
    return Annotated[kind, option(*names, panel=one.role.value, help=one.help, metavar=one.metavar)]


def _text(default: Any) -> Any:
    """Return a default as a user would type it."""
    if isinstance(default, tuple):
        return [str(item) for item in default]
    return default if default is None or isinstance(default, bool) else str(default)


def _value(one: Setting, given: Any) -> Any:
    return given if given is None or isinstance(given, bool) else one.read(given)


def _name(key: str) -> str:
    return key.rpartition(".")[2]


def keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """Return a parameter of a command."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def parameters(command: Command) -> list[inspect.Parameter]:
    """Return the parameters of a command with their annotations evaluated."""
    signature = inspect.signature(command, eval_str=True)
    return [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]


def with_parameters(command: Command, given: list[inspect.Parameter]) -> Command:
    """Return the command as one that has these parameters, for Typer to read."""
    command.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in given}
    return command


def integers(texts: list[str], name: str) -> tuple[int, ...]:
    """Read `["50", "30,20"]` as (50, 30, 20). Raises ConfigError, which names the value and the option."""
    return tuple(_items(texts, name, int, "a whole number"))


def numbers(texts: list[str], name: str) -> tuple[float, ...]:
    """Read `["1e-1", "1e-3,1e-4"]` as numbers. Raises ConfigError, which names the value and the option."""
    return tuple(_items(texts, name, float, "a number"))


def _items(texts: list[str], name: str, convert: Callable[[str], Any], kind: str) -> Iterator[Any]:
    for text in (part for item in texts for part in item.split(",")):
        try:
            yield convert(text)
        except ValueError:
            raise ConfigError(f"--{name.replace('_', '-')} {text!r}: must be {kind}") from None
