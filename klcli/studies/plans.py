"""Plans: the configs of repeats, of a sigma sweep, and of a range test of eta with the limits that it suggests."""

import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from statistics import median_low
from typing import Any, NamedTuple

from klcli.errors import ConfigError
from klcli.settings.procedures import MOST_REPEATS, VARY
from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import require, value_of, with_values
from klcli.settings.split_config import listed
from klcli.settings.train_config import TrainConfig
from klcli.studies.statistics import binomial_variance

RANGE_TEST_DEFAULTS: dict[str, Any] = {  # no weight average: it lags behind eta
    "eta_min": 1e-5, "eta_max": 1.0, "epochs": 1, "evaluations_per_cycle": 40, "weight_average": 0.0,
}  # fmt: skip
RISEN = 0.1  # fraction of its total rise above which the accuracy counts as rising


def repeat(base: TrainConfig, repeats: int, vary: str = "all") -> list[TrainConfig]:
    """Return `repeats` configs with rising seeds. Raises ConfigError for less than one, or if nothing varies.

    `all` varies every seed, `init` the weights and not order, dropout and augmentation, `order` the reverse. `split`
    varies every seed and draws the validation images anew, from `split_seed` on, or from `seed` on without one.
    """
    check_repeats(repeats, vary, base)
    drawn, is_drawn = base.split.split_seed, vary == "split"
    first = {
        "seed": base.seed,
        # A seed of its own, which does not follow the other.
        "order_seed": base.order_seed if vary in ("all", "split") else base.shared_seed,
        "split.split_seed": base.seed if is_drawn and drawn is None else drawn,
    }
    rising = {"seed": vary != "order", "order_seed": vary != "init", "split.split_seed": is_drawn}
    for key, start in first.items():
        largest = int(SETTINGS[key].at_most or 0) - repeats + 1
        typed = SETTINGS["seed" if value_of(base, key) is None else key].option
        many = f"{typed} {start}: {repeats} repeats count up from it, give at most {largest}"
        require(start is None or not rising[key] or start <= largest, many)
    return [
        with_values(base, {key: start if start is None else start + r * rising[key] for key, start in first.items()})
        for r in range(repeats)
    ]


def can_vary(config: TrainConfig, vary: str) -> bool:
    """Whether repeats of a training can differ so: some draw nothing but weights, some name their validation images."""
    return {"order": config.draws, "split": not config.split.validation_batches}.get(vary, True)


def check_repeats(repeats: int, vary: str, base: TrainConfig | None = None) -> None:
    """Raise ConfigError for less than one repeat or too many, an unknown `vary`, or one that no repeats can obey."""
    is_valid = isinstance(repeats, Integral) and 1 <= repeats <= MOST_REPEATS
    require(is_valid, f"repeats {repeats!r}: must be a whole number from 1 to {MOST_REPEATS}")
    require(vary in VARY, f"--vary {vary!r}: choose one of {', '.join(VARY)}")
    require(repeats > 1 or vary == "all", f"--vary {vary}: a single training varies nothing, give --repeats 2 or more")
    if base and not can_vary(base, vary):
        equal = "without shuffling, augmentation and dropout, all repeats would be equal, omit --no-shuffle"
        whole = f"--validation-batches {listed(base.split.validation_batches)} draws nothing, omit one"
        raise ConfigError(f"--vary {vary}: {equal if vary == 'order' else whole}")


def sigma_sweep(base: TrainConfig, sigmas: Sequence[float], repeats: int, vary: str = "all") -> list[TrainConfig]:
    """Return the configs of every sigma, without and with batch normalisation, with all repeats."""
    require(bool(sigmas), "sigmas: give at least one, for example --sigmas 1e-1 1e-3 1e-4")
    return [
        replace(config, initializer="normal", sigma=sigma, batch_norm=batch_norm)
        for batch_norm in (False, True)
        for sigma in dict.fromkeys(sigmas)
        for config in repeat(base, repeats, vary)
    ]


class Suggestion(NamedTuple):
    """Limits of a cyclical learning rate."""

    eta_min: float
    eta_max: float


def range_test(config: TrainConfig, typed: Sequence[str]) -> TrainConfig:
    """Return the config of a range test with the settings in `typed`. Raises ConfigError for a schedule or cycles."""
    own = "schedule" in typed and config.schedule != "range"
    require(not own, f"--schedule {config.schedule}: --lr-range-test has a schedule of its own, give one of them")
    for name in ("cycles", "step_size", "step_epochs", "eta_decay", "snapshots"):
        option = f"--{name.replace('_', '-')}"
        require(name not in typed, f"{option}: --lr-range-test has no cycles, omit it (--epochs is its length)")
    defaults = {name: value for name, value in RANGE_TEST_DEFAULTS.items() if name not in typed}
    return replace(config, schedule="range", **defaults)


def suggest(etas: Sequence[float], accuracies: Sequence[float], n: int) -> Suggestion | None:
    """Suggest eta_min and eta_max from the validation accuracies on n images at rising learning rates.

    After Smith (2017), on accuracies smoothed by a median of three (at the ends the lower of two): eta_min where they
    first exceed their start by a tenth of their total rise, eta_max where they are highest. None if they rise by no
    more than three standard errors of a difference of two accuracies.
    """
    smooth = [median_low(accuracies[max(0, i - 1) : i + 2]) for i in range(len(accuracies))]
    start, top = (smooth[0], max(smooth)) if smooth else (0.0, 0.0)
    if top - start <= 3 * math.sqrt(2 * binomial_variance(top, n)):
        return None
    begins = next(i for i, value in enumerate(smooth) if value >= start + RISEN * (top - start))
    return Suggestion(etas[begins], etas[smooth.index(top)])
