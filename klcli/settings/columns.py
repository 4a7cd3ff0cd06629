"""The settings of a run as columns of the database."""

from klcli.settings.train_config import TrainConfig


def columns(config: TrainConfig) -> dict[str, str | int | float | None]:
    """Return the settings that have a stored column of `runs`, by its name."""
    return {
        "hidden": " ".join(map(str, config.hidden)),
        "batch_norm": int(config.batch_norm),
        "bn_position": config.bn_position if config.batch_norm else None,
        "initializer": config.initializer,
        "sigma": config.sigma,
        "lambda": config.lam,
        "optimizer": config.optimizer,
        "schedule": config.schedule,
        "eta_min": config.eta_min,
        "eta_max": config.eta_max,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "dtype": config.dtype,
    }


def virtual_columns() -> dict[str, str]:
    """Return the definition of every column that SQLite computes from the config, by its name."""
    return {}
