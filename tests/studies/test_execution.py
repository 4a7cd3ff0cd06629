"""Plans become stacks, stacks become outcomes; here in one process, with executors that fail on purpose."""

import errno
import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import klcli
from klcli.data.dataset import Dataset, Splits
from klcli.engine.initializers import he
from klcli.engine.network import build
from klcli.errors import ConfigError, DataError
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.studies import execution
from klcli.studies.execution import (
    ATTEMPTS,
    STACK_SIZE,
    ImagesReference,
    StackOutcome,
    StackTask,
    WorkerChannel,
    execute,
    splits_of,
    stacks,
    train_stack,
)
from klcli.studies.executors import WorkersLost
from klcli.training.result import TrainResult
from klcli.training.trainer import train

Tasks = Callable[..., list[StackTask]]


# --- stacks

FREE = {"seed": st.integers(0, 3), "lam": st.sampled_from([0.0, 0.1]), "eta_max": st.sampled_from([0.1, 0.2])}
SHARED = {
    "hidden": st.sampled_from([(5,), (5, 5)]),
    "batch_norm": st.booleans(),
    "batch_size": st.sampled_from([50, 100]),
    "order_seed": st.none() | st.integers(0, 1),
}
CONFIGS = st.builds(TrainConfig, **FREE, **SHARED)


@given(st.lists(CONFIGS, max_size=30))
def test_every_position_is_in_one_stack_of_its_likes(plan: list[TrainConfig]) -> None:
    divided = stacks(plan)
    assert sorted(position for part in divided for position in part) == list(range(len(plan)))
    for part in divided:
        assert 1 <= len(part) <= STACK_SIZE
        assert (
            len({tuple(getattr(plan[p], name) for name in {*SHARED, "shared_seed"} - {"order_seed"}) for p in part})
            == 1
        )
    assert divided == stacks(list(plan)) == sorted(divided)


def test_what_replicas_may_differ_in_is_what_training_takes(splits: Splits, small_split: SplitConfig) -> None:
    """A stack that `train` refuses would be noticed only after a study has run for an hour."""
    base = TrainConfig(hidden=(5,), split=small_split, initializer="normal", sigma=0.1, epochs=0, order_seed=0)
    others = {"seed": 9, "lam": 0.7, "sigma": 0.2, "eta_min": 1e-6, "eta_max": 0.3, "hidden": (6,), "epochs": 1,
              "batch_norm": True, "bn_position": "after", "bn_momentum": 0.5, "bn_eps": 1e-5, "batch_size": 50,
              "schedule": "constant", "step_epochs": 1, "step_size": 3, "cycles": 3, "order_seed": 4,
              "dtype": "float64", "evaluations_per_cycle": 2, "split": SplitConfig(subset=200)}  # fmt: skip
    for field in fields(TrainConfig):
        if field.name not in others:  # initializer: no other goes with a sigma
            continue
        plan = [base, replace(base, **{field.name: others[field.name]})]
        if len(stacks(plan)) == 1:
            train(plan, splits)
        else:
            with pytest.raises(ValueError, match="replicas may differ"):
                train(plan, splits)


def test_each_training_of_a_chain_has_its_own_seconds(tasks: Tasks, tmp_path: Path) -> None:
    """In lockstep, the networks have those of all of them together."""
    [task, _] = tasks(updates=12, step_epochs=1)
    started = time.perf_counter()
    chain, stack = (train_stack(replace(task, is_chain=is_chain), WorkerChannel(tmp_path, 0)) for is_chain in (1, 0))
    total = time.perf_counter() - started
    assert len({one.seconds for one in chain.results}) == 4 and {one.seconds for one in stack.results} == {
        stack.seconds
    }
    for one in chain.results:
        assert one.seconds > sum(epoch.seconds for epoch in one.epochs) > 0
    assert sum(one.seconds for one in chain.results) == pytest.approx(chain.seconds)
    assert total > chain.seconds + stack.seconds


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (4, [4]), (5, [3, 2]), (8, [4, 4]), (9, [3, 3, 3]), (10, [4, 3, 3])]
)
def test_stacks_are_of_nearly_the_same_size(count: int, sizes: list[int]) -> None:
    divided = stacks([TrainConfig(lam=i / 100, order_seed=0) for i in range(count)])
    assert [len(part) for part in divided] == sizes
    assert [position for part in divided for position in part] == list(range(count))


def test_a_sweep_is_divided_by_batch_normalisation() -> None:
    plan = [TrainConfig(batch_norm=bn, seed=seed, order_seed=0) for seed in range(3) for bn in (False, True)]
    assert stacks(plan) == [(0, 2, 4), (1, 3, 5)]


