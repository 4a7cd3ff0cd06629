"""The statistics with which batch normalisation evaluates a trained network, by policy.

ema: the running averages of the training. precise: those of training images under the final weights
(Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, arXiv 2105.07576, section 3). adaptive: those of
unlabelled test images (Li et al. 2016, arXiv 1603.04779), each mirrored with probability 1/2. batch: those
of the images that are evaluated themselves. The last two are *transductive*: test images have had a part
in their own classification, which must be said wherever such a number is shown.
"""

from dataclasses import replace

import numpy as np

from klcli.data.augmentation import mirrored
from klcli.data.dataset import Split, Splits
from klcli.engine.layers import BatchNorm
from klcli.engine.network import Network, with_arrays
from klcli.evaluation.metrics import ROWS
from klcli.settings.train_config import TrainConfig

SAMPLE = 7  # spawn key of the generator that draws the images


def with_policy(network: Network, policy: str, samples: int | None, splits: Splits, seed: int, dtype: str) -> Network:
    """Return the network with the statistics of a policy, or itself where the policy does not replace them.

    `network` is one or a group of members; its parameters are shared, not copied. `samples` images are
    drawn without replacement, all of them where there are fewer: a function of `seed`.
    """
    if policy not in ("precise", "adaptive") or samples is None:
        return network
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(SAMPLE,))))
    images = _drawn(splits.train if policy == "precise" else splits.test, samples, rng)
    if policy == "adaptive":
        images = mirrored(images, rng.random(len(images)) < 0.5)
    return with_statistics_of(network, images, dtype)


def with_policy_of(network: Network, config: TrainConfig, splits: Splits) -> Network:
    """Return the network with the statistics that its config asks for; members of a group share the images."""
    seed = config.shared_seed
    samples = config.statistics_samples
    return with_policy(network, config.bn_statistics, samples, splits, seed, config.dtype)


def with_statistics_of(network: Network, images: Split, dtype: str) -> Network:
    """Return the network with mean and biased variance of these images in every batch normalisation.

    Layer by layer: each sees inputs that were normalised with the new statistics of those before it, as
    in one forward of all images in training. One pass per layer over blocks of ROWS images: the memory
    does not grow with their number.
    """
    layers = dict(network.layers)
    names = list(layers)
    for index, name in enumerate(names):
        layer = layers[name]
        if isinstance(layer, BatchNorm):
            before = Network({own: layers[own] for own in names[:index]})
            mean, variance = _moments(before, images, dtype)
            shape, precision = layer.gamma.shape, layer.gamma.dtype
            averages = {"running_mean": mean, "running_variance": variance}
            layers[name] = with_arrays(layer, {k: v.reshape(shape).astype(precision) for k, v in averages.items()})
    return Network(layers)


def _moments(network: Network, images: Split, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and biased variance of what a network makes of the images, `(..., 1, d)`, in float64.

    Blocks are joined by `M2 = M2_a + M2_b + delta^2 n_a n_b / (n_a + n_b)` (Chan, Golub and LeVeque 1983),
    where nothing cancels as it does in mean(x^2) - mean(x)^2.
    """
    n = 0
    mean, squares = np.zeros(1), np.zeros(1)  # squares: M2, the sum of (x - mean)^2
    for start in range(0, len(images), ROWS):
        X, _ = images.batch(slice(start, start + ROWS), dtype)
        Y = network.scores(X)
        k = len(X)
        delta = Y.mean(axis=-2, keepdims=True, dtype=np.float64) - mean
        squares = squares + k * Y.var(axis=-2, keepdims=True, dtype=np.float64) + delta**2 * (n * k / (n + k))
        mean = mean + delta * (k / (n + k))
        n += k
    return mean, squares / n


def _drawn(split: Split, samples: int, rng: np.random.Generator) -> Split:
    """Return so many images of a split, in its order."""
    index = np.sort(rng.choice(len(split), min(samples, len(split)), replace=False))
    return replace(split, rows=split.rows[index], labels=split.labels[index])
