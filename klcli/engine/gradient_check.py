"""Gradient check: the engine's gradients against numerical ones, in float64: float32 has errors of 1e-3."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from klcli.engine.layers import ReLU
from klcli.engine.losses import cross_entropy, negative_log_likelihood, soft_cross_entropy
from klcli.engine.network import Network, with_arrays

TINY = 1e-12  # minimum of a denominator, so that the relative error of a zero gradient is 0 and not undefined
FLOOR_OF_MAXIMA = 1e-6  # minimum denominator of the ratio of maxima, as published (assignment 3, July 2021)
CHUNK = 500_000  # numbers in the perturbed copies at one time: 4 MB, which a second-level cache still helps

Cost = Callable[[Network], tuple[np.ndarray, list[np.ndarray]]]  # J, and the mask of active units of every ReLU


@dataclass(frozen=True)
class TensorCheck:
    """One tensor: the engine's gradient ga against the numerical gradient gn.

    Errors are maxima over the entries whose difference does not cross the kink of a ReLU, where J has no derivative.
    """

    tensor: str
    entries: int  # of all replicas
    kinks: int  # entries for which a ReLU is active at one end of the difference and inactive at the other
    max_absolute: float  # max |ga - gn|
    relative_to_sum: float  # max of |ga - gn| / (|ga| + |gn|)
    relative_to_maximum: float  # max of |ga - gn| / max(|ga|, |gn|)
    ratio_of_maxima: float  # max |ga - gn| / max(|ga| + |gn|), one ratio for the whole tensor
    gradient_mean: float
    gradient_std: float

    def passes(self, atol: float, rtol: float) -> bool:
        """Whether the absolute or the relative error is small; a tensor whose entries are all kinks does not pass."""
        return self.entries > self.kinks and (self.max_absolute < atol or self.relative_to_sum < rtol)


def check_gradients(
    network: Network,
    X: np.ndarray,
    y: np.ndarray,
    lam: float | np.ndarray,
    *,
    h: float = 1e-5,
    method: str = "centred",
    smoothing: float = 0.0,
    on_entries: Callable[[int], None] = lambda count: None,
) -> list[TensorCheck]:
    """Check every parameter of a float64 network, of one or of m replicas, on the minibatch X, y.

    `method` "centred" is (J(theta + h) - J(theta - h)) / 2h, "forward" (J(theta + h) - J(theta)) / h; `smoothing`
    is the label smoothing. Parameters, running averages and the step of Dropout do not change. `on_entries(count)` is
    called with the number of entries checked since its last call.
    """

    def cost(shifted: Network) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return J with minibatch statistics, and the mask of active units of every ReLU."""
        S, active = X, []
        for layer in shifted.layers.values():
            if isinstance(layer, ReLU):
                active.append(S > 0)
            S, _ = layer.forward(S, training=True)
        loss = negative_log_likelihood(S, y)
        if smoothing:  # a smoothed label is a mixture of the label and the uniform distribution
            K = S.shape[-1]
            every = sum(negative_log_likelihood(S, np.full_like(y, label)) for label in range(K)) / K
            loss = (1 - smoothing) * loss + smoothing * every
        return loss.mean(axis=-1) + shifted.penalty(lam), active

    loss = partial(soft_cross_entropy, smoothing=smoothing) if smoothing else cross_entropy
    _, gradients = network.gradients(X, y, lam, loss=loss)
    ends = (h, -h) if method == "centred" else (h, 0.0)
    return [
        _compare(name, gradient, *_numerical_gradient(network, name, cost, ends, on_entries))
        for name, gradient in gradients.items()
    ]


def _numerical_gradient(
    network: Network, name: str, cost: Cost, ends: tuple[float, float], on_entries: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numerical gradient of one tensor and the mask of entries that cross a kink, both shaped like it.

    Many entries are perturbed at once, each in its own copy of the tensor along a new leading axis; the
    layers broadcast over it as over replicas. Replicas are independent, so an entry is perturbed in all m of them.
    """
    layer_name, field = name.split(".")
    layer, theta = network.layers[layer_name], network.parameters()[name]
    flat = theta.reshape(*theta.shape[:-2], -1)
    numerical, kinks = np.empty_like(flat), np.zeros(flat.shape, dtype=bool)
    at_once = min(max(1, CHUNK // theta.size), flat.shape[-1])
    copies = np.repeat(flat[None], at_once, axis=0)
    shape = theta.shape if theta.ndim > 1 else (1, theta.size)  # a vector gets an axis of one sample, as in a stack
    for start in range(0, flat.shape[-1], at_once):
        entries = np.arange(start, min(start + at_once, flat.shape[-1]))
        own = np.arange(len(entries))  # entry i is perturbed in copy i
        original = np.moveaxis(flat[..., entries], -1, 0)
        found = []
        for shift in ends:
            copies[own, ..., entries] = original + shift
            shifted = with_arrays(layer, {field: copies[: len(entries)].reshape(len(entries), *shape)})
            found.append(cost(Network(network.layers | {layer_name: shifted})))
        copies[own, ..., entries] = original
        (J, active), (other_J, other_active) = found
        numerical[..., entries] = np.moveaxis((J - other_J) / (ends[0] - ends[1]), 0, -1)
        straddles = sum((a != b).any(axis=(-2, -1)) for a, b in zip(active, other_active, strict=True))
        kinks[..., entries] = np.moveaxis(np.broadcast_to(straddles, J.shape), 0, -1)
        on_entries(len(entries))
    return numerical.reshape(theta.shape), kinks.reshape(theta.shape)


def _compare(name: str, ga: np.ndarray, gn: np.ndarray, kinks: np.ndarray) -> TensorCheck:
    difference, a, n = (np.abs(array)[~kinks] for array in (ga - gn, ga, gn))
    scales = a + n, np.maximum(a, n)
    relative = [(difference / np.maximum(scale, TINY)).max(initial=0.0) for scale in scales]
    max_absolute = difference.max(initial=0.0)
    ratio_of_maxima = max_absolute / max(scales[0].max(initial=0.0), FLOOR_OF_MAXIMA)
    numbers = max_absolute, *relative, ratio_of_maxima, ga.mean(), ga.std()
    return TensorCheck(name, ga.size, int(kinks.sum()), *map(float, numbers))
