"""The sweep of sigma: how much the scale of the initial weights matters, with and without BN."""

from collections.abc import Sequence
from dataclasses import replace

from klcli.errors import ConfigError
from klcli.settings.train_config import TrainConfig
from klcli.studies.repeats import repeat


def plan(base: TrainConfig, sigmas: Sequence[float], repeats: int) -> list[TrainConfig]:
    """Return every sigma without and with batch normalisation, each with every repeat."""
    if not sigmas:
        raise ConfigError("sigmas: give at least one, for example --sigmas 1e-1 1e-3 1e-4")
    return [
        replace(config, initializer="normal", sigma=sigma, batch_norm=batch_norm)
        for batch_norm in (False, True)
        for sigma in dict.fromkeys(sigmas)
        for config in repeat(base, repeats)
    ]
