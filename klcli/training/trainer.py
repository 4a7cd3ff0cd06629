"""train: the procedure that every run, search and sweep goes through."""

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from klcli import second_core
from klcli.data.dataset import PIXELS, Split, Splits
from klcli.engine.layers import Dropout
from klcli.engine.network import Network, stack
from klcli.engine.optimizers import SGD, Adam, WeightAverage
from klcli.engine.parameters import Parameters
from klcli.evaluation.bn_statistics import with_policy_of, with_statistics_of
from klcli.evaluation.metrics import Metrics, Score, evaluate, log_mean, log_probabilities, score_of
from klcli.settings.sameness import stack_key
from klcli.settings.train_config import TrainConfig
from klcli.training.budget import budget_of
from klcli.training.environment import arithmetic
from klcli.training.minibatches import Minibatches, follow, write_images
from klcli.training.networks import WHITENING, initialize
from klcli.training.result import OPTIMIZER, RAW, Ensemble, EpochMetrics, Snapshot, TrainResult, part, snapshots_of
from klcli.training.whitening import whitening

if TYPE_CHECKING:
    from klcli.second_core.partner import Begun

WORTH_A_PROCESS = 10_000_000_000  # multiplications, half a second: a process needs as long to be ready
BUFFERS = 4  # for minibatches: with two, a core would often write into what the other still has in its cache
ROOM = 8 << 20  # bytes for what an evaluation takes along beside the network


def new_optimizer(config: TrainConfig, updates: int = 0) -> SGD | Adam:
    """Return the optimizer of `config`, after so many updates but with an empty memory."""
    if config.optimizer == "adam":
        return Adam(weight_decay=config.weight_decay, updates=updates)
    return SGD(momentum=config.momentum, weight_decay=config.weight_decay)


