"""The cost of an update against the size of the network: `python -m tests.benchmarks.scale [--output results/scale]`.

Width, depth, minibatch and replicas are varied one at a time around the 3-layer network with batch normalisation.
One thread and two take turns at every point, so that what slows the machine down slows both: first on the machine
as it is, then beside four busy processes. Times are those of an update per network.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from klcli.compiled import open_team  # klcli pins the threads of BLAS before NumPy loads
from klcli.data.dataset import Splits, split
from klcli.data.sources import open_dataset
from klcli.settings.train_config import TrainConfig
from klcli.training.environment import arithmetic
from klcli.training.trainer import Training
from tests.benchmarks.networks import BASE

BLUE, ORANGE = "#0072B2", "#E69F00"
STYLES = {"one core": ("o-", BLUE), "two cores": ("o-", ORANGE)}
STYLES |= {f"{name}, busy": ("o:", colour) for name, (_, colour) in STYLES.items()}
SECONDS, WARM = 0.6, 20  # of one measurement, after as many updates
BUSY = 4  # processes
KEEP_BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100000))"
Point = tuple[float, list[TrainConfig]]  # what is varied, and the members that are trained

PANELS: dict[str, list[Point]] = {
    "width of both hidden layers": [(h, [replace(BASE, hidden=(h, h))]) for h in (10, 25, 50, 100, 200, 400, 800)],
    "hidden layers of 50 units": [(k, [replace(BASE, hidden=(50,) * k)]) for k in (1, 2, 4, 8, 16)],
    "images per update": [(n, [replace(BASE, batch_size=n)]) for n in (10, 25, 50, 100, 250, 500, 1000)],
    "members": [(m, [replace(BASE, seed=seed) for seed in range(m)]) for m in (1, 2, 3, 4, 6, 8)],
}


def main() -> None:
    """Measure every point, print the table and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="part of the title of a panel: width, units, images or members")
    parser.add_argument("--output", type=Path, help="write NAME.json and NAME.png")
    arguments = parser.parse_args()
    splits = split(open_dataset(None), BASE.split)
    result: dict[str, list[dict[str, float]]] = {}
    for title, points in PANELS.items():
        if arguments.only and arguments.only not in title:
            continue
        result[title] = []
        print(f"\n{title:>28}" + "".join(f"{name:>17}" for name in STYLES) + "  us, two / one, busy")
        for value, configs in points:
            times = seconds_of_update(configs, splits, arguments.rounds)
            with busy(BUSY):
                times += seconds_of_update(configs, splits, arguments.rounds)
            times = [1e6 * seconds / len(configs) for seconds in times]
            result[title].append({"value": value} | dict(zip(STYLES, times, strict=True)))
            print(f"{value:>28}" + "".join(f"{one:>17.0f}" for one in times), end="")
            print(f"{times[1] / times[0]:>17.2f}{times[3] / times[2]:>6.2f}", flush=True)
    if arguments.output:
        arguments.output.with_suffix(".json").write_text(json.dumps(result, indent=2))
        draw(result, arguments.output.with_suffix(".png"))
        print(arguments.output.with_suffix(".png"), file=sys.stderr)


def seconds_of_update(configs: list[TrainConfig], splits: Splits, rounds: int) -> list[float]:
    """Return the median time of an update with one thread and with two.

    Each measurement has a team of its own: the helper of another one would still wait for work beside it.
    """
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for own, helper in zip(times, (False, True), strict=True):
            with open_team(BASE.dtype, helper=helper) as team, arithmetic():
                training = Training(configs, splits, team=team)
                for _ in range(WARM):
                    training.update()
                started, updates = time.perf_counter(), 0
                while (now := time.perf_counter()) < started + SECONDS:
                    training.update()
                    updates += 1
            own.append((now - started) / updates)
    return [statistics.median(own) for own in times]


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep as many other processes busy inside the block."""
    started = [subprocess.Popen([sys.executable, "-c", KEEP_BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def draw(result: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw one panel per question."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    panels = figure.subplots(2, 2)
    for axes in panels.flat[len(result) :]:
        axes.remove()
    for axes, (title, points) in zip(panels.flat, result.items(), strict=False):
        for name, (marks, colour) in STYLES.items():
            axes.plot([p["value"] for p in points], [p[name] for p in points], marks, color=colour, label=name, ms=4)
        axes.set_xscale("log", base=2)
        values = [p["value"] for p in points]
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        times = [p[name] for p in points for name in STYLES]
        if max(times) > 4 * min(times):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(title)
        axes.set_ylabel("us per update and network")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(STYLES), frameon=False)
    figure.suptitle("What an update costs: 3-layer network 50-50 with BN, 100 images, one thing varied", fontsize=11)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
