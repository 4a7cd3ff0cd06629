"""train: the training loop of every run, search and sweep."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from klcli.compiled import NUMPY, Engine, open_team
from klcli.data.dataset import Split, Splits
from klcli.engine.layers import Dropout
from klcli.engine.network import Network, stack
from klcli.engine.optimizers import SGD, Adam, WeightAverage
from klcli.evaluation.bn_statistics import for_split, with_policy_of
from klcli.evaluation.metrics import Metrics, Score, evaluate, log_mean, log_probabilities, score_of
from klcli.settings.sameness import stack_key
from klcli.settings.train_config import TrainConfig
from klcli.training.budget import budget_of
from klcli.training.environment import arithmetic
from klcli.training.minibatches import Minibatches
from klcli.training.networks import initialize, restore
from klcli.training.result import OPTIMIZER, RAW, Ensemble, EpochMetrics, Snapshot, TrainResult, part, snapshots_of
from klcli.training.whitening import whitening


class Training:
    """A stack of replicas that train in lockstep on the same minibatches."""

    def __init__(
        self, configs: Sequence[TrainConfig], splits: Splits, snapshot: Snapshot | None = None, team: Engine = NUMPY,
        quirks: Sequence["Quirk"] = (), step: "Step" = nullcontext,
    ) -> None:  # fmt: skip
        """Initialise the replicas, or restore a single one. Raises ValueError for configs that cannot form a stack."""
        self.is_new, self.team = snapshot is None, team
        self.config = configs[0]  # all replicas share the settings that the loop reads from it
        if len(set(map(stack_key, configs))) > 1:
            raise ValueError("replicas may differ in seed, lambda, sigma and eta only, and share one order_seed")
        self.splits = splits.standardised(self.config.standardise)
        self.budget = budget_of(self.config, len(splits.train))
        self.step = 0 if snapshot is None else snapshot.step  # updates done
        self.stack = team.accelerated(stack(self._networks(configs, snapshot, step)))
        self.evaluated = self.stack  # the stack, or its average, or with other statistics
        decay = self.config.weight_decay
        self.optimizer: SGD | Adam = SGD(momentum=self.config.momentum, weight_decay=decay)
        if self.config.optimizer == "adam":
            self.optimizer = Adam(weight_decay=decay, updates=self.step)
        self.average = WeightAverage(self.config.weight_average) if self.config.weight_average else None
        self._minibatches = Minibatches(self.config, self.splits.train, self.budget.total_updates, team)
        self._parameters = self.stack.parameters()
        replicas, inputs = enumerate(configs), self.splits.inputs
        self.results = [TrainResult(config, self.stack.replica(i), inputs=inputs) for i, config in replicas]
        self.lam, self.eta = np.array([config.lam for config in configs]), np.empty(len(configs))
        self.compute = team.repeated(self._updated)  # updates the stack with X and returns its losses
        self._dropouts = [layer for layer in self.stack.layers.values() if isinstance(layer, Dropout)]
        self._clock = time.perf_counter()
        if snapshot is not None:
            self._restore_memory(snapshot)
        for quirk in quirks:
            quirk(self)

    @property
    def finished(self) -> bool:
        """Whether the training is complete, or every replica has diverged."""
        return self.step == self.budget.total_updates or not self._remaining()

    def update(self) -> None:
        X, self._y = self._minibatches.images(self.step), self._minibatches.labels(self.step)
        for layer in self._dropouts:
            layer.step = self.step
        self.eta[:] = [self.budget.learning_rate(self.step, result.config) for result in self.results]
        loss = self.compute(X)
        self.step += 1
        self._mark_diverged(loss)
        if self.config.snapshots and self.budget.is_end_of_cycle(self.step):
            network = with_policy_of(self._averaged(), self.config, self.splits)
            for index, result in self._remaining():
                result.snapshots.append(network.replica(index).copy().state())

    def _updated(self, X: np.ndarray) -> np.ndarray:
        """Update the stack with a minibatch and return its losses `(m,)`."""
        loss, gradients = self.stack.gradients(X, self._y, None, loss=self._minibatches.loss, track=True)
        self.team.update(self.optimizer, self._parameters, gradients, self.eta, self.lam)
        if self.average:
            self.team.average(self.average, self.stack.state())
        return loss

    def evaluate(self) -> None:
        """Append an EpochMetrics to the epochs of every replica that has not diverged.

        Before the first update, a replica whose cost is not finite gets none, and has not diverged. After the last
        update, it uses the statistics of the BN policy, like the test metrics and the checkpoint. A network that no
        checkpoint may hold has diverged too: with BN, a variance overflows where the cost does not.
        """
        self.evaluated = self._averaged()
        if self.step == self.budget.total_updates:
            self.evaluated = with_policy_of(self.evaluated, self.config, self.splits)
        train, validation = self._metrics(self.splits.train), self._metrics(self.splits.validation)
        costs = np.array([a.cost + b.cost for a, b in zip(train, validation, strict=True)])
        for index, _ in self._remaining():
            state = self.evaluated.replica(index).state()
            costs[index] = costs[index] if all(np.isfinite(array).all() for array in state.values()) else np.nan
        if self.step or not self.budget.total_updates:  # BN has no running averages yet: the cost can overflow
            self._mark_diverged(costs)
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        epoch = self.budget.epoch_at(self.step)
        for index, result in self._remaining():
            if not np.isfinite(costs[index]):
                continue
            result.network = self.evaluated.replica(index)  # with the current running averages
            result.memory = self._memory(index)
            eta = self.budget.learning_rate(max(0, self.step - 1), result.config)
            result.epochs.append(EpochMetrics(epoch, self.step, eta, train[index], validation[index], seconds))

    def finish(self, *, evaluate_test: bool) -> None:
        """Evaluate the test split, and the ensemble of snapshots, of replicas that have not diverged."""
        test = self._metrics(self.splits.test) if evaluate_test and self._remaining() else None
        for index, result in self._remaining():
            result.test = test[index] if test else None
            if result.snapshots:
                networks = [self.team.accelerated(result.network.with_state(state)) for state in result.snapshots]
                validation = self._score_of_mean(networks, self.splits.validation)
                score = self._score_of_mean(networks, self.splits.test) if evaluate_test else None
                result.ensemble = Ensemble(len(networks), validation, score)
        for result in self.results:  # without the memory of the other replicas, and of the team
            result.network = Network(result.network.copy().layers)

    def _networks(self, configs: Sequence[TrainConfig], snapshot: Snapshot | None, step: "Step") -> list[Network]:
        if snapshot is not None:
            [config] = configs
            return [restore(config, snapshot.state | part(snapshot.state, RAW))]
        components, eps = self.config.whitening, self.config.whitening_eps
        V = None
        if components is not None:
            with step("whitening"):
                V = whitening(self.splits.train, components, eps)
        return [initialize(config, whitening=V) for config in configs]

    def _averaged(self) -> Network:
        return self.stack.with_state(self.average.state) if self.average and self.average.updates else self.stack

    def _metrics(self, split: Split) -> list[Metrics]:
        network = self.evaluated
        if self.step == self.budget.total_updates:
            network = for_split(network, split, self.config.bn_statistics, self.config.dtype)
        return evaluate(network, split, self.lam.tolist(), self.config.dtype)

    def _score_of_mean(self, networks: Sequence[Network], split: Split) -> Score:
        networks = [for_split(network, split, self.config.bn_statistics, self.config.dtype) for network in networks]
        return score_of(log_mean([log_probabilities(network, split, self.config.dtype) for network in networks]), split)

    def _memory(self, index: int) -> dict[str, np.ndarray]:
        """Return the inputs of the next update of a replica besides its network."""
        if self.step == self.budget.total_updates:
            return {}
        kinds = self.optimizer.memory.items()
        memory = {f"{OPTIMIZER}.{kind}.{name}": one[index] for kind, own in kinds for name, one in own.items()}
        if self.average and self.average.updates:
            memory |= {f"{RAW}.{name}": array for name, array in self.stack.replica(index).state().items()}
        return memory

    def _restore_memory(self, snapshot: Snapshot) -> None:
        state = snapshot.state
        self.results[0].snapshots, self.results[0].epochs = snapshots_of(state), [*snapshot.epochs]
        if self.average and part(state, RAW):
            averaged = self.stack.replica(0).with_state(state)
            self.average.state, self.average.updates = stack([averaged]).state(), snapshot.step
        for kind in dict.fromkeys(key.split(".")[1] for key in state if key.startswith(f"{OPTIMIZER}.")):
            saved = part(state, f"{OPTIMIZER}.{kind}")
            self.optimizer.memory[kind] = {
                name: np.array(saved[name], array.dtype, order="C").reshape(array.shape)
                for name, array in self._parameters.items()
            }

    def _remaining(self) -> list[tuple[int, TrainResult]]:
        return [(index, result) for index, result in enumerate(self.results) if result.diverged_at is None]

    def _mark_diverged(self, cost: np.ndarray) -> None:
        if not np.isfinite(cost).all():
            for index, result in self._remaining():
                if not np.isfinite(cost[index]):
                    result.diverged_at, result.memory = self.step, {}


Quirk = Callable[[Training], None]  # changes a training before its first update
Step = Callable[[str], AbstractContextManager[Any]]  # shows what is done inside the block


def train(
    configs: Sequence[TrainConfig], splits: Splits, *,
    snapshot: Snapshot | None = None, evaluate_test: bool = True, cores: int = 1, evaluate_untrained: bool = False,
    quirks: Sequence[Quirk] = (),
    on_update: Callable[[int], None] = lambda step: None,
    on_evaluation: Callable[[list[TrainResult]], None] = lambda results: None,
    step: Step = nullcontext,
) -> list[TrainResult]:  # fmt: skip
    """Train a stack of replicas in lockstep on the same minibatches and return one result for each.

    The configs may differ in seed, lambda, sigma, eta_min and eta_max; all else must agree (ValueError), the order
    seed included. What `on_update(step)`, called after every update, raises ends the training. `on_evaluation(results)`
    is called after every evaluation, whose EpochMetrics is the last of the `epochs` of each replica; with
    `evaluate_untrained`, the first one is before the first update, if any evaluation is not the last. A replica whose
    cost is no longer finite gets `diverged_at` and no further metrics; the others continue. A single replica continues
    from a `snapshot`, and ends with the same bits as without the interruption. With two `cores`, a second thread
    computes too; the bits do not depend on it. Each of the `quirks` is called with the Training before its first
    update, and may replace its `compute`, its `splits` or its arrays. Inside `step(name)`, whitening and the
    evaluations are computed.
    """
    started = time.perf_counter() - sum(one.seconds for one in (snapshot.epochs if snapshot else ()))
    with open_team(configs[0].dtype, helper=cores > 1) as team, arithmetic():
        training = Training(configs, splits, snapshot, team, quirks, step)
        done = training.step if training.results[0].epochs else -1  # evaluated before, with the snapshot
        evaluations = training.budget.evaluations_with_untrained if evaluate_untrained else training.budget.evaluations
        for evaluation in (step for step in evaluations if step > done):
            while training.step < evaluation and not training.finished:
                training.update()
                on_update(training.step)
            with step("evaluating"):
                training.evaluate()
            on_evaluation(training.results)
            if training.finished:
                break
        with step("testing"):
            training.finish(evaluate_test=evaluate_test)
    seconds = time.perf_counter() - started
    for result in training.results:
        result.seconds = seconds
    return training.results


def train_chain(
    configs: Sequence[TrainConfig], splits: Splits, *, on_update: Callable[[int], None] = lambda step: None, **how: Any
) -> list[TrainResult]:
    """Train networks in sequence, each from the final weights of the previous one, as a flawed search does.

    `on_update` gets the total number of updates so far; `how` are arguments of `train`.
    """
    results: list[TrainResult] = []
    snapshot, done = None, 0
    for config in configs:
        count = partial(lambda before, step: on_update(before + step), done)
        results += train([config], splits, snapshot=snapshot, on_update=count, **how)
        snapshot = Snapshot(0, results[-1].network.state())
        done += budget_of(config, len(splits.train)).total_updates
    return results