class Training:
    """A group of members in lockstep on the same minibatches, advanced update by update."""

    def __init__(self, configs: Sequence[TrainConfig], splits: Splits, snapshot: Snapshot | None = None) -> None:
        """Draw the members, or take a single one from its snapshot.

        Raises ValueError where the configs differ in more than members may.
        """
        self.config = _common(configs)  # of the first member; the others share all that the loop reads from it
        self.splits = splits.standardised(self.config.standardise)
        self.times = budget_of(self.config, len(splits.train))
        self.step = 0 if snapshot is None else snapshot.step  # updates done
        V = self._whitening() if snapshot is None else snapshot.state.get(WHITENING)
        networks = [initialize(config, whitening=V) for config in configs]
        if snapshot is not None:
            networks[0].load_state(part(snapshot.state, RAW) or snapshot.state)
        self.members = stack(networks)
        self.evaluated = self.members  # or their average, or with other statistics
        self.optimizer = new_optimizer(self.config, self.step)
        self.average = WeightAverage(self.config.weight_average) if self.config.weight_average else None
        self._minibatches = Minibatches(self.config, self.splits.train)
        self._share_arrays(len(networks))
        self._parameters = Parameters(self.members)
        self.results = [TrainResult(config, self.members.replica(index)) for index, config in enumerate(configs)]
        self._lam = [config.lam for config in configs]
        self._dropouts = [layer for layer in self.members.layers.values() if isinstance(layer, Dropout)]
        self._clock = time.perf_counter()
        if snapshot is not None:
            self._recall(snapshot)

    def _whitening(self) -> np.ndarray | None:
        """Return the V of the training images, where the config asks for one."""
        config = self.config
        if config.whitening is None:
            return None
        return whitening(self.splits.train, config.whitening, config.whitening_eps)

    @property
    def finished(self) -> bool:
        """Whether no update is left to make: all done, or nobody left to train."""
        return self.step == self.times.total_updates or not self._living()

    def _share_arrays(self, members: int) -> None:
        """Put the weights, and the images of this update and of the next, where a second core finds them."""
        shape, dtype = (self.config.batch_size, PIXELS), np.dtype(self.config.dtype)
        weights = self.members.weights()
        numbers = sum(W.size for W in weights)
        if 2 * self.config.batch_size * numbers * self.times.total_updates > WORTH_A_PROCESS:
            activations = self.config.batch_size * members * sum(self.config.hidden)
            # Beside W: products as large as W and what goes into them, and an average of W in an evaluation.
            copies = 3 if self.config.weight_average else 2
            size = (copies * numbers + BUFFERS * math.prod(shape) + 8 * activations) * dtype.itemsize + ROOM
            if second_core.start(size) and not second_core.tell(follow, self._minibatches):
                second_core.stop()  # these images are no file that another process can read as well
        self.members.move_weights(second_core.empty)
        self._images = [second_core.empty(shape, dtype) for _ in range(BUFFERS)]
        self._prepared: Begun | None = None  # the images of the update to come

    def update(self) -> None:
        """Make one update of every member on the next minibatch."""
        X, following = (self._images[step % BUFFERS] for step in (self.step, self.step + 1))
        for piece in second_core.left(self._prepared):
            self._minibatches.images(self.step, X, piece)
        y, loss_function = self._minibatches.labels(self.step)
        self._prepared = None
        if self.step + 1 < self.times.total_updates:
            self._prepared = second_core.then(write_images, self.step + 1, out=following, parts=self._minibatches.parts)
        for layer in self._dropouts:
            layer.step = self.step
        loss, gradients = self.members.factored_gradients(X, y, _shared(self._lam), loss=loss_function, track=True)
        eta = _shared([self.times.learning_rate(self.step, result.config) for result in self.results])
        self.optimizer.update(self._parameters.arrays, self._parameters.in_order(gradients), eta)
        self.step += 1
        if self.average is not None:
            self.average.update(self.members.state())
        if not np.isfinite(loss).all():
            self._mark_diverged(loss)
        if self.config.snapshots and self.times.is_end_of_cycle(self.step):
            network = with_policy_of(self._averaged(), self.config, self.splits)
            for index, result in self._living():
                result.snapshots.append(
                    {name: array.copy(order="K") for name, array in network.replica(index).state().items()}
                )

    def evaluate(self) -> None:
        """Append one EpochMetrics to every living member's epochs.

        After the last update, the members first get the statistics of their BN policy: the last metrics, the
        test split and the checkpoint then speak of one and the same network.
        """
        self.evaluated = self._averaged()
        if self.step == self.times.total_updates:
            self.evaluated = with_policy_of(self.evaluated, self.config, self.splits)
        on_train = self._metrics(self.splits.train)
        on_validation = self._metrics(self.splits.validation)
        self._mark_diverged(np.array([a.cost + b.cost for a, b in zip(on_train, on_validation, strict=True)]))
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        for index, result in self._living():
            result.network = self.evaluated.replica(index)  # with the running averages of this moment
            result.memory = self._memory(index)
            eta = self.times.learning_rate(max(0, self.step - 1), result.config)
            epoch = self.times.epoch_at(self.step)
            result.epochs.append(EpochMetrics(epoch, self.step, eta, on_train[index], on_validation[index], seconds))

    def test(self) -> None:
        """Look at the test split, once, for every living member."""
        metrics = self._metrics(self.splits.test)
        for index, result in self._living():
            result.test = metrics[index]

    def evaluate_snapshots(self, *, look_at_test: bool) -> None:
        """Let the snapshots of every living member vote."""
        for _, result in self._living():
            if result.snapshots:
                networks = [result.network.with_state(state) for state in result.snapshots]
                validation = self._score_of_mean(networks, self.splits.validation)
                test = self._score_of_mean(networks, self.splits.test) if look_at_test else None
                result.ensemble = Ensemble(len(networks), validation, test)

    def _score_of_mean(self, networks: Sequence[Network], split: Split) -> Score:
        dtype = self.config.dtype
        if self.config.bn_statistics == "batch":
            networks = [with_statistics_of(network, split, dtype) for network in networks]
        return score_of(log_mean([log_probabilities(network, split, dtype) for network in networks]), split)

    def _averaged(self) -> Network:
        """Return the members, with their average weights where there are some."""
        if self.average is None or not self.average.updates:
            return self.members
        return self.members.with_state(self.average.state)

    def _memory(self, index: int) -> dict[str, np.ndarray]:
        """Return what the next update of a member depends on beside its network; nothing after the last one."""
        if self.step == self.times.total_updates:
            return {}
        memory = {
            f"{OPTIMIZER}.{kind}.{name}": array[index]
            for kind, arrays in self.optimizer.memory.items()
            for name, array in self._parameters.by_name(arrays).items()
        }
        if self.average is not None and self.average.updates:
            memory |= {f"{RAW}.{name}": array for name, array in self.members.replica(index).state().items()}
        return memory

    def _recall(self, snapshot: Snapshot) -> None:
        """Take back what else `TrainResult.arrays` has kept of a single member."""
        state = snapshot.state
        self.results[0].snapshots = snapshots_of(state)
        if self.average is not None and part(state, RAW):
            averaged = self.members.replica(0)
            averaged = averaged.with_state({name: state[name] for name in averaged.state()})
            self.average.state, self.average.updates = stack([averaged]).state(), snapshot.step
        kinds = dict.fromkeys(key.split(".")[1] for key in state if key.startswith(f"{OPTIMIZER}."))
        for kind in kinds:
            self.optimizer.memory[kind] = self._parameters.like(part(state, f"{OPTIMIZER}.{kind}"))

    def _metrics(self, split: Split) -> list[Metrics]:
        members = self.evaluated
        if self.config.bn_statistics == "batch" and self.step == self.times.total_updates:
            members = with_statistics_of(members, split, self.config.dtype)
        return evaluate(members, split, self._lam, self.config.dtype)

    def _living(self) -> list[tuple[int, TrainResult]]:
        return [(index, result) for index, result in enumerate(self.results) if result.diverged_at is None]

    def _mark_diverged(self, cost: np.ndarray) -> None:
        for index, result in self._living():
            if not np.isfinite(cost[index]):
                result.diverged_at = self.step
                result.memory = {}


