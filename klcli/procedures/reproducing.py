"""Reproduce published reports: train and check what is missing, then compare with the published numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from klcli.procedures.setup import Setup
from klcli.procedures.study_runner import StudyRunner
from klcli.published import report as published
from klcli.published.comparison import QUICK_SEEDS, Planned, chains, plan
from klcli.published.registration import registered
from klcli.published.report import Report
from klcli.published.reproduction import KIND, Reproduction, Terms, asked_for, gather
from klcli.published.sources import open_report
from klcli.settings.procedures import ReproductionSettings
from klcli.settings.setting import require
from klcli.settings.train_config import TrainConfig
from klcli.store.records import GradientError
from klcli.studies.gradient_checks import check_a_single_image, check_networks, entries
from klcli.studies.plans import check_repeats
from klcli.training.budget import budget_of

ALL = "all"


def reproduce(
    setup: Setup, names: Sequence[str], settings: ReproductionSettings, repeats: int, vary: str, resume: bool
) -> Iterator[Reproduction]:
    """Yield the reproduction of each report as soon as it is complete; all runs and checks are recorded.

    A name is that of a report in klcli, or the path of a file. Raises ConfigError if it is unknown, if the file has a
    mistake, or if rows are chosen from more than one report.
    """
    check_repeats(repeats, vary)
    quick, as_published, subset = settings.quick, settings.as_published, settings.subset
    known = published.report_names()
    require(bool(names), f"reproduce: name a report, one of {', '.join(known)}, {ALL}, or a file, as my-report.toml")
    unique = dict.fromkeys(one for name in names for one in (known if name == ALL else [name]))
    several = f"--only {' '.join(settings.only)}: rows of one report, {len(unique)} are named"
    require(not settings.only or len(unique) == 1, several)
    reports = [*map(open_report, unique)]
    chosen = [asked_for(one, settings.only, quick=quick, as_published=as_published, subset=subset) for one in reports]
    repeats = min(repeats, QUICK_SEEDS) if quick else repeats
    configs = [config for one in chosen for experiment in one.experiments for config in experiment.configs]
    with setup.pinned():
        runner = StudyRunner.opened(setup, configs[0] if configs else TrainConfig(), resume)
        data = runner.dataset
        terms = Terms(data.name, data.official, data.sha256, repeats, quick, subset, as_published, settings.note, vary)
        for one in chosen:
            yield _as_published(runner, one, terms) if as_published else _as_written(runner, one, terms)


@dataclass(frozen=True)
class Extent:
    """What a report holds, and what there is to train."""

    rows: int
    numbers: int
    trainings: int
    gradient_checks: int
    updates: int  # of CIFAR-10, or of a set of its size


def extent(argument: str, settings: ReproductionSettings, repeats: int) -> Extent:
    """Return the extent of a sound report, by its name or file. Raises ConfigError if it has a mistake."""
    quick, as_published, subset = settings.quick, settings.as_published, settings.subset
    one = asked_for(open_report(argument), settings.only, quick=quick, as_published=as_published, subset=subset)
    plans = plan(one, min(repeats, QUICK_SEEDS) if quick else repeats, quick=quick)
    configs = [config for many in plans.values() for config in many]
    return Extent(
        rows=len(one.rows), numbers=sum(line.published is not None for line in one.lines), trainings=len(configs),
        gradient_checks=sum(len(check.lambdas) for check in one.gradient_checks),
        updates=sum(budget_of(config, config.split.sizes()[0]).total_updates for config in configs),
    )  # fmt: skip


def _as_published(runner: StudyRunner, one: Report, terms: Terms) -> Reproduction:
    """Train the warm-started searches of a report, one study each, and check its single image, which is not stored."""
    errors = {}
    for check in one.gradient_checks:
        atol, rtol = check.settings.atol or 0.0, check.settings.rtol or 0.0
        errors[check] = [
            GradientError(check_id=0, position=position, passed=tensor.passes(atol, rtol), **asdict(tensor))
            for [config] in check.networks()
            for position, tensor in enumerate(check_a_single_image(config, runner.train, check.settings))
        ]
    searches = chains(one, terms.repeats, terms.vary)
    planned: list[Planned] = [(f"{one.name} as published, {name}", chain, links) for name, chain, links in searches]
    return gather(one, terms, runner.store, _train(runner, one, terms, planned), errors)


def _as_written(runner: StudyRunner, one: Report, terms: Terms) -> Reproduction:
    """Run the missing checks and trainings of a report. Each division of the images is a separate study."""
    store, sha256 = runner.store.gradient_checks, runner.dataset.sha256
    wanted = [(stack, check.settings) for check in one.gradient_checks for stack in check.networks()]
    if missing := [pair for pair in wanted if not runner.resume or store.latest(*pair, sha256) is None]:
        total = sum(entries(stack, settings.dims) for stack, settings in missing)
        with runner.setup.observer.counting("checking entries", total) as advance:
            found = [check_networks([stack], runner.train, how, on_entries=advance) for stack, how in missing]
            checks = [*chain.from_iterable(found)]
        store.record(checks, runner.dataset, runner.setup.command)
    plans = plan(one, terms.repeats, quick=terms.quick, vary=terms.vary)
    planned: list[Planned] = [(one.name, configs, None) for configs in plans.values()]
    return gather(one, terms, runner.store, _train(runner, one, terms, planned))


def _train(runner: StudyRunner, one: Report, terms: Terms, planned: Sequence[Planned]) -> list[int]:
    settings: dict[str, Any] = {"report": one.name, "rows": list(one.rows), "quick": terms.quick}
    settings |= {"as_published": True} if terms.as_published else {}
    settings |= registered(one, chain.from_iterable(configs for _, configs, _ in planned), terms.sha256)
    how: dict[str, Any] = {"vary": terms.vary, "evaluate_test": True}
    return [runner.run(KIND, stage, configs, settings, chains=links, **how) for stage, configs, links in planned]
