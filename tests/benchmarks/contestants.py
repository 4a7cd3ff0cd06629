"""The contestants: each trains the same network on the same minibatches, `updates(n)` at a time.

A contestant is a class with a `name`, made from a Race; making it may fail with ImportError, where
its library is not installed, and the benchmark continues without it. Before every round it may `wake`, not timed.
"""

import itertools
from contextlib import ExitStack
from unittest.mock import patch

import numpy as np

from klcli import compiled
from klcli.data.dataset import PIXELS, epoch_order
from klcli.training import trainer
from klcli.training.cores import cores
from klcli.training.environment import arithmetic
from tests.benchmarks.networks import Race

CORES = cores()


class Klcli:
    """klcli as `klcli train` runs it, with a second thread, without evaluations."""

    name = "klcli"
    cores = 2  # 0: plain NumPy

    def __init__(self, race: Race) -> None:
        self._open = ExitStack()
        team = compiled.NUMPY
        if self.cores:
            team = self._open.enter_context(compiled.open_team(race.config.dtype, helper=self.cores > 1))
        with patch.object(trainer, "whitening", any_projection):
            self._training = trainer.Training([race.config], race.splits, team=team)

    def wake(self) -> None:
        """Wake the helper, which sleeps after 2 ms without work."""
        self.updates(3)

    def updates(self, n: int) -> None:
        with arithmetic():
            for _ in range(n):
                self._training.update()

    def close(self) -> None:
        self._open.close()


class KlcliOneCore(Klcli):
    """The same on one core, as a worker of a search or of a sweep."""

    name = "klcli, 1 core"
    cores = 1


class KlcliNumpy(Klcli):
    """klcli where there is no numba: engine/ itself, on one core."""

    name = "klcli, plain NumPy"
    cores = 0


def any_projection(images: object, components: int, eps: float) -> np.ndarray:
    """Return a random matrix in place of the whitening, which takes 8 s: the time of an update is the same."""
    return np.random.default_rng(0).standard_normal((PIXELS, components)) / np.sqrt(PIXELS)


class Floor:
    """Only the dense products that the network cannot avoid, by OpenBLAS on one core, into arrays made beforehand."""

    name = "floor: its products, 1 core"

    def __init__(self, race: Race) -> None:
        rng = np.random.default_rng(0)

        def array(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape, dtype=np.float32)

        n = race.config.batch_size
        self._layers = [
            (array(n, a), array(a, b), array(n, b), array(n, b), array(a, b), array(n, a), has_dX)
            for a, b, has_dX in race.products()
        ]

    def updates(self, n: int) -> None:
        for _ in range(n):
            for X, W, G, Y, dW, dX, has_dX in self._layers:
                np.matmul(X, W, out=Y)
                np.matmul(X.T, G, out=dW)
                if has_dX:
                    np.matmul(G, W.T, out=dX)


class Peak:
    """As many multiplications as in those products, in products of large square matrices: the machine's peak."""

    name = "floor: large sgemm, 1 core"
    side = 1024

    def __init__(self, race: Race) -> None:
        self._A, self._B, self._C = np.random.default_rng(0).standard_normal((3, self.side, self.side), np.float32)
        multiplications = race.config.batch_size * sum(a * b * (2 + has_dX) for a, b, has_dX in race.products())
        self._rows = multiplications / self.side**2  # of a product with B, per update

    def updates(self, n: int) -> None:
        rows = round(n * self._rows)
        for start in range(0, rows, self.side):
            now = min(self.side, rows - start)
            np.matmul(self._A[:now], self._B, out=self._C[:now])


