"""Documents: JSON has every column of the database, under its name and with its value."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from klcli.data.dataset import Dataset
from klcli.report.documents import run_document
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.store import Store
from klcli.training.budget import budget_of
from klcli.training.environment import Environment

PARSED = ("config", "versions")  # objects in JSON, texts in the database


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(bn_statistics="adaptive", bn_position="after"),  # without BN neither means anything
        TrainConfig(hidden=(50, 30), batch_norm=True, bn_statistics="batch", flip=True, shuffle=False, lam=1 / 3),
        TrainConfig(split=SplitConfig(train_batches=(1, 2), validation_batches=(5,)), whitening=9, order_seed=3),
    ],
)
def test_a_run_is_its_row(tmp_path: Path, small_dataset: Dataset, config: TrainConfig) -> None:
    store = Store(tmp_path / "klcli.db")
    budget = budget_of(config, config.split.sizes()[0])
    number = store.runs.begin(config, budget, small_dataset, Environment(1, {"numpy": np.__version__}), "klcli train")
    document = json.loads(json.dumps(run_document(store.runs.get(number))))
    store.close()
    with closing(sqlite3.connect(tmp_path / "klcli.db")) as connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM runs").fetchone())
    assert document == row | {"method": None} | {name: json.loads(row[name]) for name in PARSED}
