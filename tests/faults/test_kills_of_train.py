"""SIGKILL at random moments of a training, resumed until it is complete: no reported epoch is lost."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stored import TRAIN, epochs_of, is_whole, leftovers, outcome, printed_epochs, run_of
from trials import TIMEOUT, Trials
from warm import Laboratory

KILLS = 3  # at most, in one trial

pytestmark = [pytest.mark.timeout(TIMEOUT), pytest.mark.slow]


def test_kills(lab: Laboratory, row: Callable[[str, str], Trials], whole: Path, tmp_path: Path) -> None:
    trials = row(
        f"SIGKILL at up to {KILLS} random moments of `train`, resumed until it is done",
        "no finished epoch lost, integrity_check ok, weights and metrics those of the uninterrupted run",
    ).planned(10, 200)
    expected = outcome(whole)
    usual = run_of(whole)
    assert usual is not None
    longest = 2 * usual["seconds"]

    def trial(number: int, rng: np.random.Generator) -> None:
        folder = tmp_path / f"trial {number}"
        folder.mkdir()
        db = folder / "klcli.db"
        told: set[float] = set()
        kills, ended_well = 0, False
        while not ended_well:
            again = ("train", "--resume", "1") if run_of(db) is not None else TRAIN
            process = lab.start(*again, "--db", str(db))
            killed = kills < KILLS and process.kill_after(float(rng.uniform(0, longest)))
            kills += killed
            ended_well = not killed and process.wait() == 0
            told |= set(printed_epochs(process.stderr))
            trials.expect(not db.exists() or is_whole(db), f"trial {number}: the database is damaged")
            found = run_of(db)
            missing = sorted(told - set(epochs_of(db) if found else []))
            trials.expect(not missing, f"trial {number}: epochs {missing} were told and are not stored")
            if found is not None and found["state"] == "complete":
                break  # killed while it drew its picture
            if not killed and not ended_well:
                trials.expect(False, f"trial {number}: {process.message or process.stderr[-300:]}")
                return
        trials.tried["kills"] += kills
        trials.tried["epochs told"] += len(told)
        trials.expect(outcome(db) == expected, f"trial {number}: other bits after {kills} kills")
        trials.expect(not leftovers(db), f"trial {number}: {leftovers(db)} stay")

    trials.two_at_a_time(trial)
    assert trials.lost == []