def test_a_replica_of_a_stack_gives_what_it_gives_alone(tasks: Tasks, splits: Splits, tmp_path: Path) -> None:
    [task, _] = tasks(updates=12, dtype="float64", step_epochs=1)
    outcome = train_stack(task, WorkerChannel(tmp_path, 0))
    assert outcome.positions == (0, 1, 2, 3)
    for config, replica in zip(task.configs, outcome.results, strict=True):
        [alone] = train([config], splits, evaluate_untrained=True)
        assert replica.config == config
        for name, array in alone.network.state().items():
            np.testing.assert_allclose(replica.network.state()[name], array, rtol=0, atol=1e-10)
        assert [e.step for e in replica.epochs] == [e.step for e in alone.epochs]
        for mine, its in zip(replica.epochs, alone.epochs, strict=True):
            assert (mine.train.cost, mine.validation.loss) == pytest.approx(
                (its.train.cost, its.validation.loss), abs=1e-10
            )
        assert replica.test is not None
        assert alone.test is not None
        assert replica.test.loss == pytest.approx(alone.test.loss, abs=1e-10)


# --- what travels


def test_a_task_is_small_because_images_stay_where_they_are(tasks: Tasks) -> None:
    for task in tasks():
        assert len(pickle.dumps(task)) < 5000
        assert pickle.loads(pickle.dumps(task)) == task


