"""`klcli reproduce`: a published report's experiments once more, its numbers beside ours."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klcli.cli.options import (
    DEFAULT_DATABASE,
    IMAGES,
    OUTPUT,
    DatabasePath,
    DataSource,
    Debug,
    Json,
    Quiet,
    Threads,
    integer_option,
    option,
)
from klcli.cli.session import Session
from klcli.cli.variadic import many_valued
from klcli.errors import ConfigError, Diverged, GradientCheckFailed
from klcli.procedures.preflight import typed_command
from klcli.procedures.study_runner import ExecutorAddress, Jobs, Repeats, Resume, StudyRunner, open_runner
from klcli.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from klcli.published.report import Report
    from klcli.published.reproduction import Reproduction
    from klcli.published.terms import Terms
    from klcli.report.tables.table import Table

REPRODUCTION = "The reproduction"
ALL = "all"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("reproduce", cls=many_valued("--only"))(reproduce)


def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="REPORT...", help="Which reports, as a3-2024, or all.")
    ] = None,
    list_reports: Annotated[
        bool, option("--list", panel=REPRODUCTION, help="Show the reports and train nothing.")
    ] = False,
    only: Annotated[
        list[str], option("--only", panel=REPRODUCTION, metavar="ROW...", help="These rows alone, as T2a or 003-T2.")
    ] = [],
    quick: Annotated[
        bool,
        option("--quick", panel=REPRODUCTION, help="At most 2 seeds, and 1 cycle each: a look, marked as such."),
    ] = False,
    as_published: Annotated[
        bool,
        option(
            "--as-published",
            panel=REPRODUCTION,
            help="The rows that a mistake has made, with it: a search that never begins anew, a check of one image.",
        ),
    ] = False,
    subset: Annotated[
        int | None,
        integer_option("--subset", panel=IMAGES, help="Only the first N training images: compares nothing."),
    ] = None,
    markdown: Annotated[
        Path | None,
        option("--markdown", panel=OUTPUT, metavar="PATH", help="Write a page with the tables, its figures beside it."),
    ] = None,
    note: Annotated[
        str | None,
        option("--note", panel=OUTPUT, metavar="TEXT", help="What a reader of the page must know, at its head."),
    ] = None,
    repeats: Repeats = 3,
    jobs: Jobs = None,
    executor: ExecutorAddress = None,
    resume: Resume = False,
    data: DataSource = None,
    threads: Threads = 1,
    db: DatabasePath = DEFAULT_DATABASE,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run the experiments of published reports and set their numbers beside ours.

    Every number gets ours as a mean over seeds, the difference, and a verdict: reproduced, where the published
    run could be one more of ours; differs; or cannot be compared, with the reason. A training that several rows
    share is made once.

    - `klcli reproduce --list`

    - `klcli reproduce a3-2024 --only T2 --repeats 5`

    - `klcli reproduce a2-2019 --as-published`

    - `klcli reproduce all --markdown results/reproduction.md`
    """
    session = Session(as_json=as_json, quiet=quiet)

    from klcli.published.comparison import QUICK_SEEDS, on_subset, shortened
    from klcli.published.report import report
    from klcli.published.terms import Terms
    from klcli.report.tables.formats import exact_rows
    from klcli.report.tables.reproductions import list_table

    if list_reports:
        table = list_table([report(one) for one in _wanted([ALL])], repeats)
        session.result(table)
        session.document("reproduce", {"reports": exact_rows(table)})
        return
    rows = [part for text in only for part in text.split(",")]
    chosen = [report(name) for name in _wanted(names or [])]
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
    first = configs[0] if configs else TrainConfig()
    runner = open_runner(session, first, data=data, db=db, jobs=jobs, executor=executor, resume=resume, threads=threads)
    dataset = runner.dataset
    terms = Terms(dataset.name, dataset.official, dataset.sha256, repeats, quick, subset, as_published, note)
    shown = []
    for one in chosen:
        found = _reproduce_as_published(runner, one, terms) if as_published else _reproduce(runner, one, terms)
        shown.append(_show(runner, found, markdown))
        if markdown is not None:  # after each: what has been trained can be read
            _write(markdown, terms, shown)
    session.result(f"database    {runner.store.path}", *([f"page        {markdown}"] if markdown else []))
    content = {"reports": [one.document for one in shown], "markdown": str(markdown) if markdown else None}
    session.document("reproduce", content)
    _raise_for_failures([one.found for one in shown])


@dataclass(frozen=True)
class Section:
    """A reproduced report as it has been shown."""

    found: "Reproduction"
    table: "Table"
    notes: list[str]
    pictures: list[tuple[str, Path]]  # what each shows, and its file
    document: dict[str, Any]


def _wanted(names: Sequence[str]) -> list[str]:
    """Return the names of the reports, each once. Raises ConfigError where none is named."""
    from klcli.published.report import report_names

    if not names:
        raise ConfigError(f"reproduce: name a report, one of {', '.join(report_names())}, or {ALL}")
    return list(dict.fromkeys(one for name in names for one in (report_names() if name == ALL else [name])))


def _artefacts(report: "Report") -> "Report":
    """Return the rows of a report that a mistake has made. Raises ConfigError where there are none."""
    from klcli.published.report import report as named
    from klcli.published.report import report_names

    if report.as_published is None:
        known = [name for name in report_names() if named(name).as_published is not None]
        raise ConfigError(f"--as-published: there is nothing to show of {report.name}, but of {' and '.join(known)}")
    return report.as_published


