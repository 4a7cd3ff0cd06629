"""Other languages, time zones, homes, paths and no terminal: real processes, the same results everywhere."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stored import SHORT, outcome
from trials import TIMEOUT, Trials

COMMAND = ("train", *SHORT, "--epochs", "2", "--step-epochs", "1")
PLACES: dict[str, dict[str, str | None]] = {
    "LC_ALL de_DE.UTF-8": {"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8"},
    "LC_ALL tr_TR.UTF-8": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
    "LC_ALL C, ASCII only": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    "TZ Asia/Kathmandu": {"TZ": "Asia/Kathmandu"},
    "TZ Pacific/Kiritimati": {"TZ": "Pacific/Kiritimati"},
    "HOME unset": {"HOME": None, "XDG_CACHE_HOME": None, "KLCLI_CACHE": None, "USER": None, "LOGNAME": None},
    "spaces and umlauts": {},
    "no terminal, no stdin": {"TERM": None, "COLUMNS": "20", "LINES": "2"},
}

pytestmark = [pytest.mark.timeout(TIMEOUT), pytest.mark.slow]


def test_strange_places(row: Callable[[str, str], Trials], tmp_path: Path, cache: Path) -> None:
    trials = row(
        "locale de_DE, tr_TR and C, TZ, HOME unset, paths with spaces and umlauts, no terminal",
        "same weights, metrics and tables as in an ordinary place",
    ).all(["", *PLACES])
    answers: dict[str, object] = {}

    def place(number: int, rng: np.random.Generator) -> None:
        name = ["ordinary", *PLACES][number]
        folder = tmp_path / ("Läufe & Übung 1 – ß ı" if name.startswith("spaces") else str(number))
        folder.mkdir()
        environment = os.environ | {"KLCLI_CACHE": str(cache), "OPENBLAS_NUM_THREADS": "1"}
        for variable, value in PLACES.get(name, {}).items():
            environment.pop(variable, None)
            if value is not None:
                environment[variable] = value
        setsid = ["setsid", "--wait"] if name.startswith("no terminal") and shutil.which("setsid") else []
        done = subprocess.run(
            [*setsid, sys.executable, "-m", "klcli", *COMMAND],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        trials.expect(done.returncode == 0, f"{name}: {done.stderr.decode(errors='replace')[-300:]}")
        if done.returncode:
            return
        words = done.stdout.decode("utf-8", "backslashreplace").replace("|", " ").split()
        digits = [word for word in words if len(word) == len("0.1234") and word[1:2] == "."]
        trials.tried[name] += 1
        answers[name] = (digits, outcome(folder / "results" / "klcli.db"))
        trials.expect(len(digits) == 9, f"{name}: the table shows {digits}")
        trials.expect(not (folder / "~").exists(), f"{name}: a folder called ~")

    place(0, Trials.rng(0))
    trials.two_at_a_time(lambda number, rng: place(number, rng) if number else None)
    for name, answer in answers.items():
        trials.expect(answer == answers["ordinary"], f"{name}: {answer} instead of {answers['ordinary']}")
    installed = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.lower()
    lacking = [name for name in ("de_de", "tr_tr") if name not in installed]
    if lacking:
        trials.remarks.append(
            f"{' and '.join(lacking)} are not installed here: only their names were in the environment"
        )
    assert trials.lost == []