def test_the_reference_names_the_images_for_any_folder(synthetic: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert ImagesReference.of(synthetic, None).requested is None
    assert ImagesReference.of(synthetic, "synthetic").requested == "synthetic"
    assert ImagesReference.of(synthetic, "data/cifar").requested == str(tmp_path / "data" / "cifar")
    assert ImagesReference.of(synthetic, "~/cifar").requested == str(Path.home() / "cifar")


def test_a_path_that_the_worker_does_not_have_is_replaced_by_its_own_images(
    tasks: Tasks, synthetic: Dataset, tmp_path: Path
) -> None:
    [task, _] = tasks(updates=2)
    images = ImagesReference("/on/the/other/host/only", "synthetic", synthetic.sha256)
    assert len(train_stack(replace(task, images=images), WorkerChannel(tmp_path, 0)).results) == 4


def test_a_path_that_only_another_user_may_see_is_replaced_by_the_own_images(
    synthetic: Dataset, small_split: SplitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def refuse(path: Any, *args: Any, **how: Any) -> os.stat_result:
        if str(path) == str(tmp_path / "cifar"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *args, **how)

    monkeypatch.setattr("os.stat", refuse)  # chmod refuses nothing to the superuser
    images = ImagesReference(str(tmp_path / "cifar"), "synthetic", synthetic.sha256)
    assert len(splits_of(images, small_split).train.labels) == 300


def test_a_worker_with_other_images_is_refused(tasks: Tasks, tmp_path: Path) -> None:
    [task, _] = tasks()
    task = replace(task, images=replace(task.images, sha256="0123456789abcdef"))
    with pytest.raises(DataError, match=r"01234567.*KLCLI_DATA"):
        list(execute([task], ThreadPoolExecutor(1)))


def test_a_worker_with_another_klcli_is_refused(tasks: Tasks) -> None:
    [task, _] = tasks()
    with pytest.raises(ConfigError, match=rf"{klcli.__version__}.*0\.0\.1"):
        list(execute([replace(task, version="0.0.1")], ThreadPoolExecutor(1)))


# --- executing


class FailingExecutor(Executor):
    """Trains nothing; every submission ends as the next of `endings` says."""

    def __init__(self, *endings: BaseException | str) -> None:
        self.endings: Iterator[BaseException | str] = iter(endings)
        self.submitted: list[tuple[int, ...]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        [task, _] = args
        self.submitted.append(task.positions)
        future: Future[Any] = Future()
        ending = next(self.endings)
        if ending == "cancelled":
            future.cancel()
            future.set_running_or_notify_cancel()
        elif isinstance(ending, BaseException):
            future.set_exception(ending)
        else:
            future.set_result(StackOutcome(task.positions, [], 0.0, {}))
        return future


class KilledWorker(Exception):
    """As Dask calls it; known by its name alone."""


DEAD = [BrokenProcessPool("killed"), KilledWorker("killed")]


@pytest.mark.parametrize("dead", DEAD, ids=["processes", "Dask"])
def test_the_stack_of_a_dead_worker_is_trained_again(tasks: Tasks, dead: Exception) -> None:
    executor = FailingExecutor(dead, "done", dead, "done")
    outcomes = list(execute(tasks(), executor))
    assert sorted(outcome.positions for outcome in outcomes) == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert executor.submitted == [(0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 2, 3), (0, 1, 2, 3)]


CURES = ["fewer --jobs", "`dask worker` fewer --nthreads"]


@pytest.mark.parametrize(("dead", "cure"), [*zip(DEAD, CURES, strict=True)], ids=["processes", "Dask"])
def test_the_third_death_over_a_stack_ends_the_study(tasks: Tasks, dead: Exception, cure: str) -> None:
    executor = FailingExecutor(*[dead] * ATTEMPTS)
    with pytest.raises(WorkersLost, match=rf"3 workers died.* networks, give {cure}.*memory") as error:
        list(execute(tasks()[:1], executor))
    assert "\n" not in str(error.value)
    assert len(executor.submitted) == 3


def test_deaths_are_counted_by_stack(tasks: Tasks) -> None:
    dead = BrokenProcessPool("killed")
    executor = FailingExecutor(dead, dead, dead, dead, "done", "done")
    assert len(list(execute(tasks(), executor))) == 2


def test_a_scheduler_that_goes_away_is_named(tasks: Tasks) -> None:
    with pytest.raises(WorkersLost, match="scheduler has ended"):
        list(execute(tasks(), FailingExecutor("cancelled", "done")))


def test_a_defect_in_a_worker_is_raised(tasks: Tasks) -> None:
    executor = FailingExecutor(RuntimeError("a defect"), "done")
    with pytest.raises(RuntimeError, match="a defect"):
        list(execute(tasks(), executor))
    assert len(executor.submitted) == 2


def test_a_stack_that_is_done_is_yielded_before_the_defect_of_another(tasks: Tasks) -> None:
    """Whichever future of a set comes first: it is in no order."""
    failing = [RuntimeError("a defect"), "cancelled", BrokenProcessPool("killed")]
    for endings in [[one, "done"] for one in failing] + [["done", one] for one in failing]:
        outcomes = execute(tasks(), FailingExecutor(*endings, *failing))
        assert next(outcomes).positions == tasks()[endings.index("done")].positions
        with pytest.raises((RuntimeError, WorkersLost)):
            next(outcomes)


class HandingOver(ThreadPoolExecutor):
    """Trains nothing; a worker hands over one state, and its training ends once the parent has it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.taken = threading.Semaphore(0)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        task, channel = args

        def work() -> StackOutcome:
            network = build(6, [4], 3, initializer=partial(he, rng=np.random.default_rng(0)))
            channel.put_result(TrainResult(task.configs[0], network))
            assert self.taken.acquire(timeout=60)
            return StackOutcome(task.positions, [], 0.0, {})

        return super().submit(work)


def test_a_state_that_was_handed_over_is_dropped_with_the_end_of_its_training(tasks: Tasks) -> None:
    """One of the preset quick takes 15 MB, and a study can have hundreds."""
    executor, arrays = HandingOver(), list[Any]()

    def on_result(index: int, result: TrainResult) -> None:
        if index == 0:
            arrays.extend(map(weakref.ref, result.network.state().values()))
        executor.taken.release()

    outcomes = execute(tasks(), executor, on_result=on_result)
    assert next(outcomes).positions == (0, 1, 2, 3)
    assert len(arrays) == 4  # W and b of two layers
    assert [array() is None for array in arrays] == [True] * 4
    assert len(list(outcomes)) == 1


def test_outcomes_come_with_progress_and_leave_nothing_behind(tasks: Tasks, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(execution, "PERIOD", 0.0)
    monkeypatch.setattr(execution, "POLL_SECONDS", 0.01)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    heard: list[tuple[int, int, float]] = []
    outcomes = list(execute(tasks(updates=60), ThreadPoolExecutor(1), on_progress=lambda *news: heard.append(news)))
    assert [outcome.positions for outcome in outcomes] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    for index in (0, 1):
        steps = [step for i, step, _ in heard if i == index]
        assert steps == sorted(steps)
        assert max(steps) > 0
    best = max(epoch.validation.accuracy for result in outcomes[0].results for epoch in result.epochs)
    assert 0 < max(value for index, _, value in heard if index == 0) <= best
    assert list(tmp_path.iterdir()) == []


def test_what_check_raises_stops_the_training(tasks: Tasks, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(execution, "PERIOD", 0.0)
    monkeypatch.setattr(execution, "POLL_SECONDS", 0.01)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    executor, begun = ThreadPoolExecutor(1), threading.Event()

    def check() -> None:
        if begun.is_set():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        endless = tasks(updates=1_000_000, evaluations_per_cycle=0)
        list(execute(endless, executor, check=check, on_progress=lambda index, step, best: step and begun.set()))
    executor.shutdown(wait=True)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_is_late_for_the_stop_still_stops(tasks: Tasks, tmp_path: Path, monkeypatch: Any) -> None:
    """An evaluation may last longer than the parent waits; then the folder with the stop in it is gone."""
    monkeypatch.setattr(execution, "wait", _impatient(execution.wait))
    executor = ThreadPoolExecutor(1)
    heard: list[int] = []

    def check() -> None:
        if heard and heard[-1] > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(
            execute(
                tasks(updates=1_000_000, evaluations_per_cycle=0)[:1],
                executor,
                check=check,
                on_progress=lambda index, step, best: heard.append(step),
            )
        )
    executor.shutdown(wait=True)


def _impatient(wait: Callable[..., Any]) -> Callable[..., Any]:
    """The last wait, which is for workers to stop, as if its time were over at once."""

    def impatient(futures: Any, timeout: float, **more: Any) -> Any:
        return wait(futures, timeout=timeout, **more) if more else None

    return impatient


def test_a_stack_that_is_done_is_yielded_before_check_is_called(tasks: Tasks) -> None:
    """What has been trained when Ctrl-C comes is recorded."""
    asked = threading.Event()

    def check() -> None:
        asked.set()
        raise KeyboardInterrupt

    outcomes = execute(tasks(), FailingExecutor("done", "done"), check=check)
    assert sorted([next(outcomes).positions, next(outcomes).positions]) == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert not asked.is_set()
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)
