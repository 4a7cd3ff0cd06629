"""A crash, or a full disk, at each write, flush, rename and commit of a training: the previous checkpoint is used."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sabotage import CRASHED, Plan, sabotage
from stored import SHORT, epochs_of, is_whole, leftovers, outcome, printed_epochs, run_of
from trials import TIMEOUT, Trials
from warm import Laboratory, Warm

TRAIN = ("train", *SHORT, "--epochs", "2", "--step-epochs", "1")
Row = Callable[[str, str], Trials]

pytestmark = [pytest.mark.timeout(TIMEOUT), pytest.mark.slow]


@pytest.fixture
def operations(lab: Laboratory, whole: Path, tmp_path: Path) -> list[str]:
    """The operations of an uninterrupted training, whose database is `whole`."""
    journal = tmp_path / "journal"
    (tmp_path / "uninterrupted").mkdir()  # as those of the victims
    plan = Plan(str(tmp_path / "uninterrupted"), journal=str(journal))
    done = lab.run(*TRAIN, "--db", str(tmp_path / "uninterrupted" / "klcli.db"), prepare=(sabotage, plan))
    assert done.code == 0, done.stderr
    names = journal.read_text(encoding="utf-8").split("\n")
    assert {"in the middle of a write", "before a rename", "after a rename", "before a COMMIT"} <= set(names)
    return names


class Victim:
    """A training in a folder of its own, sabotaged and then resumed."""

    def __init__(self, lab: Laboratory, trials: Trials, folder: Path, name: str) -> None:
        folder.mkdir()
        self.lab, self.trials, self.folder, self.name = lab, trials, folder, name
        self.db = folder / "klcli.db"

    def expect(self, holds: bool, what: str) -> None:
        self.trials.expect(holds, f"{self.name}: {what}")

    def sabotaged(self, at: int, disk_is_full: bool) -> Warm:
        """Train, or go on, until operation `at`."""
        stored = self.stored()
        plan = Plan(str(self.folder), at, disk_is_full)
        process = self.lab.run(*self.command(), "--db", str(self.db), prepare=(sabotage, plan))
        self.goes_on(process, stored)
        told = set(printed_epochs(process.stderr))
        self.expect(told <= set(self.stored()), f"of the epochs {told} only {self.stored()} are stored")
        self.expect(not self.db.exists() or is_whole(self.db), "the database is damaged")
        return process

    def goes_on(self, process: Warm, stored: list[float]) -> None:
        """What was stored is not trained again."""
        said = [line for line in process.stderr.splitlines() if "continues after epoch" in line]
        if said:
            after = float(said[0].split()[-1])
            self.expect(after == max(stored, default=0), f"{stored} were stored and it continues after {after:g}")

    def stored(self) -> list[float]:
        return epochs_of(self.db) if run_of(self.db) else []

    def is_complete(self) -> bool:
        found = run_of(self.db)
        return found is not None and found["state"] == "complete"

    def command(self) -> tuple[str, ...]:
        return TRAIN if run_of(self.db) is None else ("train", "--resume", "1")

    def completed(self, expected: object) -> None:
        """Go on to the end, and compare."""
        if not self.is_complete():
            stored = self.stored()
            process = self.lab.run(*self.command(), "--db", str(self.db))
            self.expect(process.code == 0, f"does not go on, exit {process.code}: {process.stderr[-300:]}")
            self.goes_on(process, stored)
        if self.is_complete():
            self.expect(outcome(self.db) == expected, "ends with other bits")
            self.expect(not leftovers(self.db), f"{leftovers(self.db)} stay")


def test_a_crash_at_each_operation(lab: Laboratory, row: Row, operations: list[str], tmp_path: Path) -> None:
    expected = outcome(tmp_path / "uninterrupted" / "klcli.db")
    trials = row(
        "crash at each write, flush, sync, rename and commit of `train`, then `--resume`",
        "the one before is used, no stored epoch is trained again, the same bits at the end",
    ).all(operations)

    def trial(number: int, rng: np.random.Generator) -> None:
        trials.tried[operations[number]] += 1
        victim = Victim(lab, trials, tmp_path / f"crash {number}", f"crash {number} {operations[number]}")
        process = victim.sabotaged(number + 1, disk_is_full=False)
        victim.expect(process.code == CRASHED, f"did not crash: {process.code} {process.stderr[-300:]}")
        victim.completed(expected)

    trials.two_at_a_time(trial)
    assert trials.lost == []


def test_a_full_disk_at_each_operation(lab: Laboratory, row: Row, operations: list[str], tmp_path: Path) -> None:
    expected = outcome(tmp_path / "uninterrupted" / "klcli.db")
    # Some file systems refuse to sync a folder, which therefore fails nothing.
    harmless = ("after a COMMIT", "before a sync of a folder")
    recorded = len(operations) - 1 - operations[::-1].index("after a COMMIT")
    failing = [index for index, name in enumerate(operations) if name not in harmless]
    trials = row(
        '"no space left" at each write, flush, sync, rename and commit of `train`, then `--resume`',
        "exit 4 and one line, no stored epoch is trained again, the same bits at the end; for a picture a warning",
    ).all(failing)

    def trial(number: int, rng: np.random.Generator) -> None:
        index = failing[number]
        trials.tried[operations[index]] += 1
        victim = Victim(lab, trials, tmp_path / f"full {index}", f"full disk {index} {operations[index]}")
        process = victim.sabotaged(index + 1, disk_is_full=True)
        last = process.stderr.splitlines()[-1]
        if index > recorded:  # only the picture is missing
            victim.expect(process.code == 0 and "accuracy" in process.stdout, f"exit {process.code}: {last}")
            victim.expect("run-000001.png" in last and "free some space" in last, last)
            return
        victim.expect(process.code == 4, f"exit {process.code}: {process.stderr[-300:]}")
        victim.expect(process.stdout == "" and last == process.message, process.stderr[-300:])
        found = run_of(victim.db)
        victim.expect(found is None or found["state"] != "running", "the run ends in no state")
        victim.completed(expected)

    trials.two_at_a_time(trial)
    assert trials.lost == []


def test_crashes_one_after_the_other(lab: Laboratory, row: Row, operations: list[str], tmp_path: Path) -> None:
    expected = outcome(tmp_path / "uninterrupted" / "klcli.db")
    trials = row(
        "three crashes, each at a random operation of what the one before has left, then `--resume`",
        "no stored epoch is trained again, the same bits at the end",
    ).planned(5, 200)

    def trial(number: int, rng: np.random.Generator) -> None:
        victim = Victim(lab, trials, tmp_path / f"three {number}", f"three crashes {number}")
        for _ in range(3):
            if not victim.is_complete():
                victim.sabotaged(int(rng.integers(2, len(operations) // 2)), disk_is_full=False)
                trials.tried["crashes"] += 1
        victim.completed(expected)

    trials.two_at_a_time(trial)
    assert trials.lost == []
