"""Reproduce published reports: train and check what is missing, then compare with the published numbers."""

from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

from klcli.data.dataset import split
from klcli.procedures.evaluating import record_checks
from klcli.procedures.setup import Setup
from klcli.procedures.study_runner import StudyRunner
from klcli.published import report as published
from klcli.published.format.sources import open_report
from klcli.published.planning import QUICK_SEEDS, PlannedStudy, planned
from klcli.published.quirks import QUIRKS
from klcli.published.registration import registered
from klcli.published.report import GradientExperiment, Report
from klcli.published.reproduction import KIND, Reproduction, Terms, asked_for, gather
from klcli.settings.procedures import ReproductionSettings
from klcli.settings.setting import require
from klcli.settings.train_config import TrainConfig
from klcli.studies.execution import stacks
from klcli.studies.plans import check_repeats
from klcli.training.budget import require_trainable, updates_of

ALL = "all"


def reproduce(
    setup: Setup, names: Sequence[str], settings: ReproductionSettings, repeats: int, vary: str, resume: bool
) -> Iterator[Reproduction]:
    """Yield the reproduction of each report as soon as it is complete; all runs and checks are recorded.

    A name is that of a report in klcli, or the path of a file. Raises ConfigError if it is unknown, if the file has a
    mistake, or if rows are chosen from more than one report.
    """
    check_repeats(repeats, vary)
    quick, subset, repeats = settings.quick, settings.subset, seeds_of(settings, repeats)
    unique = each_named(names, settings.only)
    several = f"--only {' '.join(settings.only)}: rows of one report, {len(unique)} are named"
    require(not settings.only or len(unique) == 1, several)
    chosen = [_planned(name, settings, repeats, vary) for name in unique]
    configs = [config for _, plans in chosen for plan in plans for config in plan.configs]
    with setup.pinned():
        runner = StudyRunner.opened(setup, configs[0] if configs else TrainConfig(), resume)
        data = runner.dataset
        terms = Terms(data.name, data.sha256, repeats, quick, subset, settings.note, vary)
        for one, plans in chosen:
            # Draws of the weights first: reports show the latest suite, which has the single networks.
            for are_draws in (True, False):
                _check(runner, [check for check in one.gradient_checks if (check.repeats > 1) == are_draws])
            studies = _train(runner, one, plans, terms)
            with setup.observer.step("comparing with the published numbers"):
                found = gather(one, terms, runner.store, studies)
            yield found


def each_named(names: Sequence[str], only: Sequence[str] = ()) -> list[str]:
    """Return every name once, with those of all reports in klcli in the place of `all`. Raises ConfigError for none:
    those meant may be in `only`.
    """
    known = f"one of {', '.join(published.report_names())}, {ALL}, or a file, as my-report.toml"
    taken = f"--only {' '.join(only)}: takes all words up to the next option, name the report before it"
    require(bool(names), taken if only else f"reproduce: name a report, {known}")
    return [*dict.fromkeys(one for name in names for one in (published.report_names() if name == ALL else [name]))]


def seeds_of(settings: ReproductionSettings, repeats: int) -> int:
    """Return the number of seeds of every training; unless `quick`, some experiments have more."""
    return min(repeats, QUICK_SEEDS) if settings.quick else repeats


def extent(argument: str, settings: ReproductionSettings, repeats: int, vary: str) -> dict[str, int]:
    """Count what a sound report holds, by its name or file, and what there is to train, with the updates that this
    takes on CIFAR-10 or a set of its size. Raises ConfigError if the report has a mistake.
    """
    one, studies = _planned(argument, settings, seeds_of(settings, repeats), vary)
    parts = [(study, part) for study in studies for part in study.chains or stacks(study.configs)]
    updates = [updates_of([study.configs[p] for p in part], is_chain=bool(study.chains)) for study, part in parts]
    return {
        "rows": len(one.rows),
        "numbers": sum(line.published is not None and line.variant is None for line in one.lines),
        "trainings": sum(len(study.configs) for study in studies),
        "gradient_checks": sum(len(check.networks()) for check in one.gradient_checks),
        "updates": sum(updates),
    }


def _planned(
    argument: str, settings: ReproductionSettings, repeats: int, vary: str
) -> tuple[Report, list[PlannedStudy]]:
    """Return what to reproduce of a report, with its plan. Raises ConfigError if it cannot train on such a subset."""
    quick, subset = settings.quick, settings.subset
    one = asked_for(open_report(argument), settings.only, quick=quick, subset=subset)
    plans = [*planned(one, repeats, quick=quick, vary=vary)]
    for config in (config for experiment in one.experiments for config in experiment.configs):
        few = f"--subset {subset}: a minibatch of {argument} has {config.batch_size} images, give at least that"
        require(subset is None or subset >= config.batch_size, few)
        require_trainable(config)
    return one, plans


def _check(runner: StudyRunner, own: Sequence[GradientExperiment]) -> None:
    """Check the gradients of a report, as one suite.

    It takes seconds, so no stored check is used: that of an older klcli may be of other images.
    """
    divided = cache(partial(split, runner.dataset))  # its standardisation takes 0.2 s
    networks = [(stack, check.settings) for check in own for stack in check.networks()]
    if wanted := [(stack, divided(stack[0].split).train, how) for stack, how in networks]:
        record_checks(runner.setup, runner.store, runner.dataset, wanted)


def _train(runner: StudyRunner, one: Report, plans: Sequence[PlannedStudy], terms: Terms) -> list[int]:
    """Train the missing runs of a report, return its studies: one for each division of the images and each method."""
    settings: dict[str, Any] = {"report": one.name, "rows": list(one.rows), "quick": terms.quick}
    studies = list[int]()
    settings |= registered(one, [config for study in plans for config in study.configs], terms.sha256)
    for method, configs, chains, names in plans:
        how: dict[str, Any] = {"vary": terms.vary, "evaluate_test": True, "chains": chains}
        key = "method" if names or chains else "study"  # alone, it changes no training: its runs are like any others
        own = settings | ({key: method} if method else {})
        stage, quirks = ", ".join(filter(None, (one.name, method))), {name: QUIRKS[name] for name in names}
        studies.append(runner.run(KIND, stage, configs, own, quirks=quirks, **how))
    return studies
