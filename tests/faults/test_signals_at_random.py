"""SIGINT, SIGTERM and both at once at random moments of a training: a state, an exit code, a hint that works."""

import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stored import TRAIN, epochs_of, is_whole, outcome, printed_epochs, run_of
from trials import TIMEOUT, Trials
from warm import Laboratory

from klcli.store.store import Store

KINDS = (
    ("SIGINT", (signal.SIGINT,), 130),
    ("SIGTERM", (signal.SIGTERM,), 143),
    ("SIGINT twice", (signal.SIGINT,) * 2, 130),
)

pytestmark = [pytest.mark.timeout(TIMEOUT), pytest.mark.slow]


def test_signals(lab: Laboratory, row: Callable[[str, str], Trials], whole: Path, tmp_path: Path) -> None:
    trials = row(
        "SIGINT, SIGTERM, SIGINT twice at random moments of `train`",
        "exit 130 or 143, one line, interrupted in the database, and the printed command ends with the same bits",
    ).planned(6, 60)
    expected = outcome(whole)
    usual = run_of(whole)
    assert usual is not None

    def trial(number: int, rng: np.random.Generator) -> None:
        kind, signals, code = KINDS[number % len(KINDS)]
        name = f"trial {number} ({kind})"
        folder = tmp_path / f"läufe {number}"
        folder.mkdir()
        db = folder / "my klcli.db"
        process = lab.start(*TRAIN, "--db", str(db))
        process.wait_for("SYNTHETIC")  # the run is recorded
        moment, pause = float(rng.uniform(0, usual["seconds"])), float(rng.uniform(0, 0.01))
        process.signal_after(moment, *signals, pause=pause)
        process.wait()
        if process.code == 0:
            trials.tried["came too late"] += 1
            trials.expect(outcome(db) == expected, f"{name}: other bits")
            return
        trials.tried[kind] += 1
        trials.expect(process.code == code, f"{name}: exit {process.code}: {process.stderr[-300:]}")
        trials.expect("Traceback" not in process.stderr, f"{name}: {process.stderr}")
        trials.expect(is_whole(db), f"{name}: the database is damaged")
        trials.expect(printed_epochs(process.stderr) <= epochs_of(db), f"{name}: an epoch is lost")
        found = run_of(db)
        assert found is not None
        if found["state"] == "complete":
            return  # it was about to show its results, or to draw its picture
        trials.expect(process.stdout == "", f"{name}: {process.stdout}")
        hint = re.search(r"continue with `(.*)`$", process.message)
        if len(signals) == 1:
            trials.expect(hint is not None and found["state"] == "interrupted", f"{name}: {process.message}")
        elif found["state"] == "running":
            trials.tried["ended at once"] += 1
            Store(db).close()  # whoever opens it next
            found = run_of(db)
            trials.expect(found is not None and found["state"] == "interrupted", f"{name}: left in {found}")
        again = shlex.split(hint[1])[1:] if hint else ["train", "--resume", "last", "--db", str(db)]
        resumed = lab.run(*again)
        trials.expect(resumed.code == 0, f"{name}: {again} ends with {resumed.stderr[-300:]}")
        trials.expect(outcome(db) == expected, f"{name}: other bits")

    trials.two_at_a_time(trial)
    assert trials.lost == []
