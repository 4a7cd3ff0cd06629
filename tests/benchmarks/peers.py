"""klcli against PyTorch, JAX, scikit-learn and the bare matrix products: `python -m tests.benchmarks.peers`.

All contestants run in one process tree, in turn, round by round, so that what slows the machine down
slows all of them; quoted are medians over the rounds, ratios first.
"""

import argparse
import contextlib
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import klcli  # noqa: F401  (pins BLAS threads before NumPy loads)
from tests.benchmarks.contestants import CONTESTANTS, CORES
from tests.benchmarks.networks import LAMBDAS, UPDATES, Race, races
from tests.benchmarks.search_contestants import search_contestants

SAMPLE_SECONDS = 0.05  # between two looks at the memory of a process


def main() -> None:
    """Run the races that the arguments name and write what they showed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds after one warm-up (default 5)")
    parser.add_argument("--updates", type=int, default=UPDATES, help=f"updates per round (default {UPDATES}, an epoch)")
    parser.add_argument("--only", nargs="*", help="names of networks, or `search`, or `process`; default: all")
    parser.add_argument("--output", type=Path, help="write NAME.md, NAME.json and NAME.png")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "networks": {}, "rounds": arguments.rounds}

    def wanted(name: str) -> bool:
        return not arguments.only or name in arguments.only

    available = races()
    for race in available:
        if wanted(race.name):
            makers = {kind.name: kind for kind in CONTESTANTS}
            result["networks"][race.name] = run(
                race, makers, lambda made: made.updates(arguments.updates), arguments.rounds, arguments.updates
            )
    if wanted("search"):
        makers = {getattr(kind, "name", str(kind)): kind for kind in search_contestants()}
        result["search"] = run(available[0], makers, lambda made: made.epoch(), arguments.rounds, UPDATES, len(LAMBDAS))
    if wanted("process"):
        result["process"] = processes()
    text = report(result)
    print(text)
    if arguments.output:
        arguments.output.with_suffix(".md").write_text(text)
        arguments.output.with_suffix(".json").write_text(json.dumps(result, indent=2))
        draw(result, arguments.output.with_suffix(".png"))


def run(
    race: Race,
    makers: dict[str, Callable[[Race], Any]],
    lap: Callable[[Any], None],
    rounds: int,
    updates: int,
    networks: int = 1,
) -> dict[str, Any]:
    """Race the contestants and return microseconds per update and network of every counted round."""
    contestants, missing = {}, {}
    for name, maker in makers.items():
        try:
            made = maker(race)
            lap(made)  # the warm-up: caches, compilers, threads
        except ImportError as error:
            missing[name] = str(error).splitlines()[0]
        except Exception as error:  # a compiler that is not there, for instance: say it and go on
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        else:
            contestants[getattr(made, "name", name)] = made
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, made in contestants.items():
            gc.collect()
            started = time.perf_counter()
            lap(made)
            times[name].append((time.perf_counter() - started) / updates / networks * 1e6)
        print(f"{race.name}: round {number + 1} of {rounds}", file=sys.stderr)
    for made in contestants.values():
        getattr(made, "close", lambda: None)()
    return {"times": times, "missing": missing, "network": race.name}


def processes() -> dict[str, Any]:
    """Measure whole processes: peak memory of a training, and the time from Enter to the first epoch."""
    environment = os.environ | {"KLCLI_DB": "/tmp/klcli-benchmark/klcli.db"}
    commands = {
        "klcli": [sys.executable, "-m", "klcli", "train", "--bn", "--epochs", "1", "--quiet"],
        "PyTorch": [sys.executable, "-m", "tests.benchmarks.torch_script"],
    }
    measured = {}
    for name, command in commands.items():
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
        started = time.perf_counter()
        with psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            peak = 0.0
            while process.poll() is None:
                peak = max(peak, megabytes(process))
                time.sleep(SAMPLE_SECONDS)
        if process.returncode == 0:
            measured[name] = {"seconds": time.perf_counter() - started, "megabytes": peak}
    command = [sys.executable, "-m", "tests.benchmarks.first_update"]
    waits = []
    for _ in range(6):
        started = time.time()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        waits.append(float(done.stdout) - started)
    measured["first update"] = {"seconds": statistics.median(waits[1:])}  # the first one found a cold disk
    return measured


def megabytes(process: psutil.Process) -> float:
    """Return the memory of a process and its children; what several share counts once."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += one.memory_full_info().pss / 1e6
    return total


