"""Reevaluation: evaluate trained networks with other BN statistics, over flips and shifts, or as an ensemble."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from klcli.data.augmentation import views
from klcli.data.dataset import Split, Splits
from klcli.engine.network import Network
from klcli.errors import ConfigError, Diverged
from klcli.evaluation.bn_statistics import for_split, with_policy
from klcli.evaluation.metrics import Score, log_mean, log_probabilities, score_of
from klcli.settings.procedures import EvaluationSettings
from klcli.settings.train_config import SAMPLES, TRANSDUCTIVE, TrainConfig, check_statistics


@dataclass(frozen=True)
class TrainedNetwork:
    """The network in a checkpoint, with its config."""

    name: str  # in messages: `run 3`
    config: TrainConfig
    network: Network


@dataclass(frozen=True)
class Reevaluation:
    """The scores of one network, or of the mean of several."""

    policy: str | None  # the BN policy that was used; None if no network has BN
    samples: int | None  # number of images that were drawn for the statistics, None if none were
    validation: Score
    test: Score
    seconds: float

    @property
    def transductive(self) -> bool:
        """Whether the prediction of a test image depends on other test images."""
        return any(policy in TRANSDUCTIVE for policy in (self.policy or "").split())


def reevaluate(networks: Sequence[TrainedNetwork], splits: Splits, settings: EvaluationSettings) -> Reevaluation:
    """Evaluate the mean probabilities over networks that were trained on these splits, and over views of the images.

    Raises ConfigError if a setting does not apply to a network, Diverged if the loss is not finite.
    """
    started = time.perf_counter()
    policies = [policy_of(one.name, one.config, settings) for one in networks]
    check_statistics(settings.bn_statistics if any(policies) else None, len(splits.validation), len(splits.test))
    prepared = []
    for one in networks:
        seed = one.config.shared_seed if settings.seed is None else settings.seed
        seen, wanted = splits.standardised(one.config.standardise), settings.bn_statistics
        prepared.append(with_policy(one.network, wanted, settings.samples, seen, seed, one.config.dtype))

    def score(part: Split) -> Score:
        log_P = []
        for view in views(part, flips=settings.flips, shifts=settings.shifts):
            for one, network, policy in zip(networks, prepared, policies, strict=True):
                images, dtype = view.standardised(one.config.standardise), one.config.dtype
                log_P.append(log_probabilities(for_split(network, images, policy, dtype), images, dtype))
        return score_of(log_mean(log_P), part)

    validation, test = score(splits.validation), score(splits.test)
    if not math.isfinite(validation.loss + test.loss):
        names = ", ".join(one.name for one in networks)
        raise Diverged(f"{names}: the loss is not finite, this evaluation is not stored")
    used = sorted({policy for policy in policies if policy})
    drawn_from = {"precise": splits.train, "adaptive": splits.test}.get(settings.bn_statistics or "")
    samples = min(settings.samples, len(drawn_from)) if settings.samples and drawn_from else None
    return Reevaluation(" ".join(used) or None, samples, validation, test, time.perf_counter() - started)


def policy_of(name: str, config: TrainConfig, settings: EvaluationSettings) -> str | None:
    """Return the BN policy for a network, None without BN. Raises ConfigError if the network does not support it."""
    own, wanted = config.bn_statistics, settings.bn_statistics
    if not config.batch_norm:
        return None
    if wanted == "ema" and own in SAMPLES:
        without = f"{name} ended with {own} statistics and has no running averages"
        raise ConfigError(f"--bn-statistics ema: {without}, train with --bn-statistics ema to compare the two")
    return wanted or own
