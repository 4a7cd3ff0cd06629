"""Gradient check: analytic gradients against numerical ones, in float64, because float32 has errors of 1e-3."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from klcli.engine.layers import BatchNorm, ReLU
from klcli.engine.losses import cross_entropy, log_softmax, negative_log_likelihood
from klcli.engine.network import Network, with_arrays

TINY = 1e-12  # minimum of a denominator, so that the relative error of a zero gradient is 0 and not undefined
FLOOR_OF_MAXIMA = 1e-6  # minimum denominator of the ratio of maxima, as published (assignment 3, July 2021)
FLOOR_OF_SUMS = 1e-7  # of the ratio of sums, as published (assignment 3, May 2022)
DECIMALS = 6  # numpy.testing.assert_array_almost_equal compares that many, if not told otherwise
MOST_DECIMALS, FEWEST_DECIMALS = 16, -308  # those of a float64 near 1; 10^308 is the largest power of ten
ROUNDINGS = 100  # an error below that many roundings of the largest gradient of the network counts as 0
COMPLEX_STEP = 1e-30  # h: the truncation error is of the order h^2, far below a rounding error
CHUNK = 500_000  # numbers in perturbed copies, or their activations, at a time: 4 MB, partly in a second-level cache

Cost = Callable[[Network], tuple[np.ndarray, list[np.ndarray]]]  # J, and the mask of active units of every ReLU


@dataclass(frozen=True)
class TensorCheck:
    """One tensor: the analytic gradient ga against the numerical gradient gn.

    Errors are measured over the entries whose difference does not cross the kink of a ReLU, where J has no derivative;
    mean and deviation of ga and gn over all entries. Deviations are those of the population, as `numpy.std`. Means,
    deviations and the signed maximum are those of the bonus listing of assignment 3 of May 2022.
    """

    tensor: str
    entries: int  # of all replicas
    kinks: int  # entries for which a ReLU is active at one end of the difference and inactive at the other
    max_absolute: float  # max |ga - gn|
    relative_to_sum: float  # max of |ga - gn| / (|ga| + |gn|)
    relative_to_maximum: float  # max of |ga - gn| / max(|ga|, |gn|)
    ratio_of_maxima: float  # max |ga - gn| / max(|ga| + |gn|), one ratio for the whole tensor
    gradient_mean: float  # of ga
    gradient_std: float
    equal_decimals: int  # to which all entries agree, as `numpy.testing.assert_almost_equal` (assignment 2, 2019)
    mismatches: float  # share of the entries with |ga - gn| >= 1.5 * 10^-decimals, `decimals` as given to the check
    ratio_of_sums: float  # sum |ga - gn| / max(1e-7, sum |ga + gn|) (assignment 3, May 2022)
    numerical_mean: float  # of gn
    numerical_std: float
    difference_mean: float  # of ga - gn
    difference_std: float
    difference_max: float  # the largest ga - gn with its sign: below 0 if every ga is below gn
    complex_step: float | None = None  # error by the complex step, None if the differences decide; not stored

    def passes(self, atol: float, rtol: float) -> bool:
        """Whether the gradient is right; a tensor whose entries are all at kinks does not pass.

        It is right if every entry has a relative error below `rtol`, or if max |ga - gn| is below `atol` and below
        `atol` times the largest entry. A difference quotient can miss both limits although the gradient is right: its
        rounding error, about `1e-16 J / h`, hides a smaller gradient, and dropout makes its truncation error large, h^2
        times the third derivative. Then the complex step decides: its error must be below `atol`.
        """
        if self.complex_step is not None and self.complex_step < atol:
            return True
        by_size = self.complex_step is None and max(self.max_absolute, self.ratio_of_maxima) < atol
        return self.entries > self.kinks and (self.relative_to_sum < rtol or by_size)


def check_gradients(
    network: Network, X: np.ndarray, y: np.ndarray, lam: float | np.ndarray, *,
    h: float = 1e-5, method: str = "centred", smoothing: float = 0.0, atol: float = 1e-8,
    decimals: int = DECIMALS, gradients: Mapping[str, np.ndarray] | None = None,
    on_entries: Callable[[int], None] = lambda count: None,
) -> list[TensorCheck]:  # fmt: skip
    """Check every parameter of a float64 network, of one or of m replicas, on the minibatch X, y.

    `method` "centred" is (J(theta + h) - J(theta - h)) / 2h, "forward" (J(theta + h) - J(theta)) / h; `smoothing`
    is the label smoothing; `decimals` are those of `mismatches`. A tensor whose max |ga - gn| is not below `atol` and
    `atol` times its largest entry is also checked by the complex step gc = Im J(theta + ih) / h with a tiny h (Squire
    and Trapp 1998), which subtracts nothing: it has neither rounding nor truncation error. Its error is
    max |ga - gc| / 2 max |g|, with the largest gradient of all tensors of the layer, because a bias before batch
    normalisation has a gradient of 0.

    The analytic `gradients` are those of other code, or, without them, of `network`, as the numerical ones always are.
    Parameters, running averages and the step of Dropout do not change. `on_entries(count)` is called with the number of
    entries checked since its last call.
    """

    def cost(shifted: Network) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return J with minibatch statistics, and the mask of active units of every ReLU."""
        inputs, S = shifted.inputs(X)
        active = [S > 0 for name, S in inputs.items() if isinstance(shifted.layers[name], ReLU)]
        loss = negative_log_likelihood(S, y)
        if smoothing:  # a smoothed label is a mixture of the label and the uniform distribution
            loss = (1 - smoothing) * loss - smoothing * log_softmax(S).mean(axis=-1)
        return loss.mean(axis=-1) + shifted.penalty(lam), active

    if gradients is None:
        _, gradients = network.gradients(X, y, lam, loss=partial(cross_entropy, smoothing=smoothing))
    ends = (h, -h) if method == "centred" else (h, 0.0)
    inputs, _ = network.inputs(X)
    activations = sum(S.size for S in inputs.values()) - X.size  # in every perturbed copy
    at_a_kink = any((S == 0).any() for name, S in inputs.items() if isinstance(network.layers[name], ReLU))
    checks = []
    for name, ga in gradients.items():
        check = compare(name, ga, *_numerical_gradient(network, name, cost, ends, activations, on_entries), decimals)
        # Not by the ratio of maxima, whose floor would hide a small gradient.
        is_far = check.max_absolute >= atol * min(1.0, 2 * np.abs(ga).max(initial=0.0))
        if is_far or (check.kinks == check.entries and not at_a_kink):
            gc, _ = _numerical_gradient(network, name, cost, (1j * COMPLEX_STEP, 0.0), activations, lambda count: None)
            check = replace(check, complex_step=_error_of_complex_step(name, gradients, gc, network, inputs))
        checks.append(check)
    return checks


