"""Presets: settings with a name, read from presets.toml."""

import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.resources import files
from typing import Any

from klcli.errors import ConfigError
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig

# A setting (of the split after a dot) with those that were chosen for its value and go with it.
BELONGING = {
    "cycles": ("epochs",),
    "step_epochs": ("step_size",),
    "initializer": ("sigma",),
    "bn_statistics": ("bn_samples",),
    "optimizer": ("momentum",),
    "schedule": ("eta_decay",),
    "split.validation": ("split.validation_batches",),
}


@dataclass(frozen=True)
class Preset:
    """A named config."""

    name: str
    description: str
    config: TrainConfig

    def differing(self) -> dict[str, Any]:
        """Return the settings that are not the defaults, those of the split as `split.subset`."""
        own, usual = _flat(self.config), _flat(TrainConfig())
        return {key: value for key, value in own.items() if value != usual[key] and key != "preset"}


def presets() -> dict[str, Preset]:
    """Return the presets of klcli by name."""
    return parse(files("klcli.settings").joinpath("presets.toml").read_text(encoding="utf-8"))


def parse(text: str) -> dict[str, Preset]:
    """Return the presets of a TOML document. Raises ConfigError for what is no preset."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"presets: this is no TOML ({error})") from None
    found = {}
    for name, values in document.items():
        if not isinstance(values, dict) or not isinstance(values.get("description"), str):
            raise ConfigError(f"preset {name}: give it a table with a description of one line")
        settings = {key: value for key, value in values.items() if key != "description"}
        if "preset" in settings:
            raise ConfigError(f"preset {name}: its name is {name}, leave the key `preset` away")
        try:
            config = TrainConfig.from_json(json.dumps(settings | {"preset": name}))
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"preset {name}: {error}") from None
        found[name] = Preset(name, values["description"], config)
    return found


def preset(name: str) -> Preset:
    """Return one preset. Raises ConfigError, which names those that are there."""
    known = presets()
    if name not in known:
        raise ConfigError(f"--preset {name!r}: choose one of {', '.join(known)}")
    return known[name]


def override(config: TrainConfig, own: Mapping[str, Any]) -> TrainConfig:
    """Return a config with a user's own settings in it; those of the split are named `split.subset`.

    What belonged to a setting that the user replaces goes back to its default: whoever types --cycles
    does not want the preset's epochs.
    """
    usual = _flat(TrainConfig())
    dropped = [key for name in own for key in BELONGING.get(name, ()) if key not in own]
    values = {key: usual[key] for key in dropped} | dict(own)
    split = {key.removeprefix("split."): value for key, value in values.items() if key.startswith("split.")}
    rest = {key: value for key, value in values.items() if not key.startswith("split.")}
    return replace(config, split=replace(config.split, **split), **rest)


def setting_word(value: Any) -> str:
    """Return the value of a setting as a user reads it: `512 256`, `true`, `0.05`."""
    if isinstance(value, Collection) and not isinstance(value, str):
        return " ".join(map(str, value))
    return json.dumps(value) if isinstance(value, bool | float) else str(value)


def _flat(config: TrainConfig) -> dict[str, Any]:
    own = asdict(config)
    split = own.pop("split")
    return own | {f"split.{field.name}": split[field.name] for field in fields(SplitConfig)}
