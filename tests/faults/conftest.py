"""Shared fixtures of the fault harness: the record of a row, warm processes, and one prepared synthetic set."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stored import TRAIN
from trials import Trials
from warm import Laboratory, laboratory


@pytest.fixture(scope="session")
def cache(shared_cache: Path) -> Path:
    return shared_cache


@pytest.fixture(autouse=True)
def known_machine(known_machine: None) -> None:
    """Every test has it."""


@pytest.fixture
def lab(tmp_path: Path, cache: Path) -> Iterator[Laboratory]:
    """Warm processes in the folder of the test."""
    if os.name != "posix":
        pytest.skip("processes are forked here")
    with laboratory(tmp_path, cache) as opened:
        yield opened


@pytest.fixture
def whole(lab: Laboratory, tmp_path: Path) -> Path:
    """The database of an uninterrupted training, after which all images are prepared."""
    done = lab.run(*TRAIN, "--db", str(tmp_path / "whole" / "klcli.db"))
    assert done.code == 0, done.stderr
    return tmp_path / "whole" / "klcli.db"


@pytest.fixture
def row() -> Iterator[Callable[[str, str], Trials]]:
    """A row of the table: what is tried, what must hold. At the end of the test its line is written."""
    rows: list[Trials] = []

    def begin(what: str, holds: str) -> Trials:
        rows.append(Trials(what, holds))
        return rows[-1]

    yield begin
    for trials in rows:
        trials.keep()
