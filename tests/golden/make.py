"""Reference values from PyTorch: `python -m tests.golden.make` writes one .npz for each entry of `all_arrays`.

Nothing of klcli is imported. Parameters carry klcli's names and shapes (`linear1.W` is (d_in, d_out)), all numbers are
float64. tests/engine/test_golden.py compares klcli with the files, and the files with what PyTorch computes today.
"""

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

FOLDER = Path(__file__).parent
D_IN, CLASSES, SAMPLES, BATCHES, UPDATES = 13, 4, 11, 5, 50
EPS, ALPHA = 1e-8, 0.9  # of batch normalisation: in the root, and the weight of the past in the running averages
MOMENTUM = 0.9
ETAS = {"sgd": 0.01, "nesterov": 0.001, "adam": 1e-3}  # larger ones let 9 layers with BN amplify rounding


@dataclass(frozen=True)
class Case:
    """A network and the cost that it is trained on."""

    hidden: tuple[int, ...]
    lam: float = 0.01  # of the L2 term, lam * sum W^2
    bn_position: str | None = None  # "before" or "after" the ReLU; None for no batch normalisation
    smoothing: float = 0.0  # of the labels
    weight_decay: float = 0.0  # decoupled, of W alone


CASES = {
    "1_layer": Case(()),
    "1_layer_smoothing_decay": Case((), smoothing=0.1, weight_decay=0.3),
    "3_layers": Case((7, 5), weight_decay=0.3),
    "3_layers_bn_before": Case((7, 5), bn_position="before", smoothing=0.1),
    "3_layers_bn_after": Case((7, 5), lam=0.03, bn_position="after", weight_decay=0.1),
    "9_layers": Case((9, 8, 7, 6, 7, 5, 6, 5), lam=0.001),
    "9_layers_bn_before": Case((9, 8, 7, 6, 7, 5, 6, 5), lam=0.005, bn_position="before", weight_decay=0.2),
    "9_layers_bn_after": Case((9, 8, 7, 6, 7, 5, 6, 5), lam=0.005, bn_position="after", smoothing=0.05),
}


