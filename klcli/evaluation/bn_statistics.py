"""The statistics that batch normalisation uses in the evaluation of a trained network, by policy.

ema: the running averages of the training. precise: statistics of training images under the final weights
(Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, arXiv 2105.07576, section 3). adaptive: statistics of
unlabelled test images (Li et al. 2016, arXiv 1603.04779), each mirrored with probability 1/2. batch: statistics
of the evaluated images themselves. The last two are *transductive*: the prediction of a test image depends
on other test images, so every table and picture with such a number is marked.
"""

from dataclasses import replace

import numpy as np

from klcli.data.augmentation import mirrored
from klcli.data.dataset import Split, Splits, generator
from klcli.engine.layers import BatchNorm
from klcli.engine.network import Network, with_arrays
from klcli.evaluation.metrics import scores
from klcli.settings.train_config import TrainConfig

SAMPLE = 7  # spawn key of the generator that draws the images


def with_policy(
    network: Network, policy: str | None, samples: int | None, splits: Splits, seed: int, dtype: str
) -> Network:
    """Return the network, or stack, with the statistics of a policy, or unchanged if the policy replaces none.

    `samples` images, or all if there are fewer, are drawn without replacement by `seed` alone.
    """
    if policy not in ("precise", "adaptive") or samples is None:
        return network
    rng = generator(seed, SAMPLE)
    images = splits.train if policy == "precise" else splits.test
    drawn = np.sort(rng.choice(len(images), min(samples, len(images)), replace=False))
    images = replace(images, rows=images.rows[drawn], labels=images.labels[drawn])
    if policy == "adaptive":
        images = mirrored(images, rng.random(len(images)) < 0.5)
    return with_statistics_of(network, images, dtype)


def with_policy_of(network: Network, config: TrainConfig, splits: Splits) -> Network:
    """Return the network with the statistics of its config; the replicas of a stack share the images."""
    samples = config.statistics_samples
    return with_policy(network, config.bn_statistics, samples, splits, config.shared_seed, config.dtype)


def for_split(network: Network, split: Split, policy: str | None, dtype: str) -> Network:
    """Return the network for the evaluation of a split: with the statistics of the split if the policy is "batch"."""
    return with_statistics_of(network, split, dtype) if policy == "batch" else network


def with_statistics_of(network: Network, images: Split, dtype: str) -> Network:
    """Return the network with the mean and biased variance of every BN in one training pass of these images."""
    layers = dict(network.layers)
    for index, (name, layer) in enumerate(network.layers.items()):
        if isinstance(layer, BatchNorm):
            before = replace(network, layers=dict(list(layers.items())[:index]))
            gamma = layer.gamma
            moments = [moment.reshape(gamma.shape).astype(gamma.dtype) for moment in _moments(before, images, dtype)]
            layers[name] = with_arrays(layer, dict(zip(("running_mean", "running_variance"), moments, strict=True)))
    return replace(network, layers=layers)


def _moments(network: Network, images: Split, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and biased variance of the outputs of a network on the images, `(..., 1, d)`, in float64.

    `M2 = M2_a + M2_b + delta^2 n_a n_b / (n_a + n_b)` (Chan, Golub, LeVeque 1983) combines blocks without cancellation.
    """
    n = 0
    mean, squares = np.zeros(1), np.zeros(1)  # squares: M2, the sum of (x - mean)^2
    for Y, _ in scores(network, images, dtype):
        k = Y.shape[-2]
        delta = Y.mean(axis=-2, keepdims=True, dtype=np.float64) - mean
        squares = squares + k * Y.var(axis=-2, keepdims=True, dtype=np.float64) + delta**2 * (n * k / (n + k))
        mean = mean + delta * (k / (n + k))
        n += k
    return mean, squares / n
