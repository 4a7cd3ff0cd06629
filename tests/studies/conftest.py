"""Shared fixtures of the execution tests: the synthetic images for many processes, and stacks to train on them."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from dask_cluster import Cluster, cluster

from klcli.data.dataset import Dataset, Splits, split
from klcli.data.sources import open_dataset
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.studies.execution import ImagesReference, StackTask, stacks

Tasks = Callable[..., list[StackTask]]

LAMBDAS = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)


@pytest.fixture(scope="session")
def synthetic(shared_cache: Path) -> Iterator[Dataset]:
    """The built-in images, in the cache that processes started in the meantime share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KLCLI_CACHE", str(shared_cache))
        patch.delenv("KLCLI_DATA", raising=False)
        yield open_dataset("synthetic")


@pytest.fixture(scope="session")
def small_split() -> SplitConfig:
    return SplitConfig(subset=300)


@pytest.fixture(scope="session")
def splits(synthetic: Dataset, small_split: SplitConfig) -> Splits:
    return split(synthetic, small_split)


@pytest.fixture(scope="session")
def tasks(synthetic: Dataset, small_split: SplitConfig) -> Tasks:
    """Two stacks of four lambdas, or other plans; `updates` says how long they take."""

    def make(lambdas: Sequence[float] = LAMBDAS, updates: int = 12, **settings: object) -> list[StackTask]:
        base = TrainConfig(hidden=(20,), batch_norm=True, split=small_split, order_seed=0)
        base = TrainConfig(**{**base.__dict__, "step_size": updates // 2, "cycles": 1, **settings})
        plan = [TrainConfig(**{**base.__dict__, "lam": lam}) for lam in lambdas]
        images = ImagesReference.of(synthetic, "synthetic")
        return [StackTask(part, tuple(plan[p] for p in part), images, True, 1) for part in stacks(plan)]

    return make


@pytest.fixture(scope="session")
def dask(synthetic: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("dask"), os.environ) as running:
        yield running