class Model:
    """The network of a case: its parameters, its running averages and its forward pass."""

    def __init__(self, case: Case, initial: dict[str, np.ndarray]) -> None:
        self.case = case
        self.parameters = {name: torch.tensor(array, requires_grad=True) for name, array in initial.items()}
        self.averages: dict[str, Tensor] = {}

    def weights(self) -> list[Tensor]:
        return [value for name, value in self.parameters.items() if name.endswith(".W")]

    def others(self) -> list[Tensor]:
        return [value for name, value in self.parameters.items() if not name.endswith(".W")]

    def scores(self, X: Tensor, *, training: bool, track: bool = False) -> Tensor:
        depth = len(self.case.hidden)
        for k in range(1, depth + 2):
            X = functional.linear(X, self.parameters[f"linear{k}.W"].T, self.parameters[f"linear{k}.b"])
            if k > depth:
                continue
            if self.case.bn_position == "before":
                X = self._normalised(X, f"batch_norm{k}", training, track)
            X = functional.relu(X)
            if self.case.bn_position == "after":
                X = self._normalised(X, f"batch_norm{k}", training, track)
        return X

    def _normalised(self, X: Tensor, name: str, training: bool, track: bool) -> Tensor:
        if track:
            with torch.no_grad():
                now = {"running_mean": X.mean(0), "running_variance": X.var(0, unbiased=False)}
                for kind, value in now.items():
                    past = self.averages.get(f"{name}.{kind}", value)  # the first minibatch seeds the average
                    self.averages[f"{name}.{kind}"] = ALPHA * past + (1 - ALPHA) * value
        mean = None if training else self.averages[f"{name}.running_mean"]
        variance = None if training else self.averages[f"{name}.running_variance"]
        gamma, beta = self.parameters[f"{name}.gamma"], self.parameters[f"{name}.beta"]
        return functional.batch_norm(X, mean, variance, gamma, beta, training=training, eps=EPS)

    def loss_and_cost(self, S: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        loss = functional.cross_entropy(S, y, label_smoothing=self.case.smoothing)
        return loss, loss + self.case.lam * sum((W**2).sum() for W in self.weights())

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        tensors = self.parameters | self.averages
        return {f"{prefix}.{name}": tensor.detach().numpy().copy() for name, tensor in tensors.items()}


def initial_parameters(case: Case, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random values for every parameter, so that no gradient is 0 by symmetry."""
    initial = {}
    widths = (D_IN, *case.hidden, CLASSES)
    for k, (d_in, d_out) in enumerate(pairwise(widths), start=1):
        initial[f"linear{k}.W"] = rng.standard_normal((d_in, d_out)) * np.sqrt(2 / d_in)
        initial[f"linear{k}.b"] = 0.1 * rng.standard_normal(d_out)
        if case.bn_position and k <= len(case.hidden):
            initial[f"batch_norm{k}.gamma"] = rng.uniform(0.7, 1.3, d_out)
            initial[f"batch_norm{k}.beta"] = 0.1 * rng.standard_normal(d_out)
    return initial


def updated(model: Model, kind: str, X: Tensor, y: Tensor) -> list[float]:
    """Make UPDATES updates on the minibatches in turn, and return the loss of each before its update."""
    eta, decay = ETAS[kind], model.case.weight_decay
    optimizer: torch.optim.Optimizer
    if kind == "adam":
        groups = [{"params": model.weights(), "weight_decay": decay}, {"params": model.others(), "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=eta, betas=(0.9, 0.999), eps=1e-8)
    else:
        momentum = {"momentum": MOMENTUM, "nesterov": True} if kind == "nesterov" else {}
        optimizer = torch.optim.SGD(model.parameters.values(), lr=eta, **momentum)
    losses = []
    for update in range(UPDATES):
        optimizer.zero_grad()
        batch = update % BATCHES
        loss, cost = model.loss_and_cost(model.scores(X[batch], training=True, track=True), y[batch])
        cost.backward()
        if kind != "adam":  # PyTorch's SGD has no decoupled decay
            with torch.no_grad():
                for W in model.weights():
                    W *= 1 - eta * decay
        optimizer.step()
        losses.append(loss.item())
    return losses


def network_arrays(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Inputs, initial parameters and expected values of one case.

    `scores` (n, classes), `loss`, `cost` and `gradient.*` are of the initial network on the first minibatch in
    training. For each optimizer, `sgd.losses` (updates,), `sgd.linear1.W` and so on after the last update, running
    averages included, and `sgd.scores`, of the first minibatch in evaluation.
    """
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((BATCHES, SAMPLES, D_IN)), rng.integers(0, CLASSES, (BATCHES, SAMPLES))
    initial = initial_parameters(case, rng)
    arrays = {"settings": np.array(json.dumps(asdict(case) | {"etas": ETAS})), "X": X, "y": y}
    arrays |= {f"initial.{name}": array for name, array in initial.items()}
    X_torch, y_torch = torch.tensor(X), torch.tensor(y)

    model = Model(case, initial)
    S = model.scores(X_torch[0], training=True)
    loss, cost = model.loss_and_cost(S, y_torch[0])
    cost.backward()
    arrays |= {"scores": S.detach().numpy(), "loss": np.array(loss.item()), "cost": np.array(cost.item())}
    arrays |= {f"gradient.{name}": value.grad.numpy() for name, value in model.parameters.items()}

    for kind in ETAS:
        model = Model(case, initial)
        arrays[f"{kind}.losses"] = np.array(updated(model, kind, X_torch, y_torch))
        arrays |= model.arrays(kind)
        arrays[f"{kind}.scores"] = model.scores(X_torch[0], training=False).detach().numpy()
    return arrays


def formula_arrays() -> dict[str, np.ndarray]:
    """Scores S (7, 10), labels, the loss and dJ/dS without and with label smoothing; a cosine with warm restarts."""
    rng = np.random.default_rng(2)
    S, y = 5 * rng.standard_normal((7, 10)), rng.integers(0, 10, 7)
    arrays = {"S": S, "y": y}
    for smoothing in (0.0, 0.1):
        scores = torch.tensor(S, requires_grad=True)
        loss = functional.cross_entropy(scores, torch.tensor(y), label_smoothing=smoothing)
        loss.backward()
        arrays |= {f"loss.{smoothing}": np.array(loss.item()), f"gradient.{smoothing}": scores.grad.numpy()}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=14, eta_min=0.01)
    etas = []
    for _ in range(40):
        etas.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return arrays | {"cosine": np.array(etas)}


def all_arrays() -> dict[str, dict[str, np.ndarray]]:
    """The arrays of every file, by the stem of its name."""
    torch.set_num_threads(1)
    networks = {name: network_arrays(case, seed) for seed, (name, case) in enumerate(CASES.items())}
    return networks | {"formulas": formula_arrays()}


if __name__ == "__main__":
    for name, arrays in all_arrays().items():
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
