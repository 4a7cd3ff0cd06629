"""Random command lines, valid and invalid: a documented exit code, one line, and a refusal within two seconds."""

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import threadpoolctl
import typer
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from trials import SEED, TIMEOUT, Trials
from warm import Laboratory

from klcli.cli.app import app, main
from klcli.data.cifar10 import fetch
from klcli.errors import ExitCode
from klcli.procedures.study_runner import StudyRunner
from klcli.store.runs import Runs

SECONDS = 2.0  # of a processor and in this thread, so that a busy machine does not count, nor what another one compiles
# A Dask scheduler has ten seconds to answer: that is a promise of its own.
LEFT_OUT = {"--executor", "--install-completion", "--show-completion", "--debug"}

pytestmark = [pytest.mark.timeout(TIMEOUT), pytest.mark.slow]


class Accepted(BaseException):
    """The command line was right: what it asks for is not done."""


def _accept(*args: Any, **named: Any) -> Any:
    raise Accepted


def _options(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """Every command with the names of its options and what they take, from the app itself."""
    if hasattr(command, "commands"):
        for name, sub in command.commands.items():
            yield from _options(sub, (*path, name))
    else:
        names = {
            name: "" if parameter.is_flag else parameter.metavar or "TEXT"
            for parameter in command.params
            if hasattr(parameter, "is_flag")
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        yield path, {name: takes for name, takes in sorted(names.items()) if name not in LEFT_OUT}


COMMANDS = dict(_options(typer.main.get_command(app), ()))
ALL_OPTIONS = sorted({option for options in COMMANDS.values() for option in options})

INTEGERS = st.integers() | st.sampled_from([0, 1, -1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 5, 50, 300])
FLOATS = st.floats() | st.sampled_from([1e-3, 1e400, float("nan"), -0.0, 5e-324])
ODD = [
    "nan",
    "NaN",
    "-nan",
    "inf",
    "-inf",
    "1e999",
    "0x10",
    "1_000",
    "١٢",
    "½",
    "1,2",
    ",",
    ",,",
    "50,30",
    "[50,30]",
    "1e-3",
    "+5",
    "--5",
    "-5",
    "-",
    "--",
    "''",
    '"',
    "\\",
    "%",
    "{}",
    "[/]",
    "*",
    "?",
    "~",
    "~root",
    "/",
    "..",
    "../x",
    "/proc/self/mem",
    "/dev/null",
    "/dev/full",
    "é",
    "ü",
    "ß",
    "İ",
    "ı",
    "𝟓",
    "\u202e\u200b\ufeff",
    "he",
    "xavier",
    "normal",
    "before",
    "after",
    "log",
    "linear",
    "cyclical",
    "constant",
    "float32",
    "float64",
    "float16",
    "sgd",
    "adam",
    "synthetic",
    "cifar10",
    "SYNTHETIC",
    "last",
    "LAST",
    "none",
    "None",
    "true",
    "True",
    "yes",
    "http://[::1",
    "file:///nowhere",
    "https://",
    "x://y",
    "tcp://",
    "a=b",
    "--hidden=5",
    "-H5",
    "-j2",
    "True,",
    "01",
    "1.",
    ".5",
    "e",
    "1e",
    "1e-",
]
WORDS = st.sampled_from([*ODD, "", " ", "\n", "\t", "a b", "\udcff", "\x1b[31m", "x" * 300, "9" * 5000, "/" * 5000])
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=[]), max_size=12)
VALUES = st.one_of(INTEGERS.map(str), FLOATS.map(str), WORDS, TEXTS)
SMALL = st.integers(0, 20).map(str) | INTEGERS.map(str)
FITTING = {  # by the metavar of the option
    "": st.nothing(),
    "N": SMALL,
    "N...": SMALL,
    "WIDTH...": st.integers(1, 60).map(str) | INTEGERS.map(str),
    "X": st.floats(0, 1).map(str) | FLOATS.map(str),
    "X...": st.floats(0, 1).map(str) | FLOATS.map(str),
    "LOW HIGH": st.floats(0, 1).map(str),
    "RUN|last": SMALL | st.just("last"),
}
OTHER = st.sampled_from(["synthetic", "results/klcli.db", "new folder/x.db", "x.db", "cifar10", "out", "1"]) | WORDS


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command, some of its options with values that may fit, and some junk in between."""
    path = draw(st.sampled_from(sorted(COMMANDS)))
    words = []
    for _ in range(draw(st.integers(0, 5))):
        what = draw(st.integers(0, 9))
        if what < 7:
            option = draw(st.sampled_from(sorted(COMMANDS[path])))
            words.append(option)
            takes = COMMANDS[path][option]
            choices = takes.split("|") if "|" in takes and takes.islower() else None
            values = st.sampled_from(choices) if choices else FITTING.get(takes, OTHER)
            count = 0 if not takes else 2 if takes == "LOW HIGH" else draw(st.integers(1, 3)) if "..." in takes else 1
            words += [draw(values) for _ in range(count)]
            if what == 6:
                words += draw(st.lists(VALUES, max_size=2))
        elif what == 7:
            words.append(f"{draw(st.sampled_from(ALL_OPTIONS))}={draw(VALUES)}")
        elif what == 8:
            words.append(draw(st.sampled_from(ALL_OPTIONS)))
        else:
            words.append(draw(VALUES))
    position = draw(st.integers(0, 20))
    return words[:1] + list(path) + words[1:] if position == 0 else [*path, *words]


@pytest.fixture
def stage(tmp_path: Path, lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a small database, where nothing is trained, checked or fetched."""
    done = lab.run("train", "--data", "synthetic", "--subset", "200", "--hidden", "5", "--epochs", "1")
    assert done.code == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Runs, "begin", _accept)
    monkeypatch.setattr(StudyRunner, "run", _accept)
    monkeypatch.setattr(fetch, "fetch", _accept)
    monkeypatch.setattr("klcli.studies.gradient_checks.check_gradients", _accept)
    with threadpoolctl.threadpool_limits(1):
        yield tmp_path


