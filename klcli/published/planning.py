"""Planning: the studies of a reproduction, before the first of them starts."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from klcli.published.report import Report
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.studies.plans import can_vary, repeat

QUICK_SEEDS, QUICK_CYCLES = 2, 1
Plans = dict[SplitConfig, list[TrainConfig]]  # by the division of the images


class PlannedStudy(NamedTuple):
    """The trainings of one study."""

    method: str  # of its experiments
    configs: list[TrainConfig]
    chains: list[tuple[int, ...]] | None  # positions that are trained in sequence
    quirks: tuple[str, ...]


def plan(report: Report, repeats: int, *, quick: bool = False, vary: str = "all", method: str = "") -> Plans:
    """Return the trainings of a method, each once; unless `quick`, with more seeds where its experiment has more."""
    plans: dict[SplitConfig, dict[TrainConfig, None]] = {}
    for one in report.experiments:
        for base in one.configs if one.method == method else ():
            configs = repeated(base, repeats if quick else max(repeats, one.repeats), vary)
            plans.setdefault(base.split, {}).update(dict.fromkeys(configs))
    return {split: list(configs) for split, configs in plans.items()}


def repeated(base: TrainConfig, repeats: int, vary: str) -> list[TrainConfig]:
    """Return the repeats of a training; they differ in everything if a report has nothing else that could `vary`."""
    return repeat(base, repeats, vary if can_vary(base, vary) else "all")


def chain(
    bases: Sequence[TrainConfig], repeats: int, vary: str = "all"
) -> tuple[list[TrainConfig], list[tuple[int, ...]]]:
    """Return the trainings of warm-started searches, one chain for each seed, and the positions of each chain."""
    n = len(bases)
    by_seed = zip(*(repeated(base, repeats, vary) for base in bases), strict=True)
    links = [tuple(range(start, start + n)) for start in range(0, repeats * n, n)]
    return [config for configs in by_seed for config in configs], links


def planned(report: Report, repeats: int, *, quick: bool = False, vary: str = "all") -> Iterator[PlannedStudy]:
    """Yield the studies of a report: one for each method and each division of the images."""
    for method, one in {one.method: one for one in report.experiments}.items():
        if one.is_chain:
            together = [other for other in report.experiments if other.method == method]
            linked = [config for other in together for config in other.configs]
            seeds = repeats if quick else max(repeats, *(other.repeats for other in together))
            yield PlannedStudy(method, *chain(linked, seeds, vary), one.quirks)
            continue
        for configs in plan(report, repeats, quick=quick, vary=vary, method=method).values():
            yield PlannedStudy(method, configs, None, one.quirks)
