"""Power cuts: what was told as done is on the disk, whatever of the rest is lost."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disk import Content, Disk, write
from recording import Operation, record
from stored import OF_THE_MOMENT, SHORT, TRAIN, epochs_of, is_whole, leftovers, outcome, printed_epochs, rows, run_of
from trials import TIMEOUT, Trials
from warm import Laboratory

from klcli.store import checkpoints

SEARCH = ("search-lambda", *SHORT, "--trials", "8", "--step-epochs", "2")
RECORDED = 10  # second cuts for each first one
Row = Callable[[str, str], Trials]

pytestmark = [
    pytest.mark.timeout(TIMEOUT),
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="processes are traced here"),
]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> list[Operation]:
    """The operations of a training."""
    folder = tmp_path_factory.mktemp("power") / "train"
    return record(folder, *TRAIN, "--db", f"{folder}/results/klcli.db", cache=cache)


def cut(operations: Sequence[Operation], rng: np.random.Generator, number: int, folder: Path) -> tuple[str, str]:
    """Cut the power at a random moment; return a name of the kind of cut, and what had been told until then.

    Half of the moments are right behind what separates states: a sync, a change of names, a line that was told.
    """
    at = int(rng.integers(len(operations) + 1) if rng.random() < 0.5 else rng.choice(borders(operations)))
    in_order = number % 2 == 0
    write(Disk(operations[:at]).cut(rng, in_order), folder)
    return f"{'ordered' if in_order else 'reordered'}, operation {at}", text(operations[:at])


def borders(operations: Sequence[Operation]) -> list[int]:
    """The moments behind a sync, a change of names or a line that was told."""
    return [index + 1 for index, one in enumerate(operations) if one.kind not in ("write", "truncate", "create")]


def text(operations: Sequence[Operation]) -> str:
    """What was told by these operations."""
    return b"".join(one.content for one in operations if one.kind == "told").decode()


def states(trials: Trials, name: str, db: Path, told: set[float]) -> list[float]:
    """The epochs that are stored, none that was told being lost."""
    trials.expect(not db.exists() or is_whole(db), f"{name}: the database is damaged")
    stored = epochs_of(db) if run_of(db) else []
    trials.expect(told <= set(stored), f"{name}: epochs {sorted(told - set(stored))} were told and are not stored")
    return stored


def test_at_each_operation(row: Row, train: list[Operation], tmp_path: Path) -> None:
    trials = row(
        "power cut behind each operation of `train` in turn, unsynced writes and names lost",
        "integrity_check ok, no told epoch lost, the checkpoint that the row names is there and whole",
    ).planned(180, 2400)
    moments = [*borders(train), *range(1, len(train) + 1)]  # the small numbers are for the former

    def trial(number: int, rng: np.random.Generator) -> None:
        folder, at = tmp_path / f"trial {number}", moments[number % len(moments)]
        write(Disk(train[:at]).cut(rng, in_order=number % 5 == 0), folder)
        name, db = f"trial {number} (operation {at})", folder / "results" / "klcli.db"
        told = printed_epochs(text(train[:at]))
        states(trials, name, db, set(told))
        found = run_of(db)
        if found is not None and found["checkpoint"]:
            latest = folder / "results" / found["checkpoint"]
            sums = [checkpoints.load(file).sha256 for file in (latest, checkpoints.previous(latest)) if file.exists()]
            trials.expect(found["checkpoint_sha256"] in sums, f"{name}: the latest checkpoint is not there")
            trials.tried["checkpoints"] += 1
        trials.tried["epochs told"] += len(told)
        shutil.rmtree(folder)

    trials.two_at_a_time(trial)
    assert trials.lost == []


def test_of_train(lab: Laboratory, row: Row, train: list[Operation], whole: Path, tmp_path: Path) -> None:
    trials = row(
        "power cut at a random moment of `train`, unsynced writes and names lost in order or out of order, or torn",
        "integrity_check ok, no told epoch lost or trained again, the same bits after `--resume`",
    ).planned(10, 200)
    expected = outcome(whole)
    trials.remarks.append(f"recorded: {len(train)} operations, {syncs(train)} of them syncs")

    def trial(number: int, rng: np.random.Generator) -> None:
        folder = tmp_path / f"trial {number}"
        kind, said = cut(train, rng, number, folder)
        name, db = f"trial {number} ({kind})", folder / "results" / "klcli.db"
        told = set(printed_epochs(said))
        trials.tried["epochs told"] += len(told)
        trials.tried[kind.partition(",")[0]] += 1
        stored = states(trials, name, db, told)
        found = run_of(db)
        if found is None or found["state"] != "complete":
            trials.expect("checkpoint  " not in said, f"{name}: complete was told, and {found} is stored")
            again = TRAIN if found is None else ("train", "--resume", "1")
            process = lab.run(*again, "--db", str(db))
            trials.expect(process.code == 0, f"{name}: exit {process.code}: {process.stderr[-300:]}")
            if process.code:
                return
            after = re.search(r"continues after epoch (\S+)", process.stderr)
            start = float(after[1]) if after else 0
            trials.expect(start == max(stored, default=0), f"{name}: {stored} were stored, goes on after {start:g}")
            trials.tried["resumed"] += found is not None
        trials.expect(outcome(db) == expected, f"{name}: other bits")
        trials.expect(not leftovers(db), f"{name}: {leftovers(db)} stay")
        shutil.rmtree(folder)

    trials.two_at_a_time(trial)
    assert trials.lost == []


def test_of_a_resumed_training(
    lab: Laboratory, row: Row, train: list[Operation], whole: Path, tmp_path: Path, cache: Path
) -> None:
    trials = row(
        "a second power cut, at a random moment of the `train --resume` that follows the first",
        "integrity_check ok, no told epoch lost or trained again, the same bits after the next `--resume`",
    ).planned(6, 80)
    expected = outcome(whole)
    before: Content = {}
    resumed: list[Operation] = []
    first: set[float] = set()

    for number, rng in trials:
        if number % RECORDED == 0:
            folder = tmp_path / f"recorded {number}"
            at = int(rng.choice([one for one in borders(train) if "epoch 2/" in text(train[:one])][:-20]))
            before = Disk(train[:at]).cut(rng, in_order=False)
            write(before, folder)
            db = folder / "results" / "klcli.db"
            resumed = record(folder, "train", "--resume", "1", "--db", str(db), cache=cache)
            first = set(printed_epochs(text(train[:at])))
        folder, at = tmp_path / f"trial {number}", int(rng.choice(borders(resumed)))
        write(Disk(resumed[:at], before).cut(rng, in_order=number % 2 == 0), folder)
        name, db = f"trial {number} (operation {at})", folder / "results" / "klcli.db"
        stored = states(trials, name, db, first | set(printed_epochs(text(resumed[:at]))))
        found = run_of(db)
        if found is not None and found["state"] != "complete":
            process = lab.run("train", "--resume", "1", "--db", str(db))
            trials.expect(process.code == 0, f"{name}: exit {process.code}: {process.stderr[-300:]}")
            after = re.search(r"continues after epoch (\S+)", process.stderr)
            start = float(after[1]) if after else 0
            trials.expect(start == max(stored, default=0), f"{name}: {stored} were stored, goes on after {start:g}")
            trials.tried["resumed"] += 1
        trials.expect(outcome(db) == expected, f"{name}: other bits")
        trials.expect(not leftovers(db), f"{name}: {leftovers(db)} stay")
        shutil.rmtree(folder)
    assert trials.lost == []


def test_of_a_study(lab: Laboratory, row: Row, tmp_path: Path, cache: Path) -> None:
    trials = row(
        "power cut at a random moment of `search-lambda --jobs 2`, in order or out of order, or torn",
        "integrity_check ok, no run lost or trained again that was told as done, the same table after `--resume`",
    ).planned(4, 100)
    recorded = tmp_path / "recorded"
    path = recorded / "results" / "klcli.db"
    operations = record(recorded, *SEARCH, "--jobs", "2", "--db", str(path), cache=cache)
    expected = table(path)
    trials.remarks.append(f"recorded: {len(operations)} operations, {syncs(operations)} of them syncs")

    def trial(number: int, rng: np.random.Generator) -> None:
        folder = tmp_path / f"trial {number}"
        kind, said = cut(operations, rng, number, folder)
        name, db = f"trial {number} ({kind})", folder / "results" / "klcli.db"
        trials.tried[kind.partition(",")[0]] += 1
        states(trials, name, db, set())
        there = run_of(db) is not None
        before = {run["id"]: run for run in rows(db, "SELECT * FROM runs WHERE state = 'complete'")} if there else {}
        done = sum(len(stack) for stack in told_stacks(said))
        trials.tried["runs told as done"] += done
        trials.expect(len(before) >= done, f"{name}: {done} runs were told as done, {len(before)} are")
        process = lab.run(*SEARCH, "--jobs", "1", *(["--resume"] if there else []), "--db", str(db))
        trials.expect(process.code == 0, f"{name}: exit {process.code}: {process.stderr[-300:]}")
        if process.code:
            return
        differing = [(old, new) for old, new in zip(expected, table(db), strict=True) if old != new]
        fields = sorted({key for old, new in differing for key in old if old[key] != new[key]})
        trials.expect(not differing, f"{name}: another table in {fields}")
        after = {run["id"]: run for run in rows(db, "SELECT * FROM runs")}
        again = [run_id for run_id, run in before.items() if after.get(run_id) != run]
        trials.expect(not again, f"{name}: runs {again} were complete and have been trained again")
        for run in after.values():
            trials.expect(outcome(db, run["id"])["weights"] is not None, f"{name}: run {run['id']} has no weights")
        shutil.rmtree(folder)

    trials.two_at_a_time(trial)
    assert trials.lost == []


def syncs(operations: Sequence[Operation]) -> int:
    return sum(one.kind == "sync" for one in operations)


def told_stacks(said: str) -> list[range]:
    """The members of each stack that was told as done: 8 runs in two stacks."""
    return [range(4)] * len(re.findall(r"stack \d+ done \(\d+ of 2\)", said))


def table(db: Path) -> list[dict[str, Any]]:
    """What a study has found, without times and places."""
    found = rows(db, "SELECT * FROM runs ORDER BY study_id, member")
    return [{name: value for name, value in run.items() if name not in OF_THE_MOMENT} for run in found]
