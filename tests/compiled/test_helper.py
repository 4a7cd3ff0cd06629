"""The helper: the same bits with and without it, a polite end, and its place among other threads and processes."""

import ctypes
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thinning import mostly_slow

from klcli import compiled
from klcli.compiled import jit, kernels, narrow, operations
from klcli.compiled.team import Team
from klcli.data.dataset import Dataset, split
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.training.environment import arithmetic
from klcli.training.trainer import Training

DIVISION = SplitConfig(validation=200)


def results(team: Team, m: int, n: int, k: int, d: int, shared: bool, kind: int) -> list[np.ndarray]:
    """A product, its transpose and a step of every kind, from the same numbers each time."""
    rng = np.random.default_rng(0)
    shapes = (1 if shared else m, n, k), (m, n, d), (m, k, d)
    X, G, W = (rng.standard_normal(shape).astype(team.dtype) for shape in shapes)
    memory = [np.ones_like(W), np.ones_like(W)]
    numbers = np.tile(np.array([0.1, 0.9, 0.01, 0.9, 0.99, 1e-8], team.dtype), (m, 1))
    found = [team.forward(X, W), team.backward(G, W)]
    team.step(kind, X, G, W, numbers, *memory)
    return [*found, W, *memory]


@pytest.mark.skipif(not jit.IS_X86, reason="other processors are left as they are")
@pytest.mark.parametrize("helper", [False, True])
def test_numbers_below_the_normal_range_are_0_in_operations_and_nowhere_else(helper: bool) -> None:
    """The moments of units that are never active: with them, a step took 20 times as long on an Intel processor."""
    W, G = np.ones((1, 3072, 50), np.float32), np.zeros((1, 3072, 50), np.float32)
    mean, square = np.full_like(W, 1.2e-38), np.full_like(W, 1e-39)
    numbers = np.array([[0.1, 1, 0, 0.9, 0.99, 1e-8]], np.float32)
    with Team(np.float32, helper=helper) as team:
        team.step(kernels.ADAM, None, G, W, numbers, mean, square)
    assert not mean.any()
    assert not square.any()
    below = np.full(3, 1.2e-38, np.float32) * np.float32(0.9)
    assert (below > 0).all()


