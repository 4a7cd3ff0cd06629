"""Planning: the studies of a reproduction, before the first of them starts."""

from collections.abc import Iterator
from typing import NamedTuple

from klcli.published.report import Report
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.studies.plans import can_vary, repeat

QUICK_SEEDS, QUICK_CYCLES = 2, 1


class PlannedStudy(NamedTuple):
    """The trainings of one study."""

    method: str  # of its experiments
    configs: list[TrainConfig]
    chains: list[tuple[int, ...]] | None  # positions that are trained in sequence
    quirks: tuple[str, ...]


def planned(report: Report, repeats: int, *, quick: bool = False, vary: str = "all") -> Iterator[PlannedStudy]:
    """Yield the studies of a report: one for each method and each division of the images.

    Each training is planned once; unless `quick`, with more seeds where its experiment has more. Of warm-started
    searches, there is one chain for each seed.
    """
    for method in dict.fromkeys(one.method for one in report.experiments):
        own = [one for one in report.experiments if one.method == method]
        if own[-1].is_chain:
            seeds = repeats if quick else max(repeats, *(one.repeats for one in own))
            each = [repeated(base, seeds, vary) for one in own for base in one.configs]
            links = [tuple(range(start, start + len(each))) for start in range(0, seeds * len(each), len(each))]
            configs = [config for of_seed in zip(*each, strict=True) for config in of_seed]
            yield PlannedStudy(method, configs, links, own[-1].quirks)
            continue
        plans: dict[SplitConfig, dict[TrainConfig, None]] = {}
        for one in own:
            for base in one.configs:
                again = repeated(base, repeats if quick else max(repeats, one.repeats), vary)
                plans.setdefault(base.split, {}).update(dict.fromkeys(again))
        for divided in plans.values():
            yield PlannedStudy(method, [*divided], None, own[-1].quirks)


def repeated(base: TrainConfig, repeats: int, vary: str) -> list[TrainConfig]:
    """Return the repeats of a training; they differ in everything if a report has nothing else that could `vary`."""
    return repeat(base, repeats, vary if can_vary(base, vary) else "all")
