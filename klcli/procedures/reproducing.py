"""Reproducing published reports: what is missing of one is trained and checked, then set beside its numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from klcli.errors import ConfigError
from klcli.procedures.setup import Setup
from klcli.procedures.study_runner import StudyRunner
from klcli.published.comparison import QUICK_SEEDS, chains, on_subset, plan, shortened
from klcli.published.report import Report, report, report_names
from klcli.published.reproduction import KIND, Reproduction, gather
from klcli.published.terms import Terms
from klcli.settings.train_config import TrainConfig
from klcli.studies.gradient_checks import check_a_single_image, check_networks, entries

ALL = "all"


def reproduce(
    setup: Setup,
    names: Sequence[str],
    *,
    rows: Sequence[str] = (),
    repeats: int = 3,
    quick: bool = False,
    as_published: bool = False,
    subset: int | None = None,
    note: str | None = None,
    resume: bool = False,
) -> Iterator[Reproduction]:
    """Yield each report beside what its experiments give here, as soon as it is done; all of it is recorded.

    `rows` are those of a single report, all if there are none. Raises ConfigError where a name is unknown.
    """
    chosen = [report(name) for name in wanted(names)]
    if rows and len(chosen) > 1:
        raise ConfigError(f"--only {' '.join(rows)}: rows of one report, {len(chosen)} are named")
    if as_published:
        chosen = [_artefacts(one) for one in chosen]
    chosen = [one.only(rows) for one in chosen]
    if quick:
        chosen, repeats = [shortened(one) for one in chosen], min(repeats, QUICK_SEEDS)
    if subset is not None:
        chosen = [on_subset(one, subset) for one in chosen]
    configs = [config for one in chosen for experiment in one.experiments for config in experiment.configs]
    with setup.pinned():
        runner = StudyRunner.opened(setup, configs[0] if configs else TrainConfig(), resume)
        images = runner.dataset
        terms = Terms(images.name, images.official, images.sha256, repeats, quick, subset, as_published, note)
        procedure = _as_published if as_published else _as_written
        for one in chosen:
            yield procedure(runner, one, terms)


def wanted(names: Sequence[str]) -> list[str]:
    """Return the names of the reports, each once. Raises ConfigError where none is named."""
    if not names:
        raise ConfigError(f"reproduce: name a report, one of {', '.join(report_names())}, or {ALL}")
    return list(dict.fromkeys(one for name in names for one in (report_names() if name == ALL else [name])))


def _artefacts(one: Report) -> Report:
    """Return the rows of a report that a mistake has made. Raises ConfigError where there are none."""
    if one.as_published is None:
        known = [name for name in report_names() if report(name).as_published is not None]
        raise ConfigError(f"--as-published: there is nothing to show of {one.name}, but of {' and '.join(known)}")
    return one.as_published


def _as_published(runner: StudyRunner, one: Report, terms: Terms) -> Reproduction:
    """Train the warm-started searches of a report, a study for each, and check its single image; that is not stored."""
    studies = []
    for chain in chains(one, terms.repeats):
        there = runner.on(chain.plan[0].split)
        stage, own = f"{one.name} as published, {chain.name}", _settings(one, terms) | {"as_published": True}
        studies.append(there.run(KIND, stage, chain.plan, own, look_at_test=True, chains=chain.links))
    shown = {
        check: [
            asdict(tensor) | {"passed": tensor.passes(check.settings.atol or 0.0, check.settings.rtol or 0.0)}
            for [config] in check.networks()
            for tensor in check_a_single_image(config, runner.splits.train, check.settings)
        ]
        for check in one.gradient_checks
    }
    return gather(one, terms, runner.store, studies, shown)


def _as_written(runner: StudyRunner, one: Report, terms: Terms) -> Reproduction:
    """Check and train what is missing of a report. Each division of the images is a study of its own."""
    _check_gradients(runner, one)
    studies = [
        runner.on(division).run(KIND, one.name, configs, _settings(one, terms), look_at_test=True)
        for division, configs in plan(one, terms.repeats, quick=terms.quick).items()
    ]
    return gather(one, terms, runner.store, studies)


def _settings(one: Report, terms: Terms) -> dict[str, Any]:
    return {"report": one.name, "rows": list(one.rows), "quick": terms.quick}


def _check_gradients(runner: StudyRunner, one: Report) -> None:
    """Check the gradients of a report, as one suite; with --resume those that have not been checked yet."""
    store, sha256 = runner.store.gradient_checks, runner.dataset.sha256
    missing = [
        (check, networks)
        for check in one.gradient_checks
        for networks in check.networks()
        if not runner.resume or store.latest(networks, check.settings, sha256) is None
    ]
    if not missing:
        return
    checks = []
    total = sum(entries(networks, check.dims) for check, networks in missing)
    with runner.setup.observer.counting("checking entries", total) as advance:
        for check, networks in missing:
            checks += list(check_networks([networks], runner.splits.train, check.settings, on_entries=advance))
    store.record(checks, runner.dataset, runner.setup.command)