@pytest.mark.slow
@settings(max_examples=500)
@given(
    m=st.sampled_from([1, 1, 2, 5]), n=st.integers(1, 130), k=st.integers(1, 700), d=st.integers(1, 130),
    shared=st.booleans(), kind=st.sampled_from([kernels.DESCENT, kernels.NESTEROV, kernels.ADAM]),
    dtype=st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
def test_one_thread_and_two_give_the_same_bits(
    m: int, n: int, k: int, d: int, shared: bool, kind: int, dtype: type
) -> None:
    with Team(dtype) as alone, Team(dtype, helper=True) as helped:
        for one, other in zip(
            results(alone, m, n, k, d, shared, kind), results(helped, m, n, k, d, shared, kind), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@settings(max_examples=500)
@given(data=st.data())
def test_trainings_of_any_kind_have_the_same_bits_with_one_thread_and_two(
    small_dataset: Dataset, data: st.DataObject
) -> None:
    def draw(*values: Any) -> Any:
        return data.draw(st.sampled_from(values))

    batch_norm = draw(False, True)
    config = TrainConfig(
        hidden=tuple(data.draw(st.lists(st.sampled_from([1, 7, 16, 60, 130]), min_size=1, max_size=3))),
        batch_norm=batch_norm, bn_position=draw("before", "after"), dropout=draw(0.0, 0.3),
        optimizer=draw("sgd", "adam"), eta_max=draw(0.001, 0.01), weight_decay=draw(0.0, 0.1), lam=draw(0.0, 0.01),
        flip=draw(False, True), shift=draw(0, 2), mixup=draw(0.0, 0.2), label_smoothing=draw(0.0, 0.1),
        weight_average=draw(0.0, 0.9), standardise=draw("pixel", "image"), dtype=draw("float32", "float64"),
        batch_size=draw(10, 33, 64), epochs=1, order_seed=1, split=DIVISION,
    )  # fmt: skip
    replicas = [replace(config, seed=seed, lam=config.lam / (1 + seed)) for seed in range(draw(1, 1, 3))]
    ends = []
    for helper in (False, True):
        with compiled.open_team(config.dtype, helper=helper) as team, arithmetic():
            training = Training(replicas, split(small_dataset, DIVISION), team=team)
            for _ in range(5):
                training.update()
            averages = training.average.state if training.average else {}
            ends.append([*training.stack.state().values(), *averages.values()])
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_helper_computes_halves() -> None:
    """Without this, the test above could compare one thread with itself."""
    X, W, parts = np.ones((1, 100, 1000), np.float32), np.ones((1, 1000, 60), np.float32), np.zeros((2, 100, 60), "f")
    with Team(np.float32, helper=True) as team:
        row = team.row(kernels.FORWARD, X, None, W, parts, extra=600)
        operations.offer(team._box, operations.OPERATION, row.ctypes.data, 1)
        end = time.monotonic() + 60
        while team._box[operations.DONE] < 2 and time.monotonic() < end:  # a busy machine may give it no core at first
            team._awake.set()
            time.sleep(0.01)
    assert [(part == part[0, 0]).all() and part[0, 0] for part in parts] == [0, 400]


@pytest.mark.parametrize(
    ("m", "n", "k", "d"),
    [(2, 64, 3072, d) for d in (8, 9, 24, 50, 52, 56, 57)] + [(1, 1, 400_000, 9), (2, 60, 500, 70), (1, 31, 3072, 33)],
)
def test_products_and_steps_are_those_of_numpy_in_halves(m: int, n: int, k: int, d: int) -> None:
    """By NumPy's BLAS, and by narrow.py where the product is large, and has 8 to 56 columns."""
    rng = np.random.default_rng(1)
    X, G, W = (rng.standard_normal(shape) for shape in ((m, n, k), (m, n, d), (m, k, d)))
    with Team(np.float64, helper=True) as team:
        parts = team.forward(X, W)
        assert len(parts) == 2
        np.testing.assert_allclose(parts.sum(axis=0), X @ W, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(team.backward(G, W), G @ W.mT, rtol=1e-10, atol=1e-11)
        step = W.copy()
        team.step(kernels.DESCENT, X, G, step, np.tile([0.1, 0.9, 0, 0, 0, 0], (m, 1)))
        np.testing.assert_allclose(step, 0.9 * W - 0.1 * (X.mT @ G), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("d", mostly_slow(range(7, 98), 9))
def test_products_and_steps_in_float32_are_within_its_rounding(d: int) -> None:
    """Each width has machine code of its own, to 96 columns; X and G have rows that no tile divides."""
    m, n, k = 2, 67, 2000
    rng = np.random.default_rng(d)
    X, G, W = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, n, k), (m, n, d), (m, k, d)))
    exact_X, exact_G, exact_W = (array.astype(np.float64) for array in (X, G, W))
    with Team(np.float32, helper=True) as team:
        parts = team.forward(X, W)
        assert abs(parts.sum(axis=0) - exact_X @ exact_W).max() < 2e-3  # of sums of 2000 products, about 200 at most
        team.step(kernels.DESCENT, X, G, W, np.tile(np.array([0.1, 0.9, 0, 0, 0, 0], np.float32), (m, 1)))
    assert abs(W - (0.9 * exact_W - 0.1 * (exact_X.mT @ exact_G))).max() < 5e-5


def test_the_helper_ends_with_its_block_whatever_ends_it() -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), Team(np.float32, helper=True) as team:
        team.forward(np.ones((1, 100, 3072), np.float32), np.ones((1, 3072, 60), np.float32))
        assert threading.active_count() == before + 1
        raise KeyboardInterrupt
    assert threading.active_count() == before
    del team
    gc.collect()


def test_without_a_thread_to_spare_one_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Team(np.float32, helper=True) as team:
        X, W = np.ones((1, 100, 3072), np.float32), np.ones((1, 3072, 60), np.float32)
        assert (team.forward(X, W).sum(axis=0) == 3072).all()


