"""The learning-rate range test: derive the limits of eta from one short training with rising eta."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from klcli.settings.setting import require
from klcli.settings.train_config import TrainConfig

DEFAULTS: dict[str, Any] = {"eta_min": 1e-5, "eta_max": 1.0, "epochs": 1, "evaluations_per_cycle": 40}
RISEN = 0.1  # fraction of its total rise above which the accuracy counts as rising


class Suggestion(NamedTuple):
    """Limits of a cyclical learning rate."""

    eta_min: float
    eta_max: float


def range_test(config: TrainConfig, typed: Sequence[str]) -> TrainConfig:
    """Return the config of a range test with the settings in `typed`. Raises ConfigError for a schedule or cycles."""
    own = "schedule" in typed and config.schedule != "range"
    require(not own, f"--schedule {config.schedule}: --lr-range-test has a schedule of its own, give one of them")
    for name in ("cycles", "step_size", "step_epochs"):
        option = f"--{name.replace('_', '-')}"
        require(name not in typed, f"{option}: --lr-range-test has no cycles, give its length with --epochs")
    return replace(config, schedule="range", **{name: DEFAULTS[name] for name in DEFAULTS if name not in typed})


def suggest(etas: Sequence[float], accuracies: Sequence[float], n: int) -> Suggestion | None:
    """Suggest eta_min and eta_max from the validation accuracies on n images at rising learning rates.

    After Smith (2017), on accuracies smoothed by a median of three (at the ends the lower of two): eta_min where they
    first exceed their start by a tenth of their total rise, eta_max where they are highest. None if they rise by no
    more than three standard errors of a difference of two accuracies.
    """
    windows = [sorted(accuracies[max(0, i - 1) : i + 2]) for i in range(len(accuracies))]
    smooth = [window[(len(window) - 1) // 2] for window in windows]
    start, top = (smooth[0], max(smooth)) if smooth else (0.0, 0.0)
    if top - start <= 3 * math.sqrt(2 * top * (1 - top) / n):
        return None
    begins = next(i for i, value in enumerate(smooth) if value >= start + RISEN * (top - start))
    return Suggestion(etas[begins], etas[smooth.index(top)])
