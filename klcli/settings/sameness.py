"""Sameness: in what two trainings differ, and whether they are repeats. Only here are configs compared."""

from dataclasses import replace
from typing import Any

from klcli.settings.setting import Setting, settings_of, value_of
from klcli.settings.train_config import TrainConfig


def differences(a: TrainConfig, b: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Return both values of every setting in which two trainings differ, by key; a preset's name is no setting."""
    return {
        one.key: (value_of(a, one.key), value_of(b, one.key))
        for one in SETTINGS.values()
        if not one.is_name and value_of(a, one.key) != value_of(b, one.key)
    }


def same_but_for_the_seed(a: TrainConfig, b: TrainConfig) -> bool:
    """Whether two trainings are repeats of one another."""
    return without_seeds(a) == without_seeds(b)


def without_seeds(config: TrainConfig) -> TrainConfig:
    """Return what all repeats of a training have in common, to be the key of their group."""
    return replace(config, **{one.key: one.default for one in SETTINGS.values() if one.is_seed or one.is_name})


def without_name(config: TrainConfig) -> TrainConfig:
    """Return what decides the digits of a training: two of them that are equal here give the same numbers.

    An order seed that is omitted is the seed itself.
    """
    return replace(config, preset=None, order_seed=config.shared_seed)


def stack_key(config: TrainConfig) -> tuple[Any, ...]:
    """Return what the replicas of one stack must have in common."""
    return tuple(value_of(config, one.key) for one in SETTINGS.values() if not one.differs_in_stack)


def not_default(config: TrainConfig) -> dict[str, Any]:
    """Return the settings with another value than the default, by key."""
    return {key: value for key, (value, _) in differences(config, TrainConfig()).items()}


SETTINGS: dict[str, Setting] = settings_of(TrainConfig)
