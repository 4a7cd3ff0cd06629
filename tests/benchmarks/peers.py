"""klcli against PyTorch, JAX, scikit-learn and the bare matrix products: `python -m tests.benchmarks.peers`.

All contestants run in one process tree, in turn, round by round, so that what slows the machine down slows all of
them; each round begins with another one. Quoted are medians over the rounds, ratios first. On a machine that is not
quiet, the threads of PyTorch wait for each other, ten times as long as they compute and more.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from klcli import compiled  # klcli pins the threads of BLAS before NumPy loads
from klcli.compiled.blas import numpys_blas
from tests.benchmarks.contestants import CONTESTANTS, CORES, Klcli, KlcliOneCore, TorchCompiled
from tests.benchmarks.networks import Race, races
from tests.benchmarks.search_contestants import SEARCH_CONTESTANTS

SAMPLE_SECONDS = 0.05  # between two looks at the memory of a process


def main() -> None:
    """Run the races that the arguments name and write what they showed."""
    load = os.getloadavg()[0]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds after one warm-up (default 5)")
    parser.add_argument("--updates", type=int, help="per round, at most 450 (default: 20 to 450, by network)")
    parser.add_argument("--only", help="parts of names, as 3-layer,9-layer,512,best,search,process; default: all")
    parser.add_argument("--compiled", action="store_true", help="race against torch.compile too")
    parser.add_argument("--output", type=Path, help="write NAME.md, NAME.json and NAME.png")
    arguments = parser.parse_args()
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"machine": machine() | {"load": load}, "networks": {}, "rounds": arguments.rounds}

    def wanted(name: str) -> bool:
        return not arguments.only or any(part in name for part in arguments.only.split(","))

    for race in races():
        if wanted(race.name):
            kinds = [kind for kind in contestants_of(race) if kind is not TorchCompiled or arguments.compiled]
            result["networks"][race.name] = run(race, kinds, arguments.rounds, arguments.updates or race.updates)
    if wanted("process"):
        result["process"] = processes()
    text = report(result)
    print(text)
    if arguments.output:
        arguments.output.with_suffix(".md").write_text(text)
        arguments.output.with_suffix(".json").write_text(json.dumps(result, indent=2))
        if result["networks"]:
            draw(result, arguments.output.with_suffix(".png"))


def contestants_of(race: Race) -> Sequence[Callable[[Race], Any]]:
    """Return the contestants of a race: klcli alone trains the preset, which no peer does in the same way."""
    if race.networks > 1:
        return SEARCH_CONTESTANTS
    return (Klcli, KlcliOneCore) if race.config.preset else CONTESTANTS


def run(race: Race, kinds: Sequence[Callable[[Race], Any]], rounds: int, updates: int) -> dict[str, Any]:
    """Race the contestants and return microseconds per update and network of every counted round."""
    contestants, missing = {}, {}
    for kind in kinds:
        name: str = kind.name  # type: ignore[attr-defined]
        try:
            made = kind(race)
            made.updates(updates)  # the warm-up: caches, compilers, threads
        except ImportError as error:
            missing[name] = str(error).splitlines()[0]
        except Exception as error:  # a compiler that is not there, for instance: say it and go on
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        else:
            contestants[name] = made
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        first = number % len(contestants)  # another one in each round
        for name in [*contestants][first:] + [*contestants][:first]:
            gc.collect()
            getattr(contestants[name], "wake", lambda: None)()
            started = time.perf_counter()
            contestants[name].updates(updates)
            times[name].append((time.perf_counter() - started) / updates / race.networks * 1e6)
        print(f"{race.name}: round {number + 1} of {rounds}", file=sys.stderr)
    for made in contestants.values():
        getattr(made, "close", lambda: None)()
    return {"times": times, "missing": missing}


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
            whole = own = 0.0
            while process.poll() is None:
                with contextlib.suppress(psutil.Error):
                    memory = process.memory_info()
                    whole, own = max(whole, memory.rss), max(own, memory.rss - memory.shared)
                time.sleep(SAMPLE_SECONDS)
        if process.returncode == 0:
            seconds = time.perf_counter() - started
            measured[name] = {"seconds": seconds, "megabytes": whole / 1e6, "own megabytes": own / 1e6}
    command = [sys.executable, "-m", "tests.benchmarks.first_update"]
    waits = []
    for _ in range(6):
        started = time.time()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        waits.append(float(done.stdout) - started)
    measured["first update"] = {"seconds": statistics.median(waits[1:])}  # the first one found a cold disk
    return measured


def machine() -> dict[str, Any]:
    """Say on what this was measured."""
    versions = {"python": platform.python_version()}
    for name in ("numpy", "numba", "torch", "jax", "sklearn"):
        try:
            versions[name] = __import__(name).__version__
        except ImportError:
            continue
    blas = next(iter(numpys_blas()), {})
    words = {"processor": _processor(), "caches": _caches(), "blas": blas.get("architecture")}
    return {"cores": CORES, **words, "why plain NumPy": compiled.why_not(), "versions": versions}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _caches() -> str:
    """Return the caches of the first core, as `L2 1024K of core 0`."""
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, *words = ((folder / n).read_text().strip() for n in ("type", "level", "size", "shared_cpu_list"))
        if kind != "Instruction":
            found.append("L{} {} of core {}".format(*words))
    return ", ".join(found) or "caches unknown"


def report(result: dict[str, Any]) -> str:
    """Return the tables as Markdown: ratios first, absolute times second."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        "# klcli against its peers",
        "",
        f"{machine['cores']} cores of {machine['processor']}, {machine['caches']}, load before the start "
        f"{machine['load']:.2f}, BLAS kernels for {machine['blas']}, {versions}. "
        + (f"klcli computed in plain NumPy: {machine['why plain NumPy']}. " if machine["why plain NumPy"] else "")
        + f"Medians of {result['rounds']} interleaved rounds after a warm-up; the ratios too, each within a round.",
    ]
    for title, section in result["networks"].items():
        relative = ratios(section["times"])
        lines += ["", f"## {title}", "", "| | time / klcli's | us per update | from | to |", "|---|---|---|---|---|"]
        for name, times in section["times"].items():
            row = (f"{relative[name]:.2f}", f"{statistics.median(times):.0f}", f"{min(times):.0f}", f"{max(times):.0f}")
            lines.append(f"| {name} | " + " | ".join(row) + " |")
        lines += [f"| {name} | left out: {why} | | | |" for name, why in section["missing"].items()]
    if "process" in result:
        lines += ["", "## One epoch of the 3-layer BN network as a whole process", ""]
        lines += ["| | seconds | peak MB | of them not pages of files |", "|---|---|---|---|"]
        wholes = {name: m for name, m in result["process"].items() if "megabytes" in m}
        lines += [
            f"| {name} | {m['seconds']:.1f} | {m['megabytes']:.0f} | {m['own megabytes']:.0f} |"
            for name, m in wholes.items()
        ]
        first = result["process"]["first update"]["seconds"]
        lines += ["", f"From Enter to the first update of `klcli train --bn`, the images in the cache: {first:.2f} s."]
    lines += ["", "Made by `python -m tests.benchmarks.peers --output results/benchmarks`.", ""]
    return "\n".join(lines)


def ratios(times: dict[str, list[float]]) -> dict[str, float]:
    """Return the median over the rounds of every contestant's time over klcli's in the same round."""
    ours = next(name for name in times if name.startswith("klcli"))
    return {
        name: statistics.median(a / b for a, b in zip(theirs, times[ours], strict=True))
        for name, theirs in times.items()
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the times relative to klcli's as bars."""
    from matplotlib.figure import Figure

    shown = result["networks"]
    figure = Figure(figsize=(9, 1 + 2.1 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, (title, section) in zip(panels, shown.items(), strict=True):
        relative = ratios(section["times"])
        colours = [colour(name) for name in relative]
        bars = axes.barh(list(relative), list(relative.values()), color=colours)
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.invert_yaxis()
        axes.set_title(f"{title}: time per update, klcli = 1", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
    figure.savefig(path, dpi=110)


def colour(name: str) -> str:
    """Blue is klcli, grey the floor, orange the others."""
    return "#0072B2" if name.startswith("klcli") else "#999999" if name.startswith("floor") else "#E69F00"


if __name__ == "__main__":
    main()
