"""Whitening: its columns match the definition, and the network after it is the same as without it."""

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg

from klcli.data.dataset import Dataset, Splits, split
from klcli.evaluation.metrics import evaluate
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.training import trainer as training
from klcli.training.networks import initialize, restore
from klcli.training.result import Snapshot
from klcli.training.trainer import Training, train
from klcli.training.whitening import whitening

SPLIT = SplitConfig(validation=200, subset=400)
CONFIG = TrainConfig(
    hidden=(12, 9), batch_norm=True, batch_size=50, step_size=4, cycles=1, order_seed=3, whitening=20,
    whitening_eps=2.0, split=SPLIT,
)  # fmt: skip


@pytest.fixture(scope="module")
def splits(small_dataset: Dataset) -> Splits:
    return split(small_dataset, SPLIT)


@pytest.fixture(scope="module")
def V(splits: Splits) -> np.ndarray:
    return whitening(splits.train, 20, 2.0)


@pytest.fixture
def found_once(V: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training of a test gets the V of the fixture, which takes half a second to find."""
    monkeypatch.setattr(training, "whitening", lambda images, components, eps: V)


@pytest.mark.slow
def test_the_components_are_uncorrelated_and_each_has_its_share_of_variance(splits: Splits, V: np.ndarray) -> None:
    """In float64 through the singular values of images and mirror images, without any covariance."""
    own, _ = splits.train.batch(slice(None), np.float64)
    other = own.reshape(-1, 3, 32, 32)[..., ::-1].reshape(own.shape)
    both = np.concatenate([own, other])
    variances = np.linalg.svd(both, compute_uv=False)[:20] ** 2 / len(both)
    Y = both @ V
    np.testing.assert_allclose(Y.T @ Y / len(Y), np.diag(variances / (variances + 2.0)), atol=2e-4)


@pytest.mark.slow
def test_scipys_blas_has_as_many_threads_as_numpys() -> None:
    """It is another library, loaded after NumPy's has got its number, and by default takes every core."""
    program = """
import numpy as np
from threadpoolctl import threadpool_info
from klcli.data.dataset import Split
from klcli.training.environment import pin_threads
from klcli.training.whitening import whitening

rng = np.random.default_rng(0)
rows = np.arange(20)
split = Split(rng.integers(0, 256, (20, 3072), np.uint8), rows, rows % 10, np.zeros(3072), np.ones(3072), "pixel")
numbers = []
with pin_threads(1):
    import scipy.linalg
    eigh = scipy.linalg.eigh
    scipy.linalg.eigh = lambda *given, **named: numbers.append(threadpool_info()) or eigh(*given, **named)
    whitening(split, 9, 1.0)
print(*[{pool["num_threads"] for pool in found if pool["user_api"] == "blas"} for found in numbers])
"""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "{1} {1}\n"


@pytest.mark.slow
def test_another_lapack_gives_the_same_components(
    splits: Splits, V: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LAPACK may return each eigenvector with the other sign, and other last digits."""
    eigh = scipy.linalg.eigh

    def other(*arguments: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        L, U = eigh(*arguments, **options)
        rng = np.random.default_rng(0)
        return L, U * rng.choice([-1, 1], U.shape[1]) * (1 + 1e-14 * rng.standard_normal(U.shape))

    monkeypatch.setattr(scipy.linalg, "eigh", other)
    np.testing.assert_allclose(whitening(splits.train, 20, 2.0), V, rtol=1e-12)


def test_the_network_behind_it_is_trained_on_the_components(splits: Splits, V: np.ndarray) -> None:
    X, y = splits.train.batch(slice(0, 50), np.float64)
    config = replace(CONFIG, dtype="float64")
    whitened, plain = initialize(config, whitening=V), initialize(config, d_in=20)
    loss, gradients = whitened.gradients(X, y, 0.01)
    expected_loss, expected = plain.gradients(X @ V, y, 0.01)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("found_once")
def test_replicas_share_it_and_each_can_be_restored_alone(splits: Splits, V: np.ndarray) -> None:
    results = train([CONFIG, replace(CONFIG, seed=1)], splits)
    for result in results:
        state = result.network.state()
        np.testing.assert_allclose(state["whitening.V"], V, rtol=1e-5, atol=1e-7)
        assert state["linear1.W"].shape == (20, 12)
        alone = restore(result.config, state)
        stacked = Training([result.config], splits, Snapshot(result.step, state)).stack
        [again] = evaluate(stacked, splits.test, [result.config.lam])
        assert result.test is not None
        assert again.accuracy == result.test.accuracy
        X, _ = splits.test.batch(slice(0, 10))
        np.testing.assert_array_equal(alone.scores(X), result.network.scores(X))


@pytest.mark.usefixtures("found_once")
def test_a_resumed_training_takes_it_from_the_checkpoint(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, half = Training([CONFIG], splits), Training([CONFIG], splits)
    while not whole.finished:
        whole.update()
    monkeypatch.delattr(training, "whitening")
    for _ in range(4):
        half.update()
    state = {name: array.copy() for name, array in half.stack.replica(0).state().items()}
    resumed = Training([CONFIG], splits, Snapshot(4, state))
    while not resumed.finished:
        resumed.update()
    for name, array in whole.stack.replica(0).parameters().items():
        np.testing.assert_array_equal(resumed.stack.replica(0).parameters()[name], array)


@pytest.mark.parametrize("weight_average", [0.0, 0.9])
@pytest.mark.usefixtures("found_once")
def test_a_training_begun_without_compiled_code_ends_with_it(splits: Splits, weight_average: float) -> None:
    """NumPy trains with the V that `whitening` returns, in Fortran order, and a checkpoint keeps that order."""
    config = replace(CONFIG, cycles=2, snapshots=True, weight_average=weight_average, dtype="float64")
    plain = Training([config], splits)
    while not plain.results[0].snapshots:
        plain.update()
    plain.evaluate()
    begun = plain.results[0].snapshot()
    begun = replace(begun, state={name: array.copy(order="K") for name, array in begun.state.items()})
    kept = begun.state["training.whitening.V" if weight_average else "cycle1.whitening.V"]
    assert not kept.flags.c_contiguous
    while not plain.finished:
        plain.update()
    plain.evaluate()
    plain.finish(evaluate_test=True)
    [resumed] = train([config], splits, snapshot=begun)
    [expected], found = [one.ensemble for one in plain.results], resumed.ensemble
    assert found is not None
    assert expected is not None
    assert found.networks == 2
    assert found.validation.loss == pytest.approx(expected.validation.loss, rel=1e-9)