@pytest.mark.slow
def test_an_idle_helper_sleeps() -> None:
    with Team(np.float32, helper=True) as team:
        end = time.monotonic() + 60  # each poll yields the core, for milliseconds if others want it
        while not team._box[operations.ASLEEP] and time.monotonic() < end:
            time.sleep(0.01)
        assert team._box[operations.ASLEEP]
        used = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - used < 0.1
        X, W = np.ones((1, 100, 3072), np.float32), np.ones((1, 3072, 60), np.float32)
        assert (team.forward(X, W).sum(axis=0) == 3072).all()


def test_a_helper_whose_core_is_taken_rests_ever_longer() -> None:
    """Another program takes the core whenever the helper yields it, and meanwhile many jobs are offered."""
    rests: list[float] = []

    class Recorded(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            rests.extend([timeout] if timeout else [])
            return super().wait(timeout)

    def take_the_core() -> None:
        team._box[operations.OFFERS] += 2 * operations.MISSED

    taken = ctypes.CFUNCTYPE(None)(take_the_core)
    team = Team(np.float32, helper=True)
    team._awake = Recorded()
    team._box[operations.YIELD] = ctypes.cast(taken, ctypes.c_void_p).value
    with team:
        end = time.monotonic() + 60  # where the helper gets no core for long, it begins again with the shortest rest
        while 0.08 not in rests and time.monotonic() < end:
            time.sleep(0.01)
        X, W = np.ones((1, 100, 3072), np.float32), np.ones((1, 3072, 60), np.float32)
        assert (team.forward(X, W).sum(axis=0) == 3072).all()
    assert 0.08 in rests
    assert all(rest in (0.01, min(2 * before, 1.0)) for before, rest in pairwise([0, *rests]))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_of_a_process_with_a_helper_computes_alone() -> None:
    program = """
import os, warnings
warnings.simplefilter("ignore")
import numpy as np
from klcli import compiled
with compiled.open_team(np.float32, helper=True) as team:
    X, W = np.ones((1, 100, 3072), np.float32), np.ones((1, 3072, 60), np.float32)
    team.forward(X, W)
    child = os.fork()
    right = all((team.forward(X, W).sum(axis=0) == 3072).all() for _ in range(100))
    if child == 0:
        os._exit(0 if right else 1)
    print(right, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["True", "0"], done.stderr


def test_another_thread_can_import_scipy_while_code_is_loaded() -> None:
    """As for images in Matlab's layout: numba was given a stand-in for SciPy's BLAS, which SciPy found then."""
    program = """
from klcli import compiled
with compiled._light_blas():
    from scipy.linalg import qr_insert
print(qr_insert.__name__, repr(compiled.why_not()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "qr_insert ''\n", done.stderr


@pytest.mark.slow
def test_machine_code_lasts_as_long_as_the_process() -> None:
    """Recorded programs have the addresses of more widths and uses than a cache of 128 keeps."""
    widths = range(8, 97)
    first = [narrow.address(np.dtype(np.float32), 10**6, d, of_step=step) for d in widths for step in (False, True)]
    assert len(first) > 128
    again = [narrow.address(np.dtype(np.float32), 10**6, d, of_step=step) for d in widths for step in (False, True)]
    assert again == first


def load() -> None:
    with compiled.loading:
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork as POSIX has it")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_is_forked_while_a_thread_loads_code_can_load_it() -> None:
    """It inherited the lock of that thread, and waited for it."""
    begun = threading.Event()

    def load_slowly() -> None:
        with compiled.loading:
            begun.set()
            time.sleep(0.2)

    thread = threading.Thread(target=load_slowly)
    thread.start()
    begun.wait()
    child = multiprocessing.get_context("fork").Process(target=load)
    child.start()
    child.join(60)
    child.kill()
    thread.join()
    assert child.exitcode == 0


@pytest.mark.parametrize(
    "wrong", [np.ones((1, 4, 5)), np.ones((1, 5, 4), np.float32).mT], ids=["another precision", "Fortran order"]
)
def test_arrays_that_compiled_code_would_read_wrongly_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="compiled operations take"):
        Team(np.float32).forward(wrong, np.ones((1, 5, 3), np.float32))
