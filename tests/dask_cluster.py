"""A real Dask scheduler with two real worker processes on this machine, for the tests of studies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

# Loaded by the scheduler and the nannies: they end with a test run that is killed and cannot tear them down.
WATCH = """
import os, threading, time

def watch():
    while os.getppid() == {parent}:
        time.sleep(1)
    os._exit(1)

threading.Thread(target=watch, daemon=True).start()
"""


@dataclass(frozen=True)
class Cluster:
    """Where the scheduler answers, and the processes that `dask worker` has started."""

    address: str
    nannies: list[subprocess.Popen[bytes]]

    def worker_pids(self) -> list[int]:
        """The processes that train, each below the nanny that would start it again."""
        return [
            child.pid
            for nanny in self.nannies
            for child in psutil.Process(nanny.pid).children()
            if "multiprocessing.spawn" in " ".join(child.cmdline())
        ]


@contextmanager
def cluster(folder: Path, environment: Mapping[str, str], workers: int = 2) -> Iterator[Cluster]:
    """Start the processes and wait until all answer; in the end kill all that is left of them."""
    pytest.importorskip("distributed")
    note = folder / "scheduler.json"
    settings = {"DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "%(message)s", **environment}
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *args],
            cwd=folder,
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(process)
        return process

    watch = folder / "watch.py"
    watch.write_text(WATCH.format(parent=os.getpid()))
    common = ("--scheduler-file", str(note), "--interface", "lo", "--no-dashboard")
    try:
        start("scheduler", "--port", "0", "--preload", str(watch), *common)
        nannies = [start("worker", "--nthreads", "1", "--preload-nanny", str(watch), *common) for _ in range(workers)]
        address = _address(note)
        _wait_for_workers(address, workers)
        yield Cluster(address, nannies)
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _address(note: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError, ValueError):
            return str(json.loads(note.read_text())["address"])
        time.sleep(0.05)
    pytest.fail("the Dask scheduler did not start")


def _wait_for_workers(address: str, workers: int) -> None:
    from distributed import Client

    with Client(address, timeout=60) as client:
        client.wait_for_workers(workers, timeout=60)
