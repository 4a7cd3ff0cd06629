"""Damaged databases and checkpoints: refused with exit 4 and one line, or what was stored."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sabotage import Plan, sabotage
from stored import TRAIN, outcome, run_of
from trials import TIMEOUT, Trials
from warm import Laboratory

from klcli.cli.app import main
from klcli.errors import StoreError
from klcli.store.records import Order, RunFilter
from klcli.store.store import Store

PAGE = 4096
SEED_OF_THE_SAMPLE = 10**6
RESUMED = 8  # every eighth damage is also resumed from

pytestmark = [pytest.mark.timeout(TIMEOUT), pytest.mark.slow]


@pytest.fixture
def sample(lab: Laboratory, whole: Path, tmp_path: Path) -> Path:
    """A folder with a database of complete runs, and one that crashed after some epochs."""
    folder = tmp_path / "sample"
    db = str(folder / "klcli.db")
    crash = Plan(str(folder), 64)
    lab.run(*TRAIN, "--db", db, prepare=(sabotage, crash))
    for seed in ("1", "2"):
        assert lab.run(*TRAIN, "--seed", seed, "--epochs", "6", "--db", db).code == 0
    search = lab.run("search-lambda", *TRAIN[1:], "--trials", "4", "--jobs", "1", "--step-epochs", "1", "--db", db)
    assert search.code == 0, search.stderr
    found = run_of(folder / "klcli.db")
    assert found is not None
    assert found["state"] == "interrupted"
    assert found["epochs_done"] > 2
    assert all((folder / "checkpoints" / f"run-000001{end}.npz").exists() for end in ("", ".previous"))
    return folder


def content(db: Path) -> Any:
    """Every row of runs, epochs and studies, as klcli reads them."""
    store = Store.existing(db)
    try:
        runs = store.runs.query(RunFilter(), Order("id", descending=False))
        return store.studies.all(), runs, [store.runs.metrics(run.id) for run in runs]
    finally:
        store.close()


def flips(rng: np.random.Generator, damaged: bytearray) -> None:
    for _ in range(int(rng.integers(1, 30))):
        damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))


def one_flip(rng: np.random.Generator, damaged: bytearray) -> None:
    damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))


def header(rng: np.random.Generator, damaged: bytearray) -> None:
    length = int(rng.integers(1, 101))
    damaged[:length] = bytes(length)


def header_flips(rng: np.random.Generator, damaged: bytearray) -> None:
    for _ in range(int(rng.integers(1, 5))):
        damaged[int(rng.integers(100))] = int(rng.integers(256))


def page_lost(rng: np.random.Generator, damaged: bytearray) -> None:
    start = PAGE * int(rng.integers(max(1, len(damaged) // PAGE)))
    filler = bytes(PAGE) if rng.random() < 0.5 else rng.bytes(PAGE)
    damaged[start : start + PAGE] = filler[: len(damaged) - start]


def pages_exchanged(rng: np.random.Generator, damaged: bytearray) -> None:
    one, other = (PAGE * int(rng.integers(max(1, len(damaged) // PAGE))) for _ in range(2))
    damaged[one : one + PAGE], damaged[other : other + PAGE] = damaged[other : other + PAGE], damaged[one : one + PAGE]


def truncated(rng: np.random.Generator, damaged: bytearray) -> None:
    del damaged[int(rng.integers(len(damaged))) :]


def lengthened(rng: np.random.Generator, damaged: bytearray) -> None:
    damaged += rng.bytes(int(rng.integers(1, 3 * PAGE)))


DAMAGES = (flips, one_flip, header, header_flips, page_lost, pages_exchanged, truncated, lengthened)


def test_damaged_databases(
    lab: Laboratory,
    row: Callable[[str, str], Trials],
    sample: Path,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trials = row(
        "damaged databases: flips, zeroed headers, lost and exchanged pages, truncations (`report`, `train --resume`)",
        "exit 4 and one line, or everything as it was stored; no traceback",
    ).planned(24, 1200)
    original = content(sample / "klcli.db")
    bits = outcome(whole)
    silent = 0

    for number, rng in trials:
        kind = DAMAGES[number % len(DAMAGES)]
        name = f"trial {number} ({kind.__name__})"
        folder = tmp_path / "copy"
        shutil.copytree(sample, folder)
        db = folder / "klcli.db"
        damaged = bytearray(db.read_bytes())
        kind(rng, damaged)
        db.write_bytes(damaged)
        is_changed = False
        try:
            is_changed = content(db) != original
            trials.tried["read as something else" if is_changed else "read as it was"] += 1
        except StoreError as error:
            trials.tried["refused"] += 1
            trials.expect("\n" not in str(error), f"{name}: {error}")
        except Exception as error:
            trials.expect(False, f"{name}: {type(error).__name__}: {error}")
        silent += is_changed
        with pytest.raises(SystemExit) as exit_:
            main(["report", "--json", "--db", str(db)])
        out, err = capsys.readouterr()
        _refused_or_answered(trials, name, int(exit_.value.code or 0), out, err)
        if number % RESUMED == number // RESUMED % RESUMED:
            trials.tried["resumed"] += 1
            resumed = lab.run("train", "--resume", "1", "--db", str(db))
            trials.expect("Traceback" not in resumed.stderr, f"{name}: {resumed.stderr[-500:]}")
            trials.expect(resumed.code != 1, f"{name}: resume: {resumed.message}")
            if resumed.code == 0 and not is_changed:
                trials.expect(outcome(db) == bits, f"{name}: resumed to other bits")
        shutil.rmtree(folder)
    trials.remarks.append(
        f"{silent} of {trials.count} were read with another content: a flip inside a stored number or text, "
        "which SQLite keeps no checksum of"
    )
    assert trials.lost == []


def _refused_or_answered(trials: Trials, name: str, code: int, out: str, err: str) -> None:
    told = [line for line in err.splitlines() if line.startswith("klcli: ")]
    trials.expect("Traceback" not in err, f"{name}: {err[-500:]}")
    trials.expect(code in (0, 4), f"{name}: report exits {code}: {err[-300:]}")
    if code:
        trials.expect(out == "" and len(told) == 1, f"{name}: {out[:100]} {err[-300:]}")
    else:
        json.loads(out)


def test_damaged_checkpoints(
    lab: Laboratory, row: Callable[[str, str], Trials], sample: Path, whole: Path, tmp_path: Path
) -> None:
    trials = row(
        "damaged checkpoints: flips, truncations, lost blocks, removed; the latest, or both (`train --resume`)",
        "the one before is used and said, or the run begins again and says so; the same bits at the end",
    ).planned(16, 800)
    bits = outcome(whole)
    epochs = run_of(sample / "klcli.db")
    assert epochs is not None

    def trial(number: int, rng: np.random.Generator) -> None:
        folder = tmp_path / f"copy {number}"
        shutil.copytree(sample, folder)
        latest, before = (folder / "checkpoints" / f"run-000001{end}.npz" for end in ("", ".previous"))
        both = rng.random() < 0.3
        for file in (latest, before) if both else (latest,):
            damaged = bytearray(file.read_bytes())
            kind = (flips, one_flip, page_lost, truncated, header, None)[int(rng.integers(6))]
            if kind is None:
                file.unlink()
            else:
                kind(rng, damaged)
                file.write_bytes(damaged)
        name = f"trial {number} ({'both' if both else 'latest'})"
        resumed = lab.run("train", "--resume", "1", "--db", str(folder / "klcli.db"))
        trials.expect(resumed.code == 0, f"{name}: exit {resumed.code}: {resumed.stderr[-300:]}")
        if resumed.code == 0:
            trials.expect(outcome(folder / "klcli.db") == bits, f"{name}: other bits")
        after = next(float(line.split()[-1]) for line in resumed.stderr.splitlines() if "continues after" in line)
        lost = epochs["epochs_done"] - after
        said = "the previous checkpoint is used" in resumed.stderr or "begins again" in resumed.stderr
        trials.tried[f"{'both' if both else 'the latest'} damaged: goes on {lost:g} epochs earlier"] += 1
        trials.expect(said == (lost > 0), f"{name}: {lost:g} epochs earlier, and said {said}")
        trials.expect(both or lost <= 1, f"{name}: {lost:g} epochs are trained again")
        shutil.rmtree(folder)

    trials.two_at_a_time(trial)
    assert trials.lost == []
