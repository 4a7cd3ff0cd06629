"""The cost of an update against the size of the network: `python -m tests.benchmarks.scale [--output results/scale]`.

Width, depth, minibatch and replicas are varied one at a time around the 3-layer network with batch normalisation.
One core and two take turns at every point, so that what slows the machine down slows both.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from klcli import second_core  # before NumPy loads: it pins the threads of BLAS
from klcli.data.dataset import split
from klcli.data.sources import open_dataset
from klcli.settings.train_config import TrainConfig
from klcli.training.environment import arithmetic
from klcli.training.trainer import Training

BASE = TrainConfig(batch_norm=True, order_seed=0)
ROUNDS = 5
SECONDS = 0.3  # of one measurement
WARM_UP = 1.0  # seconds, until the process on the second core is ready
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
    parser.add_argument("--output", type=Path, help="write NAME.json and NAME.png")
    arguments = parser.parse_args()
    splits = split(open_dataset(None), BASE.split)
    result: dict[str, list[dict[str, float]]] = {}
    for title, points in PANELS.items():
        result[title] = []
        print(f"\n{title:>28}   one core   two cores  (us per update and network)")
        for value, configs in points:
            second_core.use()
            training = Training(configs, splits)
            with arithmetic():
                one, two = microseconds(training.update, len(configs))
            result[title].append({"value": value, "one core": one, "two cores": two})
            print(f"{value:>28} {one:>10.0f} {two:>11.0f}", flush=True)
    if arguments.output:
        arguments.output.with_suffix(".json").write_text(json.dumps(result, indent=2))
        draw(result, arguments.output.with_suffix(".png"))
        print(arguments.output.with_suffix(".png"), file=sys.stderr)


def microseconds(update: Callable[[], None], networks: int) -> tuple[float, float]:
    """Return the median time of an update per network, on one core and on two."""
    started = time.perf_counter()
    updates = 0
    while time.perf_counter() - started < WARM_UP:
        update()
        updates += 1
    repeats = max(3, int(SECONDS * updates / WARM_UP))
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for both, own in times.items():
            second_core.use(both)
            started = time.perf_counter()
            for _ in range(repeats):
                update()
            own.append((time.perf_counter() - started) / repeats / networks * 1e6)
    return statistics.median(times[False]), statistics.median(times[True])


def draw(result: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw one panel per question."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    for axes, (title, points) in zip(figure.subplots(2, 2).flat, result.items(), strict=True):
        for name, colour in (("one core", "#0072B2"), ("two cores", "#E69F00")):
            axes.plot([p["value"] for p in points], [p[name] for p in points], "o-", color=colour, label=name, ms=4)
        axes.set_xscale("log", base=2)
        values = [p["value"] for p in points]
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        if max(p["one core"] for p in points) > 4 * min(p["one core"] for p in points):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(title)
        axes.set_ylabel("us per update and network")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle("What an update costs: 3-layer network 50-50 with BN, 100 images, one thing varied")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
