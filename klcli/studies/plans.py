"""Plans: the configs of repeats, and of a sigma sweep."""

from collections.abc import Sequence
from dataclasses import replace

from klcli.settings.procedures import VARY
from klcli.settings.setting import require
from klcli.settings.train_config import TrainConfig


def repeat(base: TrainConfig, repeats: int, vary: str = "all") -> list[TrainConfig]:
    """Return `repeats` configs that differ only in their seeds, each one more than that of the repeat before.

    With `all`, repeat r is what `base` gives with its seed + r. `init` varies the weights and holds order, dropout and
    augmentation; `order` does the reverse. Raises ConfigError for less than one repeat, or if nothing varies.
    """
    check_repeats(repeats, vary)
    if vary != "all":
        base = replace(base, order_seed=base.shared_seed)  # a seed of its own, which does not follow the other
    weights, order = vary != "order", vary != "init"
    others = base.order_seed
    return [
        replace(base, seed=base.seed + r * weights, order_seed=None if others is None else others + r * order)
        for r in range(repeats)
    ]


def check_repeats(repeats: int, vary: str) -> None:
    """Raise ConfigError for less than one repeat, an unknown `vary`, or one that a single training cannot obey."""
    require(repeats >= 1, f"repeats {repeats}: must be at least 1")
    require(vary in VARY, f"--vary {vary!r}: choose one of {', '.join(VARY)}")
    require(repeats > 1 or vary == "all", f"--vary {vary}: a single training varies nothing, give --repeats 2 or more")


def sigma_sweep(base: TrainConfig, sigmas: Sequence[float], repeats: int, vary: str = "all") -> list[TrainConfig]:
    """Return the configs of every sigma, without and with batch normalisation, with all repeats."""
    require(bool(sigmas), "sigmas: give at least one, for example --sigmas 1e-1 1e-3 1e-4")
    return [
        replace(config, initializer="normal", sigma=sigma, batch_norm=batch_norm)
        for batch_norm in (False, True)
        for sigma in dict.fromkeys(sigmas)
        for config in repeat(base, repeats, vary)
    ]
