"""Presets: named settings, read from presets.toml."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

from klcli.errors import ConfigError
from klcli.settings.sameness import SETTINGS, not_default
from klcli.settings.setting import require, with_values
from klcli.settings.train_config import NEEDED, TrainConfig

# A setting, and those that would hide its value.
HIDING = {
    "cycles": ("epochs",), "step_epochs": ("step_size", "epochs"), "step_size": ("epochs",),
    "split.validation": ("split.validation_batches",), "split.split_seed": ("split.validation_batches",),
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """A config with a name, a description, and what was measured: see results/best.md."""

    name: str
    description: str
    config: TrainConfig
    minutes: str | None = None  # of a training on two cores
    test: str | None = None  # test accuracy of one network, with its interval over seeds
    test_over_views: str | None = None  # the same, averaged over flips and shifts by 2 pixels


def presets() -> dict[str, Preset]:
    """Return the presets of klcli by name."""
    document = tomllib.loads(files("klcli.settings").joinpath("presets.toml").read_text(encoding="utf-8"))
    found = {}
    for name, values in document.items():
        about = {one.name: values.pop(one.name) for one in fields(Preset) if one.name in values}
        found[name] = Preset(name, config=TrainConfig.from_values(values | {"preset": name}), **about)
    return found


def preset(name: str) -> Preset:
    """Return one preset. Raises ConfigError, which lists the known names."""
    known = presets()
    require(name in known, f"--preset {name!r}: choose one of {', '.join(known)}")
    return known[name]


def require_settings(config: TrainConfig) -> None:
    """Raise ConfigError for the name of a preset with few of its settings: the name alone sets nothing."""
    meant = presets().get(config.preset) if config.preset else None
    own = not_default(meant.config) if meant else {}
    cure = f"omit the name, or begin with preset({config.preset!r}).config, of klcli.settings.presets"
    is_named_alone = 4 * len(own.keys() & not_default(config)) < len(own)
    require(not is_named_alone, f"preset {config.preset!r}: only the name is here, not its settings: {cure}")


def override(config: TrainConfig, own: Mapping[str, Any]) -> TrainConfig:
    """Return a config with the user's own settings, by key.

    Settings that hide one of them or do not suit its value return to their defaults: --cycles, --step-epochs and
    --step-size, for example, drop the preset's epochs, and --activation relu the slope of its silu.
    """
    values = {**vars(config), **own}
    dropped = {key for name in own for key in HIDING.get(name, ())}
    dropped |= {key for key, (needed, suited) in NEEDED.items() if values[needed] not in suited}
    if not (values["shift"] or values["contrast"]):
        dropped.add("weak_augmentation")
    try:
        return with_values(config, {key: SETTINGS[key].default for key in dropped} | dict(own))
    except ConfigError as error:
        raise ConfigError(f"with --preset {config.preset}: {error}") from None
