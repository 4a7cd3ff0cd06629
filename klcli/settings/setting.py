"""Setting: the complete definition of one setting, written once at its field: `setting(0.005, Role.DATA, "Help.")`.

Its option, help, validation, column and label derive from it. A message is one line with the option and the cure.
pydantic would add a third to the time of `klcli --help`.
"""

import sys
from collections.abc import Container, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from klcli.errors import ConfigError
from klcli.text import command_text, user_path

MAX_INTEGER = 2**63 - 1  # the largest integer of the database
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
_METAVARS = {int: "N", float: "X", str: "NAME", Path: "PATH"}


class Role(StrEnum):
    """The part of a training that a setting belongs to, with the title of its panel in `--help`."""

    NETWORK = "Network"
    OPTIMISATION = "Optimisation"
    REGULARISATION = "Augmentation and regularisation"
    DATA = "Data"
    EVALUATION = "Evaluation"
    RANDOMNESS = "Randomness and precision"
    OUTPUT = "Output"
    CHECK = "Gradient check"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a dataclass of settings."""

    key: str  # the field; `split.subset` for the one of a nested dataclass
    kind: type  # int, float, bool, str, Path or tuple
    item: type | None = None  # of a tuple: the kind of its items
    is_optional: bool  # whether None is a value
    default: Any
    role: str  # a Role, or the title of another panel
    help: str
    option: str  # --lambda
    short: str | None = None  # -H
    metavar: str  # placeholder of the value in `--help`: `N`, `X`, `before|after`
    envvar: str | None = None  # computes the value if the option is omitted
    label: str  # in tables and captions
    column: str  # of the table `runs`
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    example: str | None = None  # a valid value, if the bounds do not suggest one
    is_flag: bool = False  # an option without --no-, off if omitted
    is_counted: bool = False  # the value is the number of times that the option is given
    is_resolved: bool = False  # a run stores the number computed from this and other settings
    is_seed: bool = False  # runs that differ only in it are repeats
    is_name: bool = False  # a name for settings, not a setting itself
    differs_in_stack: bool = False  # replicas of a stack may differ in it

    @property
    def names(self) -> list[str]:
        """The option on the command line: `--bn/--no-bn`, `--hidden` and `-H`."""
        if self.kind is bool and not self.is_flag:
            return ["/".join(self.arguments(True) + self.arguments(False))]
        return [self.option, self.short] if self.short else [self.option]

    def read(self, typed: Any) -> Any:
        """Parse the text or texts of a value, also joined by commas: `["50", "30,20"]`. None and counts stay."""
        if typed is None or isinstance(typed, int):
            return typed
        if self.item is None:
            return self._read(typed, self.kind)
        parts = [part for text in typed for part in text.split(",")]
        given = [part for part in parts if part or self.item is not str]
        require(bool(given) or not typed, f"{self.option} {' '.join(typed)!r}: give at least one value")
        return tuple(self._read(part, self.item) for part in given)

    def _read(self, text: str, kind: type) -> Any:
        require(bool(text) or kind is not Path, f"{self.option} '': must be {_KINDS[kind]}")  # Path("") is this folder
        try:
            value = user_path(text) if kind is Path else kind(text)
        except ValueError:
            raise ConfigError(f"{self.option} {text!r}: must be {_KINDS[kind]}{self._example}") from None
        is_lost = kind is float and value == 0 and any(one in "123456789" for one in text.lower().partition("e")[0])
        require(not is_lost, f"{self.option} {text}: float64 rounds it to 0, give 0 or a number of at least 5e-324")
        return value

    def checked(self, value: Any) -> Any:
        """Return the value in its stored form: 5 as 5.0 for a float, a list as a tuple. Raises ConfigError."""
        if value is None and self.is_optional:
            return None
        if self.item is None:
            return self._checked(value, self.kind)
        value = python_number(value)
        if not isinstance(value, list | tuple | range):
            raise ConfigError(f"{self.option} {value!r}: must be a list of {_KINDS[self.item][2:]}s{self._example}")
        return tuple(self._checked(one, self.item) for one in value)

    def _checked(self, value: Any, kind: type) -> Any:
        value = python_number(value)
        accepted: Any = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{self.option} {value!r}: must be {_KINDS[kind]}{self._example}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.option} {value!r}: choose one of {', '.join(self.choices)}")
        is_float = kind is float and abs(value) <= sys.float_info.max
        stored = float(value) + 0.0 if is_float else value  # 5 and 5.0 must be equal in JSON, as -0.0 and 0.0
        if kind in (int, float) and not self._is_within(stored):
            is_huge = kind is int and value > MAX_INTEGER and self.at_most is None
            limits = f"at most {MAX_INTEGER}" if is_huge else self._range
            raise ConfigError(f"{self.option} {value}: must be {limits}{self._example}")
        return stored

    def _is_within(self, value: float) -> bool:
        low = (self.at_least is None or value >= self.at_least) and (self.above is None or value > self.above)
        high = (self.at_most is None or value <= self.at_most) and (self.below is None or value < self.below)
        return low and high and abs(value) <= (MAX_INTEGER if isinstance(value, int) else sys.float_info.max)

    @property
    def _range(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least} to {self.at_most}"
        bounds = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        words = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
        if self.at_most or self.below:
            return words
        if float in (self.kind, self.item):
            return f"a finite number, {words}" if words else "a finite number"
        return words or f"at least {-MAX_INTEGER}"

    @property
    def _example(self) -> str:
        return f", for example {self.option} {self.example}" if self.example else ""

    def words(self, value: Any) -> str:
        """Return the value as text for a person: `512 256`, `yes`, `0.05`, `-` for None."""
        if value is None:
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, tuple):
            return " ".join(map(str, value)) or "-"
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    def phrase(self, value: Any) -> str:
        """Return the setting and its value for a caption: `momentum 0.9`, `flips`, `not shuffled`."""
        if isinstance(value, bool):
            return self.label if value else f"not {self.label}"
        return f"{self.label} {self.words(value)}"

    def arguments(self, value: Any) -> list[str]:
        """Return the option with its value as a command line has it: `["--hidden", "50", "30"]`, `["--no-shuffle"]`."""
        if isinstance(value, bool):
            return [self.option if value else f"--no-{self.option.removeprefix('--')}"]
        return [self.option, *map(str, value if isinstance(value, tuple) else [value])]


def setting(default: Any, role: str, help: str, **more: Any) -> Any:
    """Return a field of a dataclass of settings; `more` are fields of Setting that do not derive from its name."""
    return field(default=default, metadata={"role": role, "help": help, **more})


def flag(role: str, help: str, **more: Any) -> Any:
    """Return a field for a flag: an option without a value, off by default."""
    return setting(False, role, help, is_flag=True, **more)


def setting_of(name: str, hint: Any, declared: Field) -> Setting:
    """Return the setting of the declaration `name: hint = setting(...)`."""
    given, parts = declared.metadata, get_args(hint)
    is_optional = type(None) in parts
    kind = next(part for part in parts if part is not type(None)) if is_optional else hint
    item = next(iter(get_args(kind)), None)  # of tuple[int, ...]
    metavar = _METAVARS.get(item or kind, "") + ("..." if item else "")
    derived = {
        "option": f"--{name.replace('_', '-')}", "label": name.replace("_", " "), "column": name,
        "metavar": "|".join(given.get("choices", ())) or metavar,
    }  # fmt: skip
    kinds = {"kind": tuple if item else kind, "item": item, "is_optional": is_optional}
    return Setting(key=name, default=declared.default, **{**kinds, **derived, **given})


def settings_of(owner: type) -> dict[str, Setting]:
    """Return the settings of a dataclass by key, those of nested dataclasses as `split.subset`."""
    if owner not in _known:
        hints, found = get_type_hints(owner), {}
        for one in fields(owner):
            if one.metadata:
                found[one.name] = setting_of(one.name, hints[one.name], one)
            else:
                inner = {f"{one.name}.{key}": it for key, it in settings_of(hints[one.name]).items()}
                found |= {key: replace(it, key=key) for key, it in inner.items()}
        _known[owner] = found
    return _known[owner]


_known: dict[type, dict[str, Setting]] = {}  # every new config looks its settings up


class Settings:
    """Base class of settings: an invalid value raises ConfigError, one line with the option and the cure."""

    def __post_init__(self) -> None:
        for one in settings_of(type(self)).values():
            if "." not in one.key:
                value, default = getattr(self, one.key), one.default
                # Most values are the default, and a report parses the settings of thousands of runs. Equal tuples may
                # still differ in the types of their items, and equal zeros in their sign.
                is_same = type(value) is type(default) and not one.item and value == default
                if value is not default and not (is_same and (value or one.kind is not float)):
                    object.__setattr__(self, one.key, one.checked(value))

    def unused(self) -> dict[str, tuple[str, str]]:
        """Return the settings without an effect beside the others, by key: the setting at fault and the reason."""
        return {}

    def require_effect(self, given: Container[str], options: Container[str]) -> None:
        """Raise ConfigError for a given setting without an effect, unless the one at fault cannot be given."""
        for key, (at_fault, why) in self.unused().items():
            if key in given and at_fault in options:
                words = command_text(settings_of(type(self))[key].arguments(value_of(self, key)))
                raise ConfigError(f"{words}: no effect, {why}")


T = TypeVar("T", bound=Settings)


def with_values(config: T, values: Mapping[str, Any]) -> T:
    """Return settings with some values replaced, by key: `lam`, `split.subset`. Raises ConfigError."""
    own = {key: value for key, value in values.items() if "." not in key}
    for name in {key.partition(".")[0] for key in values if "." in key}:
        inner = {key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{name}.")}
        own[name] = with_values(getattr(config, name), inner)
    return replace(config, **own)  # type: ignore[type-var]  # every subclass is a dataclass


def with_valid(config: T, **values: Any) -> T:
    """Return settings with some values replaced that are known to be valid, in a thirtieth of the time of `replace`."""
    copied = object.__new__(type(config))
    object.__setattr__(copied, "__dict__", vars(config) | values)
    return copied


def value_of(config: Any, key: str) -> Any:
    """Return the value of a setting by its key: `lam`, `split.subset`."""
    return attrgetter(key)(config)


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with this message if the condition is false."""
    if not condition:
        raise ConfigError(message)


def python_number(value: Any) -> Any:
    """Return a number or an array of NumPy, or of a library like it, as numbers of Python; anything else as it is."""
    return value.tolist() if isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "tolist") else value
