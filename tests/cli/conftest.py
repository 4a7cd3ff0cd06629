"""Shared fixtures of the command-line tests: one synthetic set for all processes, and queries of the database."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from command import Klcli, Rows, read
from light import LIGHT
from machine import set_machine

from klcli.cli.app import main

Filled = Callable[..., list[Any]]

THREE_RUNS = [
    f"train --data synthetic --subset 200 --epochs {epochs} --lambda {lam} --hidden 20 --bn".split()
    for epochs, lam in (("0", "0.5"), ("2", "0.0001"), ("1", "0"))
]


@pytest.fixture(autouse=True)
def known_machine(known_machine: None) -> None:
    """Every test of a command has it."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Klcli:
    """Like `klcli`, in this process and many times as fast: for tables of cases whose like runs as a process too."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str, **environment: str) -> "CompletedProcess[str]":
        capsys.readouterr()
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as exit_:
            patch.setattr(sys, "argv", ["klcli", *args])  # as a run and a page quote it
            for name, value in environment.items():
                patch.setenv(name, value)
            main(list(args))
        return CompletedProcess(args, int(exit_.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are made and written without a pixel: four fifths of a small training were matplotlib's."""
    stop_drawing(monkeypatch)


def stop_drawing(patch: pytest.MonkeyPatch) -> None:
    for made_by in ("figure.draw", "networks.to_bytes"):
        patch.setattr(f"klcli.report.plots.{made_by}", lambda chart, *form: b"\x89PNG not rendered" + bytes(1000))


@pytest.fixture(scope="session")
def three_runs(fill: Filled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database of three complete runs on the synthetic set."""
    folder = tmp_path_factory.mktemp("three-runs")
    assert fill(folder, THREE_RUNS) == [0, 0, 0]
    return folder / "results"


@pytest.fixture
def trained(three_runs: Path, tmp_path: Path) -> Path:
    """The folder in which `klcli` runs, with the database of `three_runs` in it."""
    shutil.copytree(three_runs, tmp_path / "results")
    return tmp_path


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Read a table of the default database of `klcli`, or of another one."""
    return lambda table, *database: read(tmp_path, f"SELECT * FROM {table}", *database)


@pytest.fixture(scope="session")
def fill(shared_cache: Path) -> Filled:
    """Run commands in one folder, in this process, by default `unrendered`; returns their exit codes."""

    def run(folder: Path, commands: Sequence[Sequence[str]], drawn: bool = False) -> list[Any]:
        codes = []
        with pytest.MonkeyPatch.context() as patch:
            if not drawn:
                stop_drawing(patch)
            patch.chdir(folder)
            set_machine(patch, shared_cache)
            for command in commands:
                patch.setattr(sys, "argv", ["klcli", *command])
                with pytest.raises(SystemExit) as ended:
                    main([*command])
                codes.append(ended.value.code or 0)
        return codes

    return run


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Check that a finished process refused its input as promised; returns its one line."""

    def check(process: "CompletedProcess[str]", code: int, *named: str) -> str:
        assert process.returncode == code, process.stderr
        assert process.stdout == ""
        # On a busy machine, a step before the refusal may have taken so long that it was shown; the first test of a
        # session prepares the synthetic images.
        before = r"[a-z ]+: [\d.]+ s|(reading|preparing the) images.*"
        [line] = [one for one in process.stderr.splitlines() if not re.fullmatch(before, one)]
        assert line.startswith("klcli: ")
        assert "Traceback" not in line
        for text in named:
            assert text in line
        for database in tmp_path.rglob("klcli.db"):
            connection = sqlite3.connect(database)
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone():
                assert connection.execute("SELECT count(*) FROM runs WHERE state = 'running'").fetchone() == (0,)
            connection.close()
        return line

    return check


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start klcli as a terminal does, in a process group of its own; what is left at the end is killed.

    It is the light one, unless another program is named.
    """
    started: list[subprocess.Popen[str]] = []

    def run(
        *args: str, program: Sequence[str] = LIGHT, ignored: tuple[signal.Signals, ...] = (), **environment: str
    ) -> "subprocess.Popen[str]":
        def set_signals() -> None:
            # A shell lets what it starts in the background ignore Ctrl-C, and its children inherit that.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            for signum in ignored:
                signal.signal(signum, signal.SIG_IGN)

        process = subprocess.Popen(
            [*program, *args],
            cwd=tmp_path,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=set_signals,  # noqa: PLW1509
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