def train(
    configs: Sequence[TrainConfig],
    splits: Splits,
    *,
    snapshot: Snapshot | None = None,
    epochs: Sequence[EpochMetrics] = (),
    look_at_test: bool = True,
    on_update: Callable[[int], None] = lambda step: None,
    on_evaluation: Callable[[list[TrainResult]], None] = lambda results: None,
) -> list[TrainResult]:
    """Train a group of members in lockstep on the same minibatches and return one result each.

    The configs may differ in seed, lambda, sigma, eta_min and eta_max; all else must agree
    (ValueError), the order seed included. `on_update(step)` is called after every update, and what
    it raises ends the training there. `on_evaluation(results)` is called after every evaluation,
    whose EpochMetrics is the last of each living member's `epochs`. A member whose cost is no longer
    finite gets `diverged_at` and no further metrics; the others go on.

    A single member may go on from a `snapshot`, with the `epochs` that led to it: it ends with the
    same bits as if it had never stopped.
    """
    try:
        training = Training(configs, splits, snapshot)
        training.results[0].epochs.extend(epochs)
        with arithmetic():
            for evaluation in training.times.evaluations:
                if epochs and evaluation <= training.step:
                    continue  # stored with the snapshot
                while training.step < evaluation and not training.finished:
                    training.update()
                    on_update(training.step)
                training.evaluate()
                on_evaluation(training.results)
                if training.finished:
                    break
            if look_at_test and any(result.diverged_at is None for result in training.results):
                training.test()
            training.evaluate_snapshots(look_at_test=look_at_test)
        for result in training.results:  # views would keep all that was shared with the second core
            state = result.network.state()
            result.network = result.network.with_state({key: array.copy(order="K") for key, array in state.items()})
    finally:
        second_core.stop()
    return training.results


def train_chain(
    configs: Sequence[TrainConfig],
    splits: Splits,
    *,
    look_at_test: bool = True,
    on_update: Callable[[int], None] = lambda step: None,
    on_evaluation: Callable[[list[TrainResult]], None] = lambda results: None,
) -> list[TrainResult]:
    """Train one network through many configs, each with the weights that the one before has left.

    This is how a search goes wrong that forgets to begin anew; it is here to show it. All else, the
    learning rate first, begins anew. `on_update` hears of all updates together.
    """
    results: list[TrainResult] = []
    snapshot, done = None, 0
    for config in configs:
        [result] = train(
            [config],
            splits,
            snapshot=snapshot,
            look_at_test=look_at_test,
            on_update=lambda step, before=done: on_update(before + step),  # type: ignore[misc]
            on_evaluation=on_evaluation,
        )
        results.append(result)
        snapshot = Snapshot(0, {name: array.copy(order="K") for name, array in result.network.state().items()})
        done += budget_of(config, len(splits.train)).total_updates
    return results


def _common(configs: Sequence[TrainConfig]) -> TrainConfig:
    """Return the first config after checking that the others differ only where members may."""
    first = configs[0]
    if len({stack_key(config) for config in configs}) > 1 or (len(configs) > 1 and first.order_seed is None):
        raise ValueError("replicas may differ in seed, lambda, sigma and eta only, and share one order_seed")
    return first


def _shared(values: Sequence[float]) -> float | np.ndarray:
    """Return one number where all members have the same, which is cheaper to apply, or `(m,)`."""
    return values[0] if len(set(values)) == 1 else np.array(values)
