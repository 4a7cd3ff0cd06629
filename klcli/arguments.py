"""Arguments: the types of those of a public method, checked against its annotations."""

import inspect
import reprlib
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from os import PathLike
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from klcli.errors import ConfigError
from klcli.settings.setting import python_number
from klcli.text import user_path

_WORDS: dict[Any, str] = {
    str: "a text", int: "a whole number", float: "a number", bool: "True or False", PathLike: "a path",
    Iterable: "a list", Mapping: "a dictionary", Callable: "a function",
}  # fmt: skip

Owner = TypeVar("Owner", bound=type)


def checked(owner: Owner) -> Owner:
    """Let the public methods of a class raise ConfigError for an argument that its annotation excludes.

    The line names the method, the argument, its value, and what to give. Numbers of NumPy become those of Python, any
    iterable a tuple, because a generator can be read only once, and `~` the home folder.
    """
    for name, method in [*vars(owner).items()]:
        if inspect.isfunction(method) and (name == "__init__" or not name.startswith("_")):
            setattr(owner, name, _checking(method, owner.__name__ if name == "__init__" else name))
    return owner


def _checking(method: Callable[..., Any], called: str) -> Callable[..., Any]:
    signature = inspect.signature(method)
    expected = {
        # Of `*names`, the annotation is that of each.
        name: Iterable[one.annotation] if one.kind is one.VAR_POSITIONAL else one.annotation  # type: ignore[name-defined]
        for name, one in signature.parameters.items()
        if one.annotation is not one.empty
    }

    @wraps(method)
    def check(*given: Any, **named: Any) -> Any:
        try:
            bound = signature.bind(*given, **named)
        except TypeError:
            return method(*given, **named)  # fails in the words of Python
        for name, annotation in expected.items():
            if name in bound.arguments:
                bound.arguments[name] = _checked(bound.arguments[name], annotation, f"{called}({name}=")
        return method(*bound.args, **bound.kwargs)

    return check


def _checked(value: Any, annotation: Any, asked: str) -> Any:
    """Return the value as the annotation has it. Raises ConfigError."""
    value = python_number(value)
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = {get_origin(part) or part: part for part in parts}
    if PathLike in kinds and isinstance(value, str | PathLike) and str(value).startswith("~"):
        value = user_path(value)
    classes = kinds.keys() - {Iterable} | ({int} if float in kinds else set())
    if isinstance(value, tuple(classes)) and (bool in kinds or not isinstance(value, bool)):
        return value
    if Iterable in kinds and isinstance(value, Iterable) and not isinstance(value, str | bytes):
        [item] = get_args(kinds[Iterable])
        return tuple(_checked(one, item, asked) for one in value)
    implied = {type(None), str if PathLike in kinds else None}
    *most, last = [_words(kind) for kind in kinds if kind not in implied]
    shown = " ".join(reprlib.repr(value).split())
    raise ConfigError(f"{asked}{shown}): give {', '.join(most)}{' or ' * bool(most)}{last}")


def _words(kind: type) -> str:
    name = kind.__name__
    return _WORDS.get(kind) or f"a{'n' * (name[0] in 'AEIOU')} {name}"