def machine() -> dict[str, Any]:
    """Say on what this was measured."""
    import numpy as np
    import threadpoolctl

    versions = {"python": platform.python_version(), "numpy": np.__version__}
    for name in ("torch", "jax", "sklearn"):
        try:
            versions[name] = __import__(name).__version__
        except ImportError:
            continue
    blas = next((pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"), {})
    return {"cores": CORES, "processor": _processor(), "blas": blas.get("architecture"), "versions": versions}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def report(result: dict[str, Any]) -> str:
    """Return the tables as Markdown: ratios first, absolute times second."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        "# klcli against its peers",
        "",
        f"{machine['cores']} cores of {machine['processor']}, BLAS kernels for {machine['blas']}, {versions}. "
        f"Medians of {result['rounds']} interleaved rounds after a warm-up; the ratios too, each within a round.",
    ]
    for title, section, ours in sections(result):
        relative = ratios(section["times"], ours)
        lines += ["", f"## {title}", "", "| | time / klcli's | us per update | from | to |", "|---|---|---|---|---|"]
        for name, times in section["times"].items():
            row = (f"{relative[name]:.2f}", f"{statistics.median(times):.0f}", f"{min(times):.0f}", f"{max(times):.0f}")
            lines.append(f"| {name} | " + " | ".join(row) + " |")
        lines += [f"| {name} | left out: {why} | | | |" for name, why in section["missing"].items()]
    if "process" in result:
        lines += ["", "## One epoch of the 3-layer BN network as a whole process", ""]
        lines += ["| | seconds | peak MB |", "|---|---|---|"]
        wholes = {name: m for name, m in result["process"].items() if "megabytes" in m}
        lines += [f"| {name} | {m['seconds']:.1f} | {m['megabytes']:.0f} |" for name, m in wholes.items()]
        first = result["process"]["first update"]["seconds"]
        lines += ["", f"From Enter to the first update of `klcli train --bn`, the images in the cache: {first:.2f} s."]
    lines += ["", "Made by `python -m tests.benchmarks.peers --output results/benchmarks`.", ""]
    return "\n".join(lines)


def sections(result: dict[str, Any]) -> list[tuple[str, dict[str, Any], str]]:
    """Return every race as its title, its times and the name of the contestant that is 1."""
    found = [(name, section, "klcli") for name, section in result["networks"].items()]
    if "search" in result:
        found.append((f"{len(LAMBDAS)} lambdas, per network", result["search"], f"klcli, {CORES} processes"))
    return found


def ratios(times: dict[str, list[float]], ours: str) -> dict[str, float]:
    """Return the median over the rounds of every contestant's time over ours in the same round."""
    return {
        name: statistics.median(a / b for a, b in zip(theirs, times[ours], strict=True))
        for name, theirs in times.items()
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the times relative to klcli's as bars."""
    from matplotlib.figure import Figure

    shown = sections(result)
    figure = Figure(figsize=(9, 1 + 2.1 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, (title, section, ours) in zip(panels, shown, strict=True):
        relative = ratios(section["times"], ours)
        colours = [colour(name) for name in relative]
        bars = axes.barh(list(relative), list(relative.values()), color=colours)
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.invert_yaxis()
        axes.set_title(f"{title}: time per update, {ours} = 1", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
    figure.savefig(path, dpi=110)


def colour(name: str) -> str:
    """Blue is klcli, grey the floor, orange the others."""
    return "#0072B2" if name.startswith("klcli") else "#999999" if name.startswith("floor") else "#E69F00"


if __name__ == "__main__":
    main()