def _error_of_complex_step(
    name: str, gradients: Mapping[str, np.ndarray], gc: np.ndarray, network: Network, inputs: dict[str, np.ndarray]
) -> float:
    """Return the error relative to twice the largest gradient of the layer; 0 for a difference that is rounding."""
    layer = name.partition(".")[0]
    largest = {one: float(np.abs(ga).max(initial=0.0)) for one, ga in gradients.items()}
    scale = max(np.abs(gc).max(initial=0.0), *(size for one, size in largest.items() if one.startswith(f"{layer}.")))
    gain, after = 1.0, layer.replace("linear", "batch_norm")
    norm = network.layers.get(after)
    if after != layer and isinstance(norm, BatchNorm):  # which cancels nearly all of it, and enlarges its rounding
        gain = max(gain, float((1 / np.sqrt(inputs[after].var(axis=-2) + norm.eps)).max()))
    rounding = ROUNDINGS * np.finfo(np.float64).eps * max(largest.values()) * gain
    difference = np.abs(gradients[name] - gc).max(initial=0.0)
    return float(difference / (2 * scale)) if difference > rounding else 0.0


def _numerical_gradient(
    network: Network, name: str, cost: Cost, ends: tuple[complex, float], activations: int,
    on_entries: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the numerical gradient of one tensor and the mask of entries that cross a kink, both shaped like it.

    `ends` are the shifts of both ends of the difference, for the complex step an imaginary one and 0; `activations` the
    numbers that a pass through the network computes.

    Many entries are perturbed at once, each in its own copy of the tensor along a new leading axis; the
    layers broadcast over it as over replicas. Replicas are independent, so an entry is perturbed in all m of them.
    """
    layer_name, field = name.split(".")
    layer, theta = network.layers[layer_name], network.parameters()[name]
    flat = theta.reshape(*theta.shape[:-2], -1)
    numerical, kinks = np.empty_like(flat), np.zeros(flat.shape, dtype=bool)
    at_once = min(max(1, CHUNK // max(theta.size, activations)), flat.shape[-1])
    copies = np.repeat(flat[None], at_once, axis=0).astype(np.result_type(flat, *ends))
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
        numerical[..., entries] = np.moveaxis(((J - other_J) / (ends[0] - ends[1])).real, 0, -1)
        straddles = sum((a != b).any(axis=(-2, -1)) for a, b in zip(active, other_active, strict=True))
        kinks[..., entries] = np.moveaxis(np.broadcast_to(straddles, J.shape), 0, -1)
        on_entries(len(entries))
    return numerical.reshape(theta.shape), kinks.reshape(theta.shape)


def compare(
    name: str, ga: np.ndarray, gn: np.ndarray, kinks: np.ndarray, decimals: int = DECIMALS, *,
    floor: float = FLOOR_OF_MAXIMA,
) -> TensorCheck:  # fmt: skip
    """Return the errors of a tensor ga against gn, over the entries that are not in the mask `kinks`."""
    a, n = (np.zeros(1) if kinks.all() else g[~kinks] for g in (ga, gn))  # without an entry, all errors are 0
    difference, larger = a - n, np.maximum(np.abs(a), np.abs(n))
    size, total, tiny = np.abs(difference), np.abs(a) + np.abs(n), min(TINY, floor)
    return TensorCheck(
        tensor=name, entries=ga.size, kinks=int(kinks.sum()), max_absolute=float(size.max()),
        relative_to_sum=float((size / np.maximum(total, tiny)).max()),
        relative_to_maximum=float((size / np.maximum(larger, tiny)).max()),
        ratio_of_maxima=float(size.max() / max(total.max(), floor)),
        gradient_mean=float(ga.mean()), gradient_std=float(ga.std()), equal_decimals=equal_decimals(size.max()),
        mismatches=float(1 - (size < 1.5 * 10.0**-decimals).mean()),
        ratio_of_sums=float(size.sum() / max(np.abs(a + n).sum(), FLOOR_OF_SUMS)),
        numerical_mean=float(gn.mean()), numerical_std=float(gn.std()), difference_mean=float(difference.mean()),
        difference_std=float(difference.std()), difference_max=float(difference.max()),
    )  # fmt: skip


def equal_decimals(difference: float) -> int:
    """Return the largest d, of at most MOST_DECIMALS, for which a difference is below `1.5 * 10^-d`."""
    every = range(MOST_DECIMALS, FEWEST_DECIMALS - 1, -1)
    return next((d for d in every if difference < 1.5 * 10.0**-d), FEWEST_DECIMALS)