def test_command_lines(row: Callable[[str, str], Trials], stage: Path) -> None:
    trials = row(
        f"command lines of all {len(COMMANDS)} commands from a grammar, with junk, unicode, huge numbers and NaN",
        "exit code of the table, one line, no traceback, refused in under 2 s of a processor, stdout empty",
    ).planned(300, 20_000)
    slowest = 0.0

    @seed(SEED)
    @settings(max_examples=trials.count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(args=command_lines())
    def check(args: list[str]) -> None:
        nonlocal slowest
        trials.tried["trials"] += 1
        started = time.thread_time()
        code, out, err = answer(args)
        seconds = time.thread_time() - started
        told = [line for line in err.splitlines() if line.startswith("klcli: ")]
        trials.expect("Traceback" not in err, f"{args}: {err[-500:]}")
        if code is None:
            trials.tried["right"] += 1
            return
        trials.tried[f"exit {code}"] += 1
        trials.expect(code in {int(known) for known in ExitCode} - {1}, f"{args}: exit {code}: {err[-300:]}")
        if code:
            slowest = max(slowest, seconds)
            trials.expect(out == "", f"{args}: {out[:200]}")
            trials.expect(len(told) == 1, f"{args}: {err[-300:]}")
            trials.expect(seconds < SECONDS, f"{args}: {seconds:.1f} s")

    check()
    trials.remarks.append(
        f"the slowest refusal took {slowest:.2f} s; --executor is left out, because Dask has 10 s to answer"
    )
    assert trials.lost == []


def answer(args: list[str]) -> tuple[int | None, str, str]:
    """The exit code, stdout and stderr of a command line; no code where it would have begun its work."""
    out, err = io.StringIO(), io.StringIO()
    here = Path.cwd()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(args)
        except Accepted:
            return None, out.getvalue(), err.getvalue()
        except SystemExit as leaving:
            return int(leaving.code or 0), out.getvalue(), err.getvalue()
        finally:
            os.chdir(here)
    raise AssertionError("main returned")
