"""Setting: all that is known of one setting, written once beside its field.

A dataclass of settings declares a field as `lam: float = setting(0.005, Role.OPTIMISATION, "...", at_least=0)`. Its
option and help, the validation of its values, its column and its words in tables and captions come from there.
Own lines and no validation library: the messages are one line with the option and the cure, whether a value comes from
Python, from JSON or from the command line, and importing pydantic would cost `klcli --help` a third of its time.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from klcli.errors import ConfigError

MAX_INTEGER = 2**63 - 1  # the largest integer of the database


class Role(StrEnum):
    """What a setting is part of; its value is the title of a panel of `--help`."""

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
    kind: type  # int, float, bool, str, or tuple for whole numbers
    is_optional: bool  # whether None is a value
    default: Any
    role: Role
    help: str
    option: str  # --lambda
    short: str | None  # -H
    label: str  # in tables and captions
    column: str  # of the table `runs`
    choices: tuple[str, ...]
    at_least: float | None
    above: float | None
    at_most: float | None
    below: float | None
    example: str | None  # a value that works, where the bounds do not suggest one
    is_resolved: bool  # a run stores the number that follows from this and other settings
    is_seed: bool  # runs that differ in it alone are repeats
    is_name: bool  # a name for settings, none itself
    differs_in_stack: bool  # replicas of a stack may differ in it

    @property
    def metavar(self) -> str:
        """What stands for a value in `--help`: `N`, `X`, `before|after`."""
        if self.choices:
            return "|".join(self.choices)
        return {int: "N", float: "X", tuple: "N...", str: "NAME"}.get(self.kind, "")

    def read(self, texts: str | Sequence[str]) -> Any:
        """Return the value that a person typed; a list may be `["50", "30,20"]`. Raises ConfigError."""
        if self.kind is tuple:
            return tuple(self._number(part, int) for text in texts for part in text.split(","))
        text = str(texts)
        return text if self.kind is str else self._number(text, self.kind)

    def _number(self, text: str, kind: type) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise ConfigError(f"{self.option} {text!r}: must be {_KINDS[kind]}{self._example}") from None

    def checked(self, value: Any) -> Any:
        """Return the value as it is stored: 5 as 5.0 where it is a number, a list as a tuple. Raises ConfigError."""
        if value is None and self.is_optional:
            return None
        if self.kind is tuple:
            if not isinstance(value, list | tuple):
                raise ConfigError(f"{self.option} {value!r}: must be a list of whole numbers{self._example}")
            return tuple(self._checked(item, int) for item in value)
        return self._checked(value, self.kind)

    def _checked(self, value: Any, kind: type) -> Any:
        accepted: Any = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{self.option} {value!r}: must be {_KINDS[kind]}{self._example}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.option} {value!r}: choose one of {', '.join(self.choices)}")
        if kind in (int, float) and not self._is_within(value):
            raise ConfigError(f"{self.option} {value}: must be {self._range}{self._example}")
        return float(value) if kind is float else value  # 5 and 5.0 are one setting, and one text in JSON

    def _is_within(self, value: float) -> bool:
        low = (self.at_least is None or value >= self.at_least) and (self.above is None or value > self.above)
        high = (self.at_most is None or value <= self.at_most) and (self.below is None or value < self.below)
        largest = MAX_INTEGER if isinstance(value, int) else sys.float_info.max
        return low and high and abs(value) <= largest

    @property
    def _range(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least} to {self.at_most}"
        bounds = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        words = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
        return words if self.below or self.at_most or self.kind is not float else f"a finite number, {words}"

    @property
    def _example(self) -> str:
        return f", for example {self.option} {self.example}" if self.example else ""

    def words(self, value: Any) -> str:
        """Return the value as a person reads it: `512 256`, `yes`, `0.05`, `-` for None."""
        if value is None:
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, tuple):
            return " ".join(map(str, value)) or "-"
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    def phrase(self, value: Any) -> str:
        """Return the setting with its value for a caption: `momentum 0.9`, `flips`, `not shuffled`."""
        if isinstance(value, bool):
            return self.label if value else f"not {self.label}"
        return f"{self.label} {self.words(value)}"

    def typed(self, value: Any) -> str:
        """Return the value as TOML has it, for lists of presets."""
        return json.dumps(value) if isinstance(value, bool | float) else self.words(value)


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def setting(default: Any, role: Role, help: str, **more: Any) -> Any:
    """Return a field of a dataclass of settings; `more` are fields of Setting that do not follow from its name."""
    return field(default=default, metadata={"role": role, "help": help, **more})


def settings_of(owner: type) -> dict[str, Setting]:
    """Return the settings of a dataclass by key, those of nested dataclasses as `split.subset`."""
    if owner not in _known:
        _known[owner] = {one.key: one for one in _settings_of(owner)}
    return _known[owner]


_known: dict[type, dict[str, Setting]] = {}  # they never change, and every config that is made asks for them


def _settings_of(owner: type) -> Iterator[Setting]:
    hints = get_type_hints(owner)
    for one in fields(owner):
        kind, given = hints[one.name], dict(one.metadata)
        if not given:
            if one.default_factory is not MISSING:
                for inner in _settings_of(kind):
                    yield Setting(**{**inner.__dict__, "key": f"{one.name}.{inner.key}"})
            continue
        parts = (
            [part for part in get_args(kind) if part is not type(None)] if get_origin(kind) is not tuple else [tuple]
        )
        more = dict.fromkeys(("short", "at_least", "above", "at_most", "below", "example"))
        flags = dict.fromkeys(("is_resolved", "is_seed", "is_name", "differs_in_stack"), False)
        derived = {
            "key": one.name,
            "kind": parts[0] if parts else kind,
            "is_optional": type(None) in get_args(kind),
            "default": one.default,
            "option": f"--{one.name.replace('_', '-')}",
            "label": one.name.replace("_", " "),
            "column": one.name,
            "choices": (),
        }
        yield Setting(**{**derived, **more, **flags, **given})


class Settings:
    """Base of the dataclasses of settings: values are checked field by field when one is made."""

    def __post_init__(self) -> None:
        """Check every value by its setting. Raises ConfigError, one line with the option and the cure."""
        for one in settings_of(type(self)).values():
            if "." not in one.key:
                object.__setattr__(self, one.key, one.checked(getattr(self, one.key)))


T = TypeVar("T", bound=Settings)


def with_values(config: T, values: Mapping[str, Any]) -> T:
    """Return settings with other values of some, by key: `lam`, `split.subset`. Raises ConfigError."""
    own = {key: value for key, value in values.items() if "." not in key}
    for name in {key.partition(".")[0] for key in values if "." in key}:
        inner = {key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{name}.")}
        own[name] = with_values(getattr(config, name), inner)
    return replace(config, **own)  # type: ignore[type-var]  # every subclass is a dataclass


def value_of(config: Any, key: str) -> Any:
    """Return the value of a setting by its key: `lam`, `split.subset`."""
    for name in key.split("."):
        config = getattr(config, name)
    return config


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with this message where the condition does not hold."""
    if not condition:
        raise ConfigError(message)
