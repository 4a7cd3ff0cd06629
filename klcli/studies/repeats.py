"""Repeats: the same training under several seeds."""

from dataclasses import replace

from klcli.errors import ConfigError
from klcli.settings.train_config import TrainConfig


def repeat(base: TrainConfig, repeats: int) -> list[TrainConfig]:
    """Return `repeats` configs that differ in the seed of the weights alone. Raises ConfigError below one."""
    if repeats < 1:
        raise ConfigError(f"repeats {repeats}: must be at least 1")
    order_seed = base.seed if base.order_seed is None else base.order_seed
    return [replace(base, seed=base.seed + r, order_seed=order_seed) for r in range(repeats)]
