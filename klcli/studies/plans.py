"""Plans: the configs of repeats, and of a sigma sweep."""

from collections.abc import Sequence
from dataclasses import replace

from klcli.errors import ConfigError
from klcli.settings.train_config import TrainConfig


def repeat(base: TrainConfig, repeats: int) -> list[TrainConfig]:
    """Return `repeats` configs that differ only in the seed of the weights. Raises ConfigError below one."""
    if repeats < 1:
        raise ConfigError(f"repeats {repeats}: must be at least 1")
    return [replace(base, seed=base.seed + r, order_seed=base.shared_seed) for r in range(repeats)]


def sigma_sweep(base: TrainConfig, sigmas: Sequence[float], repeats: int) -> list[TrainConfig]:
    """Return the configs of every sigma, without and with batch normalisation, with all repeats."""
    if not sigmas:
        raise ConfigError("sigmas: give at least one, for example --sigmas 1e-1 1e-3 1e-4")
    return [
        replace(config, initializer="normal", sigma=sigma, batch_norm=batch_norm)
        for batch_norm in (False, True)
        for sigma in dict.fromkeys(sigmas)
        for config in repeat(base, repeats)
    ]