def _reproduce_as_published(runner: StudyRunner, report: "Report", terms: "Terms") -> "Reproduction":
    """Train the warm-started searches of a report, a study for each, and check its single image; that is not stored."""
    from dataclasses import asdict

    from klcli.data.dataset import split
    from klcli.published.comparison import chains
    from klcli.published.reproduction import KIND, gather
    from klcli.studies.gradient_checks import check_a_single_image

    settings: dict[str, Any] = {"report": report.name, "rows": list(report.rows), "quick": terms.quick}
    studies = []
    for chain in chains(report, terms.repeats):
        there = replace(runner, splits=split(runner.dataset, chain.plan[0].split))
        stage = f"{report.name} as published, {chain.name}"
        own = settings | {"as_published": True}
        studies.append(there.run(KIND, stage, chain.plan, own, look_at_test=True, chains=chain.links))
    shown = {
        one: [
            asdict(tensor) | {"passed": tensor.passes(one.settings.atol or 0.0, one.settings.rtol or 0.0)}
            for [config] in one.networks()
            for tensor in check_a_single_image(config, runner.splits.train, one.settings)
        ]
        for one in report.gradient_checks
    }
    return gather(report, terms, runner.store, studies, shown)


def _reproduce(runner: StudyRunner, report: "Report", terms: "Terms") -> "Reproduction":
    """Check and train what is missing of a report. Each division of the images is a study of its own."""
    from klcli.data.dataset import split
    from klcli.published.comparison import plan
    from klcli.published.reproduction import KIND, gather

    _check_gradients(runner, report)
    settings: dict[str, Any] = {"report": report.name, "rows": list(report.rows), "quick": terms.quick}
    studies = [
        replace(runner, splits=split(runner.dataset, division)).run(
            KIND, report.name, configs, settings, look_at_test=True
        )
        for division, configs in plan(report, terms.repeats, quick=terms.quick).items()
    ]
    return gather(report, terms, runner.store, studies)


def _check_gradients(runner: StudyRunner, report: "Report") -> None:
    """Check the gradients of a report, as one suite; with --resume those that have not been checked yet."""
    from klcli.studies.gradient_checks import check_networks, entries

    store = runner.store
    sha256 = runner.dataset.sha256
    missing = [
        (one, members)
        for one in report.gradient_checks
        for members in one.networks()
        if not runner.resume or store.gradient_checks.latest(members, one.settings, sha256) is None
    ]
    if not missing:
        return
    total = sum(entries(members, one.dims) for one, members in missing)
    checks = []
    with runner.session.progress("checking entries", total) as advance:
        for one, members in missing:
            checks += list(check_networks([members], runner.splits.train, one.settings, on_entries=advance))
    store.gradient_checks.record(checks, runner.dataset, typed_command())


def _show(runner: StudyRunner, found: "Reproduction", markdown: Path | None) -> Section:
    """Print a report, draw its figures, and return both with the JSON document."""
    from klcli.published.comparison import counts
    from klcli.report.plots.reproductions import pictures
    from klcli.report.tables.reproductions import (
        comparison_document,
        report_document,
        reproduction_notes,
        reproduction_table,
    )
    from klcli.store.checkpoints import write_atomically

    store, terms = runner.store, found.terms
    table = reproduction_table(found.report, found.comparisons, terms)
    notes = reproduction_notes(found.report, found.comparisons, terms)
    runner.session.result(table, *notes)
    drawn = []
    for name, words, content in pictures(found, store.runs.epochs):
        path = (
            store.folder("plots") / f"study-{max(found.studies):06d}-{name}.png"
            if markdown is None
            else markdown.with_name(f"{markdown.stem}-{name}.png")
        )
        write_atomically(path, content)
        drawn.append((words, path))
    runner.session.result(*(f"picture     {path}" for _, path in drawn), "")
    runs = [
        [run["id"] for run in found.runs_of(one.line.config)] if one.line.config else [] for one in found.comparisons
    ]
    document = report_document(found.report, terms) | {
        "counts": counts(found.comparisons),
        "lines": [comparison_document(*pair) for pair in zip(found.comparisons, runs, strict=True)],
        "notes": notes,
        "studies": list(found.studies),
        "pictures": [str(path) for _, path in drawn],
    }
    return Section(found, table, notes, drawn, document)


def _write(path: Path, terms: "Terms", shown: Sequence[Section]) -> None:
    """Write the page of all that has been reproduced so far."""
    from klcli.report.tables.reproductions import markdown_page
    from klcli.store.checkpoints import write_atomically

    sections = [(one.found.report, one.table, one.notes, one.pictures) for one in shown]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, markdown_page(typed_command(), terms, sections).encode())


def _raise_for_failures(shown: "Sequence[Reproduction]") -> None:
    """Raise GradientCheckFailed or Diverged where ours failed, after everything has been shown."""
    wrong = [one.line.row for found in shown for one in found.comparisons if one.failed]
    if wrong:
        raise GradientCheckFailed(f"wrong gradient: {', '.join(dict.fromkeys(wrong))}, see `klcli gradcheck`")
    lost = [one.line.row for found in shown for one in found.comparisons if one.diverged and one.ours is None]
    if lost:
        raise Diverged(f"every training of {', '.join(dict.fromkeys(lost))} diverged, its row has no number of ours")
