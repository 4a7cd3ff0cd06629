"""Reproduce published reports: train and check what is missing, then compare with the published numbers."""

from collections.abc import Iterator, Sequence
from typing import Any

from klcli.procedures.setup import Setup
from klcli.procedures.study_runner import StudyRunner
from klcli.published import report as published
from klcli.published.planning import QUICK_SEEDS, planned
from klcli.published.quirks import QUIRKS
from klcli.published.report import Report
from klcli.published.reproduction import KIND, Reproduction, Terms, asked_for, gather
from klcli.settings.procedures import ReproductionSettings
from klcli.settings.setting import require
from klcli.settings.train_config import TrainConfig
from klcli.studies.gradient_checks import NetworkCheck, check_a_single_image, check_networks, entries
from klcli.studies.plans import check_repeats

ALL = "all"


def reproduce(
    setup: Setup, names: Sequence[str], settings: ReproductionSettings, repeats: int, vary: str, resume: bool
) -> Iterator[Reproduction]:
    """Yield the reproduction of each report as soon as it is complete; all runs and checks are recorded.

    Raises ConfigError if a name is unknown, or if rows are chosen from more than one report.
    """
    check_repeats(repeats, vary)
    quick, subset = settings.quick, settings.subset
    known = published.report_names()
    require(bool(names), f"reproduce: name a report, one of {', '.join(known)}, or {ALL}")
    unique = dict.fromkeys(one for name in names for one in (known if name == ALL else [name]))
    several = f"--only {' '.join(settings.only)}: rows of one report, {len(unique)} are named"
    reports = [*map(published.report, unique)]
    require(not settings.only or len(unique) == 1, several)
    chosen = [asked_for(one, settings.only, quick=quick, subset=subset) for one in reports]
    repeats = min(repeats, QUICK_SEEDS) if quick else repeats
    configs = [config for one in chosen for experiment in one.experiments for config in experiment.configs]
    with setup.pinned():
        runner = StudyRunner.opened(setup, configs[0] if configs else TrainConfig(), resume)
        data = runner.dataset
        terms = Terms(data.name, data.official, data.sha256, repeats, quick, subset, settings.note, vary)
        for one in chosen:
            _check(runner, one)
            yield gather(one, terms, runner.store, _train(runner, one, terms))


def _check(runner: StudyRunner, one: Report) -> None:
    """Check the gradients of a report that are not checked yet."""
    store, sha256 = runner.store.gradient_checks, runner.dataset.sha256
    wanted = [(stack, check.settings) for check in one.gradient_checks for stack in check.networks()]
    if missing := [pair for pair in wanted if not runner.resume or store.latest(*pair, sha256) is None]:
        total = sum(entries(stack, settings.dims) for stack, settings in missing)
        with runner.setup.observer.counting("checking entries", total) as advance:
            checks: list[NetworkCheck] = []
            for stack, how in missing:
                if how.images == 1 and stack[0].batch_norm:
                    checks.append(check_a_single_image(stack[0], runner.train, how))
                else:
                    checks += check_networks([stack], runner.train, how, on_entries=advance)
        store.record(checks, runner.dataset, runner.setup.command)


def _train(runner: StudyRunner, one: Report, terms: Terms) -> list[int]:
    """Train the missing runs of a report, return its studies: one for each division of the images and each method."""
    settings: dict[str, Any] = {"report": one.name, "rows": list(one.rows), "quick": terms.quick}
    studies = []
    for method, configs, chains, names in planned(one, terms.repeats, quick=terms.quick, vary=terms.vary):
        how: dict[str, Any] = {"vary": terms.vary, "evaluate_test": True, "chains": chains}
        own = settings | ({"method": method} if method else {})
        stage, quirks = ", ".join(filter(None, (one.name, method))), {name: QUIRKS[name] for name in names}
        studies.append(runner.run(KIND, stage, configs, own, quirks=quirks, **how))
    return studies
