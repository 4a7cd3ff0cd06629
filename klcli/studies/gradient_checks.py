"""Gradient checks of whole networks: the course's set, or one network, on a slice of the images."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from klcli.compiled import open_team
from klcli.data.dataset import Split
from klcli.engine.gradient_check import TensorCheck, check_gradients
from klcli.engine.network import Network, stack
from klcli.errors import ConfigError
from klcli.settings.procedures import CheckSettings
from klcli.settings.setting import MAX_INTEGER, require
from klcli.settings.train_config import TrainConfig
from klcli.training.networks import initialize

NOISE = 0.1  # standard deviation of the noise added to b, gamma and beta, whose initial 0 and 1 hide wrong factors
COURSE_WIDTHS = ((50,), (50, 50), (50, 50, 50))
STACK_LAMBDAS = (0.0, 0.005, 0.1)
Stack = tuple[TrainConfig, ...]  # one config for each replica


@dataclass(frozen=True)
class NetworkCheck:
    """The checked tensors of one network, or of a stack, in the order of its layers."""

    configs: Stack
    tensors: tuple[TensorCheck, ...]
    settings: CheckSettings
    seconds: float

    @property
    def failed(self) -> tuple[TensorCheck, ...]:
        atol, rtol = self.settings.atol or 0.0, self.settings.rtol or 0.0
        return tuple(tensor for tensor in self.tensors if not tensor.passes(atol, rtol))


def course_set(seed: int) -> list[Stack]:
    """Return the networks of the course's reports, without L2 and with it, and one stack."""
    base = TrainConfig(hidden=COURSE_WIDTHS[1], seed=seed, dtype="float64")
    kinds = [replace(base, hidden=widths, batch_norm=bn) for bn in (False, True) for widths in COURSE_WIDTHS]
    kinds += [replace(base, batch_norm=True, bn_position="after")]
    networks = [(replace(kind, lam=lam),) for kind in kinds for lam in (0.0, 0.01)]
    first = replace(base, batch_norm=True, order_seed=seed)
    seeds = [(seed + i) % (MAX_INTEGER + 1) for i in range(len(STACK_LAMBDAS))]
    return [*networks, tuple(replace(first, lam=lam, seed=own) for lam, own in zip(STACK_LAMBDAS, seeds, strict=True))]


def with_and_without_l2(config: TrainConfig) -> list[Stack]:
    """Return one network to check with lambda 0 and with its own lambda."""
    return [(replace(config, dtype="float64", lam=lam),) for lam in sorted({0.0, config.lam})]


def check_network(
    configs: Stack, train: Split, settings: CheckSettings, on_entries: Callable[[int], None] = lambda n: None
) -> NetworkCheck:
    """Check a network, or a stack, on the first training images.

    Raises ConfigError if there are too few of them, or if a gradient is not finite.
    """
    started = time.perf_counter()
    network, lam, X, y = checked_minibatch(configs, train, settings)
    smoothing = configs[0].label_smoothing
    with np.errstate(all="ignore"), open_team(np.float64) as team:  # the gradients of the code that trains
        loss = partial(team.cross_entropy, smoothing=smoothing)
        _, gradients = team.accelerated(network).gradients(X, y, lam, loss=loss)
        tensors = check_gradients(
            network, X, y, lam, h=settings.h, method=settings.method, smoothing=smoothing, on_entries=on_entries,
            atol=settings.atol or 0.0, decimals=settings.decimals, gradients=gradients,
        )  # fmt: skip
    if not all(math.isfinite(tensor.max_absolute) for tensor in tensors):
        raise ConfigError(f"the gradients are not finite, {configs[0].cure_of_divergence}")
    return NetworkCheck(configs, tuple(tensors), settings, time.perf_counter() - started)


def checked_minibatch(
    configs: Stack, train: Split, settings: CheckSettings
) -> tuple[Network, float | np.ndarray, np.ndarray, np.ndarray]:
    """Return the network of a check, its lambda, images and labels. Raises ConfigError if there are too few images.

    A single image with BN, as published, is its own mean, so every gradient before the last bias is 0: only the initial
    values count, without noise. `require_images` refuses such a check to everybody else.
    """
    networks = [initialize(config, d_in=settings.dims) for config in configs]
    if settings.images > 1 or not configs[0].batch_norm:
        require_images(configs[0], len(train), settings.images)
        for config, network in zip(configs, networks, strict=True):
            rng = np.random.Generator(np.random.PCG64(config.seed))
            for name, parameter in network.parameters().items():
                if not name.endswith(".W"):  # beside weights of a large sigma, a small bias would hardly count
                    scale = max(NOISE, config.sigma or 0.0) if name.endswith(".b") else NOISE
                    parameter += scale * rng.standard_normal(parameter.shape)
    X, y = train.standardised(configs[0].standardise).batch(slice(0, settings.images), np.float64)
    X = np.ascontiguousarray(X[:, : settings.dims])
    if len(networks) == 1:  # without an axis of replicas
        return networks[0], configs[0].lam, X, y
    return stack(networks), np.array([config.lam for config in configs]), X, y


def require_images(config: TrainConfig, n: int, images: int) -> None:
    """Raise ConfigError for more than the n training images, or if the check of this network could not fail."""
    given = f"--images {images}"
    require(images <= n, f"{given}: the training split has {n}, give at most that")
    why = "batch normalisation maps a batch of one to beta, every gradient before it is 0 and the check could not fail"
    require(images > 1 or not config.batch_norm, f"{given}: {why}, give --images 2 or more")


def entries(configs: Stack, dims: int) -> int:
    """Return the number of entries that `on_entries` counts for this network."""
    return sum(array.size for array in initialize(configs[0], d_in=dims).parameters().values())
