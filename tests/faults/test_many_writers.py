"""Many processes open the same new database at once and commit 50 epochs each."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stored import is_whole, rows
from trials import TIMEOUT, Trials
from warm import context

from klcli.data.dataset import Dataset
from klcli.evaluation.metrics import Metrics
from klcli.settings.train_config import TrainConfig
from klcli.store.store import Store
from klcli.training.budget import budget_of
from klcli.training.environment import Environment
from klcli.training.result import EpochMetrics

EPOCHS = 50

pytestmark = [pytest.mark.timeout(TIMEOUT), pytest.mark.slow]


def write(path: str, go: str, complaint: str) -> None:
    """One writer: waits for the others, then records a run."""
    while not Path(go).exists():
        time.sleep(0.002)
    try:
        config, nothing = TrainConfig(), (np.empty((0, 3072), np.uint8), np.empty(0, np.uint8))
        dataset = Dataset("d", *nothing, (), "s", "", "", None, None)
        store = Store(Path(path))
        run = store.runs.begin(config, budget_of(config, 45_000), dataset, Environment(1, {}), "klcli train")
        for epoch in range(EPOCHS):
            metrics = Metrics(1.0, 1.0, 0.1)
            store.runs.record_epochs(run, EpochMetrics(float(epoch), epoch, 0.1, metrics, metrics, 1.0))
        store.runs.finish(run, "complete", None, 1.0)
    except Exception as error:
        Path(complaint).write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        raise


def test_writers(row: Callable[[str, str], Trials], tmp_path: Path) -> None:
    trials = row(
        f"processes that open the same new database at once and commit {EPOCHS} epochs each",
        "no lock error, exact row count, integrity_check ok",
    ).planned(8, 64)
    path, go = tmp_path / "klcli.db", tmp_path / "go"
    complaints = [tmp_path / f"complaint {index}" for index, _ in trials]
    writers = [context().Process(target=write, args=(str(path), str(go), str(file))) for file in complaints]
    for writer in writers:
        writer.start()
    go.touch()
    for writer in writers:
        writer.join()
    for file in complaints:
        trials.expect(not file.exists(), file.read_text(encoding="utf-8") if file.exists() else "")
    trials.tried["commits"] = len(writers) * (EPOCHS + 2)
    [stored] = rows(path, "SELECT count(*) AS n FROM epochs")
    [complete] = rows(path, "SELECT count(*) AS n FROM runs WHERE state = 'complete' AND epochs_done = ?", EPOCHS - 1)
    trials.expect(stored["n"] == EPOCHS * len(writers), f"{stored['n']} epochs of {EPOCHS * len(writers)}")
    trials.expect(complete["n"] == len(writers), f"{complete['n']} complete runs of {len(writers)}")
    trials.expect(is_whole(path), "the database is damaged")
    assert trials.lost == []
