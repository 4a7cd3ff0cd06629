"""Eight lambdas at once: per network and epoch, klcli's stacks against loops and vmap."""

import itertools

import numpy as np

from klcli.data.dataset import epoch_order
from klcli.studies.execution import ImagesReference, StackTask, stacks
from klcli.studies.executors import open_executor
from klcli.studies.lambda_search import plan
from klcli.studies.worker_channel import WorkerChannel
from tests.benchmarks.contestants import CORES, TorchEager, jax_epoch, jax_initial_state
from tests.benchmarks.networks import LAMBDAS, UPDATES, Race


class KlcliSearch:
    """klcli as `klcli search-lambda` runs it: stacks in processes that are already warm."""

    name = f"klcli, {CORES} processes"

    def __init__(self, race: Race) -> None:
        from dataclasses import replace

        config = replace(race.config, epochs=1, evaluations_per_cycle=0)
        self._configs = plan(config, LAMBDAS, 1)
        self._divided = stacks(self._configs)
        self._context = open_executor(CORES, None, len(self._divided))
        self._executor = self._context.__enter__()
        self._images = ImagesReference("cifar10", "cifar10", race.sha256)

    def epoch(self) -> None:
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            tasks = [
                self._executor.submit(
                    train_updates,
                    StackTask(part, tuple(self._configs[i] for i in part), self._images, False, 1),
                    WorkerChannel(Path(folder), index),
                )
                for index, part in enumerate(self._divided)
            ]
            for task in tasks:
                task.result()

    def close(self) -> None:
        self._context.__exit__(None, None, None)


def train_updates(task: StackTask, channel: WorkerChannel) -> None:
    """One epoch of updates without the evaluation at the end, in a worker."""
    from klcli.studies.execution import splits_of
    from klcli.training.environment import arithmetic
    from klcli.training.trainer import Training

    training = Training(task.configs, splits_of(task.images, task.configs[0].split))
    with arithmetic():
        for _ in range(UPDATES):
            training.update()
            channel.on_update(training.step)


class FloorOfSearch:
    """Only the dense products of all networks, with as many replicas in each process as klcli has."""

    name = f"floor, {CORES} processes"

    def __init__(self, race: Race) -> None:
        self._sizes, self._race = [len(part) for part in stacks(plan(race.config, LAMBDAS, 1))], race
        self._context = open_executor(CORES, None, len(self._sizes))
        self._executor = self._context.__enter__()

    def epoch(self) -> None:
        tasks = [
            self._executor.submit(products_of_stack, self._race.config.batch_size, self._race.widths, replicas)
            for replicas in self._sizes
        ]
        for task in tasks:
            task.result()

    def close(self) -> None:
        self._context.__exit__(None, None, None)


def products_of_stack(n: int, widths: tuple[int, ...], replicas: int) -> None:
    """One epoch of the products of an update: those with the images are one wide product for all replicas."""
    rng = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    X, W = array(n, widths[0]), array(widths[0], replicas * widths[1])
    Y, G, dW = array(n, replicas * widths[1]), array(replicas * widths[1], n), array(replicas * widths[1], widths[0])
    later = [
        (array(replicas, n, a), array(replicas, a, b), array(replicas, n, b)) for a, b in itertools.pairwise(widths[1:])
    ]
    for _ in range(UPDATES):
        np.matmul(X, W, out=Y)
        np.matmul(G, X, out=dW)
        for A, V, S in later:
            np.matmul(A, V, out=S)
            S @ V.swapaxes(1, 2)
            A.swapaxes(1, 2) @ S


class TorchLoop:
    """One network after the other, each with its lambda."""

    def __init__(self, race: Race, threads: int) -> None:
        kind = type("_Eager", (TorchEager,), {"threads": threads})
        self.name = f"PyTorch loop, {threads} thread{'s' if threads > 1 else ''}"
        self._networks = [kind(race) for _ in LAMBDAS]

    def epoch(self) -> None:
        for network in self._networks:
            network.updates(UPDATES)

    def close(self) -> None:
        pass


