"""Eight lambdas at once: klcli's stacks against vmap."""

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from klcli import compiled
from klcli.data.dataset import epoch_order
from klcli.studies.execution import ImagesReference, StackTask, WorkerChannel, splits_of, stacks
from klcli.studies.executors import open_executor
from klcli.studies.lambda_search import plan
from klcli.training.environment import arithmetic
from klcli.training.trainer import Training
from tests.benchmarks.contestants import CORES, jax_epoch, jax_initial_state
from tests.benchmarks.networks import LAMBDAS, Race


class KlcliSearch:
    """klcli as `klcli search-lambda` runs it: stacks in processes that are already warm."""

    name = f"klcli, {CORES} processes"

    def __init__(self, race: Race) -> None:
        config = replace(race.config, epochs=1, evaluations_per_cycle=0)
        self._configs = plan(config, LAMBDAS, 1)
        self._divided = stacks(self._configs)
        self._context = open_executor(CORES, None, len(self._divided))
        self._executor = self._context.__enter__()
        self._images = ImagesReference(None, "", race.sha256)

    def updates(self, n: int) -> None:
        helped = CORES - len(self._divided)  # stacks with a second core
        with tempfile.TemporaryDirectory() as folder:
            running = []
            for index, part in enumerate(self._divided):
                configs = tuple(self._configs[i] for i in part)
                task = StackTask(part, configs, self._images, False, threads=1, cores=1 + (index < helped))
                running.append(self._executor.submit(train_updates, task, WorkerChannel(Path(folder), index), n))
            for future in running:
                future.result()

    def close(self) -> None:
        self._context.__exit__(None, None, None)


def train_updates(task: StackTask, channel: WorkerChannel, n: int) -> None:
    """Make n updates without the evaluation at the end, in a worker."""
    with compiled.open_team(task.configs[0].dtype, helper=task.cores > 1) as team, arithmetic():
        training = Training(task.configs, splits_of(task.images, task.configs[0].split), team=team)
        for _ in range(n):
            training.update()
            channel.on_update(training.step)


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

    def updates(self, n: int) -> None:
        race, jnp = self._race, self._jax.numpy
        size = race.config.batch_size
        order = epoch_order(len(self._y), 0, 0)[: n * size].reshape(n, size)
        etas = np.array([race.eta(step) for step in range(n)], np.float32)
        self._state = self._run(self._state, self._X, self._y, jnp.asarray(order), jnp.asarray(etas), self._lam)
        self._jax.block_until_ready(self._state)


class TorchVmap:
    """All networks as one, through torch.func.vmap over stacked parameters."""

    name = f"PyTorch vmap, {CORES} threads"

    def __init__(self, race: Race) -> None:
        import torch

        self._torch, self._race = torch, race
        X, y = race.standardised
        self._X, self._y = torch.from_numpy(X), torch.from_numpy(y)
        self._lam = torch.tensor(LAMBDAS, dtype=torch.float32)
        m = len(LAMBDAS)
        self._parameters = []
        for a, b in itertools.pairwise(race.widths):
            W = torch.randn(m, a, b) * np.sqrt(2 / a)
            self._parameters += [W, torch.zeros(m, b), torch.ones(m, b), torch.zeros(m, b)]
        self._averages = [(torch.zeros(m, b), torch.ones(m, b)) for b in race.config.hidden]
        layers = len(race.config.hidden) + 1

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

    def updates(self, n: int) -> None:
        torch = self._torch
        torch.set_num_threads(CORES)
        order, size = torch.from_numpy(epoch_order(len(self._y), 0, 0)), self._race.config.batch_size
        with torch.no_grad():
            for step in range(n):
                index = order[step * size : (step + 1) * size]
                gradients, statistics = self._gradients(self._parameters, self._lam, self._X[index], self._y[index])
                for parameter, gradient in zip(self._parameters, gradients, strict=True):
                    parameter.sub_(gradient, alpha=self._race.eta(step))
                for averages, batch in zip(self._averages, statistics, strict=True):
                    for average, value in zip(averages, batch, strict=True):
                        average.mul_(0.9).add_(value, alpha=0.1)


SEARCH_CONTESTANTS = (KlcliSearch, JaxVmap, TorchVmap)