class TorchEager:
    """A careful PyTorch loop: images standardised beforehand, L2 as weight decay of 2 lambda on the weights."""

    name = "PyTorch, 1 thread"
    threads = 1
    compiled = False

    def __init__(self, race: Race) -> None:
        import torch

        self._torch, self._race = torch, race
        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        X, y = race.standardised
        self._X, self._y = torch.from_numpy(X), torch.from_numpy(y)
        layers: list[torch.nn.Module] = []
        for index, (a, b) in enumerate(itertools.pairwise(race.widths)):
            layers.append(torch.nn.Linear(a, b))
            torch.nn.init.kaiming_normal_(layers[-1].weight)
            if index < len(race.config.hidden):
                layers += [torch.nn.BatchNorm1d(b, eps=1e-8)] if race.config.batch_norm else []
                layers.append(torch.nn.ReLU())
        network = torch.nn.Sequential(*layers)
        weights = [layer.weight for layer in layers if isinstance(layer, torch.nn.Linear)]
        others = [p for p in network.parameters() if all(p is not weight for weight in weights)]
        self._optimizer = torch.optim.SGD(
            [{"params": weights, "weight_decay": 2 * race.config.lam}, {"params": others}], lr=0.1
        )
        self._loss = torch.nn.CrossEntropyLoss()
        self._network = torch.compile(network) if self.compiled else network
        self._step = 0

    def updates(self, n: int) -> None:
        torch = self._torch
        torch.set_num_threads(self.threads)
        size = self._race.config.batch_size
        for _ in range(n):
            epoch, position = divmod(self._step, len(self._y) // size)
            if position == 0 or self._step == 0:
                self._order = torch.from_numpy(epoch_order(len(self._y), 0, epoch))
            index = self._order[position * size : (position + 1) * size]
            for group in self._optimizer.param_groups:
                group["lr"] = self._race.eta(self._step)
            self._optimizer.zero_grad(set_to_none=True)
            self._loss(self._network(self._X[index]), self._y[index]).backward()
            self._optimizer.step()
            self._step += 1


class TorchEagerAllThreads(TorchEager):
    """The same with as many threads as there are cores."""

    name = f"PyTorch, {CORES} threads"
    threads = CORES


class TorchCompiled(TorchEager):
    """The same through torch.compile, where a compiler is installed."""

    name = "PyTorch compiled, 1 thread"
    compiled = True


class JaxScan:
    """JAX with a whole epoch in one jitted scan; it compiles in the warm-up, which is not counted."""

    name = "JAX, scan"

    def __init__(self, race: Race) -> None:
        import jax
        import jax.numpy as jnp

        self._jax, self._race = jax, race
        X, y = race.standardised
        self._X, self._y = jnp.asarray(X), jnp.asarray(y)
        self._state = jax_initial_state(race, seed=0)
        self._run = jax.jit(jax_epoch(race), donate_argnums=0)
        self._step = 0

    def updates(self, n: int) -> None:
        race, jnp = self._race, self._jax.numpy
        size = race.config.batch_size
        epoch = self._step // (len(self._y) // size)
        order = epoch_order(len(self._y), 0, epoch)[: n * size].reshape(n, size)
        etas = np.array([race.eta(self._step + i) for i in range(n)], np.float32)
        lam = jnp.float32(race.config.lam)
        self._state = self._run(self._state, self._X, self._y, jnp.asarray(order), jnp.asarray(etas), lam)
        self._jax.block_until_ready(self._state)
        self._step += n


def jax_initial_state(race: Race, seed: int):
    """Return parameters and running averages of one network as lists of arrays."""
    import jax.numpy as jnp

    rng = np.random.default_rng(seed)
    state = []
    for index, (a, b) in enumerate(itertools.pairwise(race.widths)):
        layer = {"W": jnp.asarray(rng.standard_normal((a, b)) * np.sqrt(2 / a), jnp.float32), "b": jnp.zeros(b)}
        if race.config.batch_norm and index < len(race.config.hidden):
            layer |= {"gamma": jnp.ones(b), "beta": jnp.zeros(b), "mean": jnp.zeros(b), "variance": jnp.ones(b)}
        state.append(layer)
    return state


def jax_epoch(race: Race):
    """Return the function that makes n updates in one scan."""
    import jax
    import jax.numpy as jnp

    def forward(state, X, y, lam):
        averages, penalty = [], 0.0
        for index, layer in enumerate(state):
            X = X @ layer["W"] + layer["b"]
            penalty += jnp.sum(layer["W"] ** 2)
            if index == len(state) - 1:
                break
            if race.config.batch_norm:
                mean, variance = X.mean(0), X.var(0)
                X = layer["gamma"] * (X - mean) / jnp.sqrt(variance + 1e-8) + layer["beta"]
                averages.append((0.9 * layer["mean"] + 0.1 * mean, 0.9 * layer["variance"] + 0.1 * variance))
            X = jnp.maximum(X, 0)
        loss = -jax.nn.log_softmax(X)[jnp.arange(len(y)), y].mean()
        return loss + lam * penalty, averages

    def run(state, X, y, order, etas, lam):
        def update(state, inputs):
            index, eta = inputs
            gradients, averages = jax.grad(forward, has_aux=True)(state, X[index], y[index], lam)
            state = jax.tree.map(lambda p, g: p - eta * g, state, gradients)
            for layer, (mean, variance) in zip(state, averages, strict=False):
                layer["mean"], layer["variance"] = mean, variance
            return state, None

        return jax.lax.scan(update, state, (order, etas))[0]

    return run


class ScikitLearn:
    """scikit-learn's MLPClassifier, which has no batch normalisation and trains by whole epochs."""

    name = "scikit-learn"

    def __init__(self, race: Race) -> None:
        from sklearn.neural_network import MLPClassifier

        if race.config.batch_norm:
            raise ImportError("it has no batch normalisation")
        X, y = race.standardised
        self._X, self._y = X, y
        self._network = MLPClassifier(
            race.config.hidden, solver="sgd", alpha=2 * race.config.lam, batch_size=race.config.batch_size, momentum=0.0
        )

    def updates(self, n: int) -> None:
        rows = n * self._network.batch_size
        self._network.partial_fit(self._X[:rows], self._y[:rows], classes=np.arange(10))


CONTESTANTS = (
    Peak, Floor, Klcli, KlcliOneCore, KlcliNumpy, JaxScan, TorchEager, TorchEagerAllThreads, TorchCompiled, ScikitLearn,
)  # fmt: skip