class TorchVmap:
    """All networks as one, through torch.func.vmap over stacked parameters."""

    def __init__(self, race: Race, threads: int) -> None:
        import torch

        self.name = f"PyTorch vmap, {threads} thread{'s' if threads > 1 else ''}"
        self._torch, self._race, self._threads = torch, race, threads
        X, y = race.standardised
        self._X, self._y = torch.from_numpy(X), torch.from_numpy(y)
        self._lam = torch.tensor(LAMBDAS, dtype=torch.float32)
        m = len(LAMBDAS)
        self._parameters = []
        for a, b in itertools.pairwise(race.widths):
            W = torch.randn(m, a, b) * np.sqrt(2 / a)
            self._parameters += [W, torch.zeros(m, b), torch.ones(m, b), torch.zeros(m, b)]
        self._averages = [(torch.zeros(m, b), torch.ones(m, b)) for b in race.hidden]
        layers = len(race.hidden) + 1

        def cost(parameters, lam, X, y):
            statistics, penalty = [], 0.0
            for index in range(layers):
                W, b, gamma, beta = parameters[4 * index : 4 * index + 4]
                X = X @ W + b
                penalty = penalty + W.square().sum()
                if index < layers - 1:
                    mean, variance = X.mean(0), X.var(0, unbiased=False)
                    X = torch.relu(gamma * (X - mean) * torch.rsqrt(variance + 1e-8) + beta)
                    statistics.append((mean, variance))
            loss = torch.nn.functional.cross_entropy(X, y)
            return loss + lam * penalty, statistics

        self._gradients = torch.func.vmap(torch.func.grad(cost, has_aux=True), in_dims=(0, 0, None, None))

    def epoch(self) -> None:
        torch = self._torch
        torch.set_num_threads(self._threads)
        order, size = torch.from_numpy(epoch_order(len(self._y), 0, 0)), self._race.config.batch_size
        with torch.no_grad():
            for step in range(UPDATES):
                index = order[step * size : (step + 1) * size]
                gradients, statistics = self._gradients(self._parameters, self._lam, self._X[index], self._y[index])
                for parameter, gradient in zip(self._parameters, gradients, strict=True):
                    parameter.sub_(gradient, alpha=self._race.eta(step))
                for averages, batch in zip(self._averages, statistics, strict=True):
                    for average, value in zip(averages, batch, strict=True):
                        average.mul_(0.9).add_(value, alpha=0.1)

    def close(self) -> None:
        pass


class JaxVmap:
    """All networks as one, vmap over the scan of an epoch."""

    name = "JAX vmap"

    def __init__(self, race: Race) -> None:
        import jax
        import jax.numpy as jnp

        self._jax, self._race = jax, race
        X, y = race.standardised
        self._X, self._y, self._lam = jnp.asarray(X), jnp.asarray(y), jnp.asarray(LAMBDAS, jnp.float32)
        states = [jax_initial_state(race, seed=0) for _ in LAMBDAS]
        self._state = jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)
        self._run = jax.jit(jax.vmap(jax_epoch(race), in_axes=(0, None, None, None, None, 0)))

    def epoch(self) -> None:
        race, jnp = self._race, self._jax.numpy
        size = race.config.batch_size
        order = epoch_order(len(self._y), 0, 0)[: UPDATES * size].reshape(UPDATES, size)
        etas = np.array([race.eta(step) for step in range(UPDATES)], np.float32)
        self._state = self._run(self._state, self._X, self._y, jnp.asarray(order), jnp.asarray(etas), self._lam)
        self._jax.block_until_ready(self._state)

    def close(self) -> None:
        pass


def search_contestants():
    """Return what makes each contestant of the search."""
    from functools import partial

    return (
        FloorOfSearch,
        KlcliSearch,
        *(partial(TorchLoop, threads=threads) for threads in sorted({1, CORES})),
        *(partial(TorchVmap, threads=threads) for threads in sorted({1, CORES})),
        JaxVmap,
    )
