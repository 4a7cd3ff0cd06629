"""Sameness: the differences between two trainings, the keys of repeats and stacks. Configs are compared only here."""

from dataclasses import replace
from typing import Any

from klcli.settings.setting import Setting, settings_of, value_of, with_valid
from klcli.settings.train_config import TrainConfig


def differences(a: TrainConfig, b: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Return both values of every setting in which two trainings differ, by key, without the name of the preset."""
    pairs = {key: (value_of(a, key), value_of(b, key)) for key, one in SETTINGS.items() if not one.is_name}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def without_seeds(config: TrainConfig) -> TrainConfig:
    """Return the settings that all repeats of a training share, the key of their group."""
    split = config.split if config.split.split_seed is None else with_valid(config.split, split_seed=None)
    return with_valid(config, split=split, **_WITHOUT_SEEDS)


def without_seeds_in_split(config: TrainConfig) -> TrainConfig:
    """Return the settings that repeats on one division of the images share."""
    return with_valid(without_seeds(config), split=config.split)


def settings_and_seeds(config: TrainConfig) -> tuple[TrainConfig, tuple[int | None, ...]]:
    """Return what determines the numbers of a training; an omitted order seed is the seed, None if nothing is drawn."""
    return without_seeds(config), (config.seed, config.shared_seed if config.draws else None, config.split.split_seed)


def numbers_key(config: TrainConfig, step_size: int, epochs: float) -> tuple[Any, ...]:
    """Return what determines the numbers of a run, whose length may be given as epochs, cycles or updates."""
    repeated, seeds = settings_and_seeds(config)
    without_effect = {key: SETTINGS[key].default for key in config.without_effect if "." not in key}
    same = {"bn_samples": config.statistics_samples} | without_effect | _NOT_COMPARED
    return with_valid(repeated, **same), step_size, epochs, seeds


def stack_key(config: TrainConfig) -> tuple[Any, ...]:
    """Return the settings that the replicas of one stack must share, the order of the images among them."""
    config = replace(config, order_seed=config.shared_seed)
    return tuple(value_of(config, one.key) for one in SETTINGS.values() if not one.differs_in_stack)


def not_default(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that differ from the default, by key."""
    return {key: value for key, (value, _) in differences(config, TrainConfig()).items()}


SETTINGS: dict[str, Setting] = settings_of(TrainConfig)
_WITHOUT_SEEDS = {  # but that of the split
    one.key: one.default for one in SETTINGS.values() if (one.is_seed or one.is_name) and "." not in one.key
}
NO_NUMBER = ("evaluations_per_cycle", "snapshots")  # settings on which no number of the last network depends
_NOT_COMPARED = {
    one.key: one.default for one in SETTINGS.values() if one.is_resolved or one.key in ("step_epochs", *NO_NUMBER)
}
