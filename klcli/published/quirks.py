"""Quirks: what the code of a published report does and klcli does not, by the name that tables print.

A quirk is called with the Training before its first update. It works for a stack and for a resumed training, because
it has no memory of its own. Everything else of the training stays as it is, the cost and its L2 term included.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from klcli.data.dataset import Split, standardisation
from klcli.engine.layers import BatchNorm
from klcli.settings.train_config import TrainConfig
from klcli.training.budget import budget_of
from klcli.training.networks import INIT
from klcli.training.trainer import Quirk, Training

HALVED, ANEW, BIASES = "decay of W1 halved", "running averages begin anew in every cycle", "random biases"
OWN_STATISTICS = "each split standardised by its own statistics"


def halve_decay_of_first_layer(training: Training) -> None:
    """The gradient of the L2 term of W1 is `lambda W1`, half of what the cost says: `W1 <- W1 - eta (g + lambda W1)`.

    The update of klcli subtracts `eta 2 lambda W1`; half of it, of the W1 before, is added again.
    """
    compute, W = training.compute, training.stack.parameters()["linear1.W"]
    half = np.empty_like(W)

    def halved(X: np.ndarray) -> np.ndarray:
        np.multiply(W, (training.eta * training.lam).astype(W.dtype)[:, None, None], out=half)
        loss = compute(X)
        np.add(W, half, out=W)
        return loss

    training.compute = halved


def renew_running_averages(training: Training) -> None:
    """The first minibatch of every cycle sets the running averages of BN, as the first one of a training does.

    The update of klcli makes them `alpha old + (1 - alpha) new`, from which the new ones follow.
    """
    compute, cycle = training.compute, 2 * training.budget.step_size
    layers = [layer for layer in training.stack.layers.values() if isinstance(layer, BatchNorm)]

    def renewed(X: np.ndarray) -> np.ndarray:
        if training.step % cycle or any(layer.running_mean is None for layer in layers):
            return compute(X)
        before = [[one.copy() for one in _averages(layer)] for layer in layers]
        loss = compute(X)
        for layer, old in zip(layers, before, strict=True):
            for mean, past in zip(_averages(layer), old, strict=True):
                mean[...] = (mean - layer.momentum * past) / (1 - layer.momentum)
        return loss

    training.compute = renewed


def standardise_each_split_by_itself(training: Training) -> None:
    """Each pixel of the validation and of the test images gets mean 0 and deviation 1 over that split."""
    splits = training.splits
    training.splits = replace(splits, validation=by_itself(splits.validation), test=by_itself(splits.test))


def draw_biases(training: Training) -> None:
    """The biases start from N(0, sigma^2), as the weights do, and not from 0."""
    if not training.is_new:
        return
    biases = [array for name, array in training.stack.parameters().items() if name.endswith(".b")]
    for index, result in enumerate(training.results):
        rng = np.random.default_rng(np.random.SeedSequence(result.config.seed, spawn_key=(INIT, 1)))
        for b in biases:
            b[index] = rng.normal(0, result.config.sigma or 0.0, b[index].shape)


def _averages(layer: BatchNorm) -> list[np.ndarray]:
    return [one for one in (layer.running_mean, layer.running_variance) if one is not None]


def by_itself(split: Split) -> Split:
    """Return the split standardised by its own images: each pixel has mean 0 and deviation 1 over them."""
    mean, inverse_std = standardisation(split.images, split.rows)
    return replace(split, mean=mean, inverse_std=inverse_std)


def impossible(quirks: Iterable[str], configs: Sequence[TrainConfig]) -> Iterator[str]:
    """Yield the reason for each quirk that one of the trainings cannot have, or that has no effect on any of them."""
    conditions = [
        (HALVED, all(one.optimizer == "sgd" and not one.momentum for one in configs), "only for sgd without momentum"),
        (HALVED, any(one.lam for one in configs), "no effect, every lam is 0, omit it (in a variant: quirks = [])"),
        (ANEW, any(one.batch_norm and budget_of(one).cycles > 1 for one in configs),
         "no effect, no training has batch_norm and more than one cycle, omit it (in a variant: quirks = [])"),
        (OWN_STATISTICS, all(one.standardise == "pixel" for one in configs), "only for pixels, not for images"),
        (BIASES, all(one.initializer == "normal" for one in configs),
         "only for normal initial weights, which have a sigma"),
    ]  # fmt: skip
    yield from (f"{quirk}: {words}" for quirk, is_possible, words in conditions if quirk in quirks and not is_possible)


QUIRKS: dict[str, Quirk] = {
    HALVED: halve_decay_of_first_layer,
    ANEW: renew_running_averages,
    OWN_STATISTICS: standardise_each_split_by_itself,
    BIASES: draw_biases,
}
