"""Network: named layers in order, their gradients, their state, and stacks of replicas."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np

from klcli.engine.layers import Backward, BatchNorm, Dropout, Gradients, Layer, Linear, ReLU, Whitening
from klcli.engine.losses import Loss, cross_entropy, l2_penalty
from klcli.engine.weight_gradient import WeightGradient, in_fortran_order

Initializer = Callable[[int, int], np.ndarray]  # (d_in, d_out) -> W


@dataclass
class Network:
    """A k-layer fully connected network; k counts the linear layers.

    With a leading axis of m replicas on every array, it is a stack of m networks of one architecture, made
    by `stack`; `replica` returns one of them.
    """

    layers: dict[str, Layer]  # by name, in order: linear1, batch_norm1, relu1, linear2, ...

    def forward(self, X: np.ndarray, *, training: bool, track: bool = False) -> tuple[np.ndarray, list[Backward]]:
        """Map `X (n, d)` or `(m, n, d)` to scores `S (..., n, K)`; the backward passes are in layer order."""
        backwards = []
        for layer in self.layers.values():
            X, backward = layer.forward(X, training=training, track=track)
            backwards.append(backward)
        return X, backwards

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return the scores in evaluation, with running averages and without backward passes."""
        for layer in self.layers.values():
            X, _ = layer.forward(X, training=False)
        return X

    def gradients(
        self, X: np.ndarray, y: np.ndarray, lam: float | np.ndarray, *, loss: Loss = cross_entropy, track: bool = False
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the loss of the minibatch and dJ/dtheta of every parameter, by name.

        lam is a number or `(m,)`. `track=True` updates the running averages, as a training update does.
        """
        value, factors = self.factored_gradients(X, y, lam, loss=loss, track=track)
        return value, {name: np.asarray(factors[name]) for name in self.parameters()}

    def factored_gradients(
        self, X: np.ndarray, y: np.ndarray, lam: float | np.ndarray, *, loss: Loss = cross_entropy, track: bool = False
    ) -> tuple[np.ndarray, Gradients]:
        """Return the same with every dJ/dW as a WeightGradient, from which an update is cheaper."""
        S, backwards = self.forward(X, training=True, track=track)
        value, loss_backward = loss(S, y)
        gradients: Gradients = {}
        G: np.ndarray | None = loss_backward()
        for name, backward in zip(reversed(self.layers), reversed(backwards), strict=True):
            if G is None:  # the first linear layer ends the backward pass: nothing before it is trained
                break
            G, layer_gradients = backward(G)
            for parameter, gradient in layer_gradients.items():
                if isinstance(gradient, WeightGradient):
                    gradient.lam = lam
                gradients[f"{name}.{parameter}"] = gradient
        return value, gradients

    def weights(self) -> list[np.ndarray]:
        """Return the W of every linear layer and the V of a whitening, not copied."""
        return [layer.V if isinstance(layer, Whitening) else layer.W for layer in self._with_weights()]

    def move_weights(self, empty: Callable[[tuple[int, ...], np.dtype], np.ndarray]) -> None:
        """Move the weights into arrays that `empty(shape, dtype)` returns, each in Fortran order."""
        for layer in self._with_weights():
            name = "V" if isinstance(layer, Whitening) else "W"
            old = getattr(layer, name).mT
            new = empty(old.shape, old.dtype)
            new[...] = old
            setattr(layer, name, new.mT)

    def _with_weights(self) -> list[Linear | Whitening]:
        return [layer for layer in self.layers.values() if isinstance(layer, Linear | Whitening)]

    def penalty(self, lam: float | np.ndarray) -> np.ndarray:
        """Return the L2 term of J (a number, or `(m,)`)."""
        return l2_penalty([layer.W for layer in self.layers.values() if isinstance(layer, Linear)], lam)

    def parameters(self) -> dict[str, np.ndarray]:
        """Return every trained array by name (`linear1.W`, `batch_norm1.gamma`), not copied."""
        return {
            f"{name}.{parameter}": array
            for name, layer in self.layers.items()
            for parameter, array in layer.parameters().items()
        }

    def state(self) -> dict[str, np.ndarray]:
        """Return parameters, running averages and the V of a whitening by name, not copied."""
        return {
            f"{name}.{field}": array for name, layer in self.layers.items() for field, array in _arrays(layer).items()
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Copy the arrays of `state`, cast to this network's precision.

        Raises KeyError for a missing parameter and ValueError for a wrong shape.
        """
        for name, layer in self.layers.items():
            for parameter, array in layer.parameters().items():
                value = state[f"{name}.{parameter}"]
                if value.shape != array.shape:
                    raise ValueError(f"{name}.{parameter} has shape {value.shape}, the network needs {array.shape}")
                array[...] = value
            if isinstance(layer, Whitening):
                layer.V = state[f"{name}.V"].astype(layer.V.dtype)
            if isinstance(layer, BatchNorm):
                for average in ("running_mean", "running_variance"):
                    saved = state.get(f"{name}.{average}")
                    setattr(layer, average, None if saved is None else saved.astype(layer.gamma.dtype))

    def with_state(self, state: dict[str, np.ndarray]) -> "Network":
        """Return the same layers with the arrays of `state`, not copied. Raises KeyError where one is missing."""
        return Network(
            {
                name: with_arrays(layer, {field: state[f"{name}.{field}"] for field in _arrays(layer)})
                for name, layer in self.layers.items()
            }
        )

    def replica(self, index: int) -> "Network":
        """Return one replica of a stack as a network whose arrays are views of the stack's."""
        return Network(
            {
                name: layer
                if isinstance(layer, Whitening)
                else with_arrays(
                    layer,
                    {
                        field: array[index] if field == "W" else array[index, 0]
                        for field, array in _arrays(layer).items()
                    },
                )
                for name, layer in self.layers.items()
            }
        )


def build(
    d_in: int,
    hidden: Sequence[int],
    n_classes: int,
    *,
    initializer: Initializer,
    batch_norm: bool = False,
    bn_position: str = "before",
    bn_momentum: float = 0.9,
    bn_eps: float = 1e-8,
    dropout: float = 0.0,
    dropout_seed: int = 0,
    whitening: np.ndarray | None = None,
    dtype: np.typing.DTypeLike = np.float32,
) -> Network:
    """Return an untrained network `d_in - hidden - n_classes`; `hidden` may be empty.

    With `batch_norm`, every hidden layer is Linear -> BatchNorm -> ReLU, or with
    `bn_position="after"` Linear -> ReLU -> BatchNorm. With `dropout` above 0, Dropout comes last. The
    output layer is linear. With `whitening (d_in, k)`, the first linear layer has k inputs.
    """
    layers: dict[str, Layer] = {}
    if whitening is not None:
        layers["whitening"] = Whitening(whitening.astype(dtype))
        d_in = whitening.shape[1]
    for index, width in enumerate(hidden, start=1):
        layers[f"linear{index}"] = _linear(d_in, width, initializer, dtype, is_first=index == 1)
        activation: dict[str, Layer] = {f"relu{index}": ReLU()}
        if batch_norm:
            gamma, beta = np.ones(width, dtype), np.zeros(width, dtype)
            normalisation: dict[str, Layer] = {
                f"batch_norm{index}": BatchNorm(gamma, beta, momentum=bn_momentum, eps=bn_eps)
            }
            activation = normalisation | activation if bn_position == "before" else activation | normalisation
        layers |= activation
        if dropout:
            layers[f"dropout{index}"] = Dropout(dropout, dropout_seed, index)
        d_in = width
    layers[f"linear{len(hidden) + 1}"] = _linear(d_in, n_classes, initializer, dtype, is_first=not hidden)
    return Network(layers)


def _linear(d_in: int, d_out: int, initializer: Initializer, dtype: np.typing.DTypeLike, *, is_first: bool) -> Linear:
    return Linear(in_fortran_order(initializer(d_in, d_out).astype(dtype)), np.zeros(d_out, dtype), is_first=is_first)


def stack(networks: Sequence[Network]) -> Network:
    """Return a network whose replicas are copies of networks of one architecture."""
    stacked: dict[str, Layer] = {}
    for name, layer in networks[0].layers.items():
        if isinstance(layer, Whitening):
            stacked[name] = layer
            continue
        arrays = [_arrays(network.layers[name]) for network in networks]
        stacked[name] = with_arrays(
            layer,
            {
                field: in_fortran_order(np.stack([replica[field] for replica in arrays]))
                if field == "W"
                else np.stack([replica[field][None] for replica in arrays])
                for field in arrays[0]
            },
        )
    return Network(stacked)


def with_arrays(layer: Layer, arrays: dict[str, np.ndarray]) -> Layer:
    """Return a copy of the layer with the fields in `arrays` replaced."""
    return replace(cast(Any, layer), **arrays)


def _arrays(layer: Layer) -> dict[str, np.ndarray]:
    """Return the array fields of a layer: parameters first, then running averages."""
    values = {field.name: getattr(layer, field.name) for field in fields(layer)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
