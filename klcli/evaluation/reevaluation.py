"""Reevaluation: what trained networks give with other statistics of BN, over flips, or averaged with each other."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from klcli.data.augmentation import views
from klcli.data.dataset import Split, Splits
from klcli.engine.network import Network
from klcli.errors import ConfigError
from klcli.evaluation.bn_statistics import with_policy, with_statistics_of
from klcli.evaluation.metrics import Score, log_mean, log_probabilities, score_of
from klcli.settings.evaluation_settings import EvaluationSettings
from klcli.settings.train_config import SAMPLES, TRANSDUCTIVE, TrainConfig


@dataclass(frozen=True)
class TrainedNetwork:
    """A network as its checkpoint has it, with the config that made it."""

    name: str  # in messages: `run 3`
    config: TrainConfig
    network: Network


@dataclass(frozen=True)
class Reevaluation:
    """What one network, or the mean of several, gives."""

    policy: str | None  # of BN, as it was used; None where no network has BN
    samples: int | None  # images that gave the statistics, None where none were drawn
    validation: Score
    test: Score
    seconds: float

    @property
    def transductive(self) -> bool:
        """Whether test images have had a part in their own classification."""
        return any(policy in TRANSDUCTIVE for policy in (self.policy or "").split())


def reevaluate(networks: Sequence[TrainedNetwork], splits: Splits, settings: EvaluationSettings) -> Reevaluation:
    """Evaluate the mean of the probabilities of one or more networks, which were trained on these splits.

    Raises ConfigError where the settings ask of a network what it does not have.
    """
    started = time.perf_counter()
    policies = [policy_of(one.name, one.config, settings) for one in networks]
    prepared = [
        Prepared(one.config, _with_statistics(one, splits, settings), policy == "batch")
        for one, policy in zip(networks, policies, strict=True)
    ]
    validation, test = (
        score(prepared, part, flips=settings.flips, shifts=settings.shifts) for part in (splits.validation, splits.test)
    )
    used = sorted({policy for policy in policies if policy})
    drawn_from = {"precise": splits.train, "adaptive": splits.test}.get(settings.bn_statistics or "")
    samples = min(settings.samples, len(drawn_from)) if settings.samples and drawn_from else None
    return Reevaluation(" ".join(used) or None, samples, validation, test, time.perf_counter() - started)


@dataclass(frozen=True)
class Prepared:
    """A network with the statistics that it is evaluated with; its config says how it sees images."""

    config: TrainConfig
    network: Network
    statistics_of_batch: bool  # those of the images that are evaluated

    def log_probabilities(self, split: Split) -> np.ndarray:
        """Return `log P (n, K)` of the images of a split."""
        dtype, seen = self.config.dtype, split.standardised(self.config.standardise)
        network = with_statistics_of(self.network, seen, dtype) if self.statistics_of_batch else self.network
        return log_probabilities(network, seen, dtype)


def score(networks: Sequence[Prepared], split: Split, *, flips: bool, shifts: int) -> Score:
    """Return the score of the mean probabilities, over the networks and over the views of every image."""
    seen = views(split, flips=flips, shifts=shifts)
    log_P = log_mean([one.log_probabilities(view) for view in seen for one in networks])
    return score_of(log_P, split)


def policy_of(name: str, config: TrainConfig, settings: EvaluationSettings) -> str | None:
    """Return the policy for a network, None without BN. Raises ConfigError where it cannot have what is asked."""
    own, wanted = config.bn_statistics, settings.bn_statistics
    if not config.batch_norm:
        if wanted is not None:
            raise ConfigError(f"--bn-statistics {wanted}: {name} has no batch normalisation, leave it away")
        return None
    if wanted == "ema" and own in SAMPLES:
        raise ConfigError(
            f"--bn-statistics ema: {name} ended with {own} statistics and keeps no running averages, "
            "train with --bn-statistics ema to compare the two"
        )
    return wanted or own


def _with_statistics(one: TrainedNetwork, splits: Splits, settings: EvaluationSettings) -> Network:
    config = one.config
    if not config.batch_norm or settings.bn_statistics is None:
        return one.network
    own_seed = config.shared_seed
    seed = own_seed if settings.seed is None else settings.seed
    seen = splits.standardised(config.standardise)
    return with_policy(one.network, settings.bn_statistics, settings.samples, seen, seed, config.dtype)
