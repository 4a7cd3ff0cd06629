"""Trials: the number of repetitions of a row of the table, their seeds, and their losses."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import light
import numpy as np
import pytest

SCALE = os.environ.get("KLCLI_FAULTS", "ci")  # "ci", "full", or a share of the full number: 0.1
TIMEOUT = 280 if SCALE == "ci" else 4 * 3600  # seconds of one test
SEED = int(os.environ.get("KLCLI_FAULTS_SEED", "1"))
# The program of rows that start studies and processes: the small numbers use the light one.
KLCLI = light.LIGHT if SCALE == "ci" else light.KLCLI
# A file that gets one line of JSON per row; a row that is in it in full, without a loss, is not tried again.
RECORD = os.environ.get("KLCLI_FAULTS_RECORD", "")


def number(ci: int, full: int) -> int:
    """How often to try: the small number, the full one, or a share of it that is no smaller than the small one."""
    if SCALE == "ci":
        return ci
    return full if SCALE == "full" else max(ci, round(full * float(SCALE)))


@dataclass
class Trials:
    """The trials of one row of the table."""

    row: str  # what is tried
    holds: str  # what must hold
    count: int = 1
    full: int = 1
    tried: Counter[str] = field(default_factory=Counter)  # what happened, how often
    lost: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    skipped: bool = False  # is in the record already
    _started: float = field(default_factory=time.perf_counter)

    def planned(self, ci: int, full: int) -> "Trials":
        """Try that often. Skips the test if the record has it."""
        self.count, self.full = number(ci, full), full
        known = [json.loads(line) for line in Path(RECORD).read_text(encoding="utf-8").splitlines()] if RECORD else []
        mine = {"row": self.row, "trials": self.count, "full": full, "seed": SEED, "lost": []}
        self.skipped = any(mine.items() <= one.items() for one in known)
        if self.skipped:
            pytest.skip("is in the record")
        return self

    def all(self, cases: Sequence[Any]) -> "Trials":
        """Try every one of these, on every machine."""
        return self.planned(len(cases), len(cases))

    def __iter__(self) -> Iterator[tuple[int, np.random.Generator]]:
        """The number and the random generator of each trial: it can be repeated alone."""
        for index in range(self.count):
            self.tried["trials"] += 1
            yield index, self.rng(index)

    def two_at_a_time(self, trial: Callable[[int, np.random.Generator], None]) -> None:
        """Run every trial, two at a time: they wait for processes most of the time."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: trial(*one), self))

    @staticmethod
    def rng(index: int) -> np.random.Generator:
        """The generator of one trial."""
        return np.random.default_rng([SEED, index])

    def expect(self, holds: bool, what: str) -> None:
        """Keep what was lost, and go on: one loss must not hide the next."""
        if not holds:
            self.lost.append(what)

    def keep(self) -> None:
        """Write the line of this row."""
        if RECORD and not self.skipped:
            line = {
                "row": self.row,
                "holds": self.holds,
                "trials": self.tried.pop("trials", 0),
                "full": self.full,
                "tried": dict(self.tried),
                "lost": self.lost,
                "remarks": self.remarks,
                "seed": SEED,
                "seconds": time.perf_counter() - self._started,
            }
            with Path(RECORD).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
