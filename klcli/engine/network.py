"""Network: named layers in order, their gradients, their state, and stacks of replicas."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from klcli.engine.layers import Activation, Backward, BatchNorm, Dropout, Gradients, Layer, Linear, ReLU, Whitening
from klcli.engine.losses import Loss, cross_entropy, l2_penalty, with_l2

Initializer = Callable[[int, int], np.ndarray]  # (d_in, d_out) -> W
TRAINED = (".W", ".b", ".gamma", ".beta")


@dataclass
class Network:
    """A fully connected network, or a `stack` of m replicas, whose arrays have a leading axis of replicas."""

    layers: dict[str, Layer]  # by name, in order: linear1, batch_norm1, relu1, linear2, ...
    engine: Any = None  # the Team that computes the layers in compiled code, in place of their own methods

    def forward(self, X: np.ndarray, *, track: bool = False) -> tuple[np.ndarray, list[Backward]]:
        """Map `X (n, d)` or `(m, n, d)` to scores `S (..., n, K)` and the backward passes, in layer order."""
        backwards = []
        for layer in self.layers.values():
            X, backward = self.engine.compute(layer, X, track=track) if self.engine else layer.forward(X, track=track)
            backwards.append(backward)
        return X, backwards

    def inputs(self, X: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the input of every layer by name in a training pass, and the scores; running averages stay."""
        inputs = {}
        for name, layer in self.layers.items():
            inputs[name] = X
            X, _ = layer.forward(X)
        return inputs, X

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return the scores in evaluation mode, with running averages."""
        for layer in self.layers.values():
            X = self.engine.evaluate(layer, X) if self.engine else layer.evaluate(X)
        return X

    def gradients(
        self, X: np.ndarray, y: np.ndarray, lam: float | np.ndarray | None, *,
        loss: Loss = cross_entropy, track: bool = False,
    ) -> tuple[np.ndarray, Gradients]:  # fmt: skip
        """Return the loss of the minibatch and dJ/dtheta by name. lam is a number or `(m,)`; `track` is BatchNorm's.

        Without lam, the gradients are those of the loss, as engine and optimizers handle them, perhaps no arrays yet.
        """
        S, backwards = self.forward(X, track=track)
        value, loss_backward = loss(S, y)
        gradients: Gradients = {}
        G: np.ndarray | None = loss_backward()
        for name, backward in zip(reversed(self.layers), reversed(backwards), strict=True):
            if G is None:  # the backward pass ends at the first linear layer: no layer before it is trained
                break
            G, layer_gradients = backward(G)
            gradients |= {f"{name}.{parameter}": gradient for parameter, gradient in layer_gradients.items()}
        if lam is None:
            return value, gradients
        return value, {name: with_l2(name, theta, gradients[name], lam) for name, theta in self.parameters().items()}

    def penalty(self, lam: float | np.ndarray) -> np.ndarray:
        """Return the L2 term of J (a number, or `(m,)`)."""
        return l2_penalty([layer.W for layer in self.layers.values() if isinstance(layer, Linear)], lam)

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the trained arrays by name (`linear1.W`, `batch_norm1.gamma`), not copied."""
        return {name: array for name, array in self.state().items() if name.endswith(TRAINED)}

    def state(self) -> dict[str, np.ndarray]:
        """Return parameters, running averages and the whitening matrix V by name, not copied."""
        return {f"{name}.{key}": array for name, one in self.layers.items() for key, array in _arrays(one).items()}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Copy and cast all arrays but V. Raises KeyError if one is missing, ValueError for a wrong shape."""
        for name, array in self.parameters().items():
            if state[name].shape != array.shape:
                raise ValueError(f"{name} has shape {state[name].shape}, the network needs {array.shape}")
            array[...] = state[name]
        for name, layer in self.layers.items():
            if isinstance(layer, BatchNorm):
                for average in ("running_mean", "running_variance"):
                    saved = state.get(f"{name}.{average}")
                    setattr(layer, average, None if saved is None else saved.astype(layer.gamma.dtype))

    def with_state(self, state: dict[str, np.ndarray]) -> "Network":
        """Return the same layers with the arrays of `state`, not copied. Raises KeyError if one is missing."""
        return self.converted(lambda name, array: state[name])

    def replica(self, index: int) -> "Network":
        """Return one replica of a stack as a network, with views of the stack's arrays."""

        def view(name: str, array: np.ndarray) -> np.ndarray:
            if name.endswith(".V"):
                return array
            return array[index] if name.endswith(".W") else array[index, 0]

        return self.converted(view)

    def copy(self) -> "Network":
        """Return the same network with a copy of every array, in the same memory order."""
        return self.converted(lambda name, array: array.copy(order="K"))

    def converted(self, convert: Callable[[str, np.ndarray], np.ndarray]) -> "Network":
        """Return the same layers with `convert(name, array)` in place of each array."""
        layers = {}
        for name, layer in self.layers.items():
            layers[name] = with_arrays(layer, {k: convert(f"{name}.{k}", array) for k, array in _arrays(layer).items()})
        return replace(self, layers=layers)


