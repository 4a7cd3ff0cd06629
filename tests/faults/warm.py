"""Warm processes: klcli in real processes of its own, forked from one that has imported everything.

They are killed, interrupted and crashed like any other process; only what Python needs to import and build, and the
checksum of the shared images, is paid once, the disk is not waited for, and the picture at the end is not drawn: each
takes longer than the training. Works where processes can be forked.
"""

import contextlib
import functools
import itertools
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from machine import checksums, set_machine

from klcli.data.sources import open_dataset

# Each start asks for the exit codes of all others as well, and an exit code can be read once: two threads that ask
# for the same one at once get it and a 255.
ASKING = threading.Lock()
Preparation = Callable[..., None]  # changes the process before klcli starts: it must be importable by name


@dataclass
class Warm:
    """A klcli that runs or has run."""

    process: ForkServerProcess
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def code(self) -> int | None:
        """The exit code; negative where a signal ended it; None while it runs."""
        with ASKING:
            return self.process.exitcode

    @property
    def stdout(self) -> str:
        return self.out.read_text(encoding="utf-8") if self.out.exists() else ""

    @property
    def stderr(self) -> str:
        return self.err.read_text(encoding="utf-8") if self.err.exists() else ""

    @property
    def message(self) -> str:
        """The line of its failure."""
        return next((line for line in self.stderr.splitlines() if line.startswith("klcli: ")), "")

    def wait(self, seconds: float = 120) -> int:
        """Wait for its end and return the exit code."""
        self.join(seconds)
        if self.code is None:
            self.kill()
            raise TimeoutError(f"klcli runs for more than {seconds} s: {self.stderr[-300:]}")
        return self.code

    def join(self, seconds: float | None = None) -> None:
        """Wait for its end, at most so long."""
        wait([self.process.sentinel], seconds)

    def kill(self) -> None:
        """Send SIGKILL, if it still runs."""
        with ASKING:
            self.process.kill()

    def kill_after(self, seconds: float) -> bool:
        """Send SIGKILL after this time; return whether it still ran."""
        self.join(seconds)
        running = self.code is None
        self.kill()
        self.join()
        return running

    def signal_after(self, seconds: float, *signals: int, pause: float = 0.0) -> None:
        """Send these signals after this time, with a pause before each but the first."""
        self.join(seconds)
        for position, signum in enumerate(signals):
            self.join(pause if position else 0)
            with contextlib.suppress(ProcessLookupError):
                if self.code is None:
                    os.kill(self.pid, signum)

    def wait_for(self, text: str, seconds: float = 60) -> bool:
        """Wait until stderr has this text; return whether it came before the end of the process."""
        deadline = time.monotonic() + seconds
        while text not in self.stderr:
            if self.code is not None or time.monotonic() > deadline:
                return text in self.stderr
            time.sleep(0.005)
        return True


class Laboratory:
    """Starts warm processes in a folder of its own."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.environment = {"KLCLI_CACHE": str(cache), "OPENBLAS_NUM_THREADS": "1"}
        with pytest.MonkeyPatch.context() as patch:
            set_machine(patch, cache)
            open_dataset("synthetic")  # from now on its checksum is known
        self._numbers = itertools.count(1)  # started from several threads
        self._started: list[Warm] = []

    def start(self, *args: str, prepare: tuple[Preparation, Any] | None = None, here: Path | None = None) -> Warm:
        """Start `klcli` with these arguments; stdin is empty, stdout and stderr are files."""
        number = next(self._numbers)
        log = self.folder / "log"
        log.mkdir(exist_ok=True)
        out, err = log / f"{number}.out", log / f"{number}.err"
        work = (list(args), str(here or self.folder), str(out), str(err), self.environment, checksums, prepare)
        process = context().Process(target=_klcli, args=work)
        with ASKING:
            process.start()
        warm = Warm(process, out, err)
        self._started.append(warm)
        return warm

    def run(self, *args: str, prepare: tuple[Preparation, Any] | None = None, here: Path | None = None) -> Warm:
        """Run `klcli` to its end."""
        warm = self.start(*args, prepare=prepare, here=here)
        warm.wait()
        return warm

    def close(self) -> None:
        """End what is still running."""
        for warm in self._started:
            warm.kill()
            warm.join()


@contextlib.contextmanager
def laboratory(folder: Path, cache: Path) -> Iterator[Laboratory]:
    """A laboratory that leaves no process behind."""
    opened = Laboratory(folder, cache)
    try:
        yield opened
    finally:
        opened.close()


@functools.cache
def context() -> Any:
    """Return the context of processes that are forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # it finds no module of the tests otherwise
        forkserver.ensure_running()
    return context


def _klcli(
    args: list[str],
    folder: str,
    out: str,
    err: str,
    environment: dict[str, str],
    known: dict[tuple[int, ...], str],
    prepare: tuple[Preparation, Any] | None,
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    checksums.update(known)
    set_machine(pytest.MonkeyPatch(), Path(environment["KLCLI_CACHE"]))
    for path, number in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1)
    sys.argv = ["klcli", *args]
    import klcli.report.plots.figure
    from klcli.__main__ import main

    klcli.report.plots.figure.draw = lambda chart: b"not drawn"
    if prepare is not None:
        prepare[0](prepare[1])
    main()
