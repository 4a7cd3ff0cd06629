"""Construct networks from a config: untrained, or from a checkpoint."""

from functools import partial
from itertools import pairwise

import numpy as np

from klcli.data.dataset import CLASSES, PIXELS, generator
from klcli.engine import initializers
from klcli.engine.layers import Activation, ReLU, SiLU
from klcli.engine.network import Network, build
from klcli.settings.train_config import TrainConfig

INIT = 0  # spawn key of the generator that draws the weights
WHITENING = "whitening.V"  # in a checkpoint


def initialize(config: TrainConfig, d_in: int = PIXELS, whitening: np.ndarray | None = None) -> Network:
    """Return the untrained network of `config` on `d_in` pixels, or on whitened components; a pure function."""
    activation: Activation = SiLU(config.silu_slope) if config.activation == "silu" else ReLU()
    rng = generator(config.seed, INIT)
    draw = {
        "he": partial(initializers.he, second_moment=activation.second_moment, rng=rng),
        "xavier": partial(initializers.xavier, rng=rng),
        "normal": partial(initializers.normal, sigma=config.sigma or 0.0, rng=rng),
    }[config.initializer]
    return build(
        d_in, config.hidden, CLASSES, initializer=draw, activation=activation,
        batch_norm=config.batch_norm, bn_position=config.bn_position, bn_momentum=config.bn_momentum,
        bn_eps=config.bn_eps, dropout=config.dropout, dropout_seed=config.shared_seed,
        whitening=whitening, dtype=config.dtype,
    )  # fmt: skip


def network_shapes(config: TrainConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays in `Network.state` of a config, by name, without constructing the network."""
    components = config.whitening
    shapes: dict[str, tuple[int, ...]] = {} if components is None else {WHITENING: (PIXELS, components)}
    for number, (d_in, d_out) in enumerate(pairwise([components or PIXELS, *config.hidden, CLASSES]), start=1):
        shapes |= {f"linear{number}.W": (d_in, d_out), f"linear{number}.b": (d_out,)}
        if config.batch_norm and number <= len(config.hidden):
            names = ("gamma", "beta", "running_mean", "running_variance")
            shapes |= {f"batch_norm{number}.{name}": (d_out,) for name in names}
    return shapes


def restore(config: TrainConfig, state: dict[str, np.ndarray]) -> Network:
    """Return the network in a checkpoint of this config. Raises KeyError or ValueError for another network."""
    network = initialize(config, whitening=state.get(WHITENING))
    network.load_state(state)
    return network