def build(
    d_in: int, hidden: Sequence[int], n_classes: int, *,
    initializer: Initializer, activation: Activation = ReLU(),  # noqa: B008  it has no state
    batch_norm: bool = False, bn_position: str = "before", bn_momentum: float = 0.9, bn_eps: float = 1e-8,
    dropout: float = 0.0, dropout_seed: int = 0,
    whitening: np.ndarray | None = None, dtype: np.typing.DTypeLike = np.float32,
) -> Network:  # fmt: skip
    """Return an untrained network `d_in - hidden - n_classes`; `hidden` may be empty.

    With `batch_norm`, every hidden layer is Linear -> BatchNorm -> activation, or with `bn_position="after"` Linear ->
    activation -> BatchNorm, then Dropout if it is above 0. With `whitening (d_in, k)`, the first linear layer has k
    inputs.
    """
    layers: dict[str, Layer] = {}
    if whitening is not None:
        layers["whitening"] = Whitening(whitening.astype(dtype))
        d_in = whitening.shape[1]
    for index, width in enumerate((*hidden, n_classes), start=1):
        W = initializer(d_in, width).astype(dtype)
        layers[f"linear{index}"] = Linear(W, np.zeros(width, dtype), is_first=index == 1)
        if index > len(hidden):
            break
        hidden_layer: dict[str, Layer] = {f"{type(activation).__name__.lower()}{index}": activation}
        if batch_norm:
            normalisation = BatchNorm(np.ones(width, dtype), np.zeros(width, dtype), bn_momentum, bn_eps)
            hidden_layer[f"batch_norm{index}"] = normalisation
        layers |= hidden_layer if bn_position == "after" else dict(reversed(hidden_layer.items()))
        if dropout:
            layers[f"dropout{index}"] = Dropout(dropout, dropout_seed, index)
        d_in = width
    return Network(layers)


def stack(networks: Sequence[Network]) -> Network:
    """Return a stack with copies of networks of one architecture as replicas; they share V."""
    states = [network.state() for network in networks]

    def join(name: str, array: np.ndarray) -> np.ndarray:
        if name.endswith(".V"):
            return array
        arrays = [state[name] if name.endswith(".W") else state[name][None] for state in states]
        return np.ascontiguousarray(np.stack(arrays))

    return networks[0].converted(join)


def with_arrays(layer: Layer, arrays: dict[str, np.ndarray]) -> Layer:
    """Return a copy of the layer with the fields in `arrays` replaced."""
    return replace(cast(Any, layer), **arrays)


def _arrays(layer: Layer) -> dict[str, np.ndarray]:
    """Return the array fields of a layer: parameters first, then running averages."""
    return {name: value for name, value in vars(layer).items() if isinstance(value, np.ndarray)}
