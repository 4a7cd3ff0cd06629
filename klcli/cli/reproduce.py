"""`klcli reproduce`: a published report's experiments once more, its numbers beside ours."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klcli.cli.many_valued import many_valued
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
from klcli.cli.preparation import typed_command
from klcli.cli.session import Session
from klcli.cli.study_runner import ExecutorAddress, Jobs, Repeats, Resume, StudyRunner, open_runner
from klcli.errors import ConfigError, Diverged, GradientCheckFailed
from klcli.experiments.config import TrainConfig

if TYPE_CHECKING:
    from klcli.data.split_config import SplitConfig
    from klcli.experiments.published import GradientExperiment, Report
    from klcli.experiments.reproduction import Comparison, Sizes
    from klcli.report.reproduction_tables import Terms
    from klcli.store.database import Row

REPRODUCTION = "The reproduction"
KIND = "reproduce"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("reproduce", cls=many_valued("--only"))(reproduce)


def reproduce(
    name: Annotated[
        str | None, typer.Argument(metavar="REPORT", help="Which report, as a3-2024; --list shows all.")
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
    subset: Annotated[
        int | None,
        integer_option("--subset", panel=IMAGES, help="Only the first N training images: compares nothing."),
    ] = None,
    markdown: Annotated[
        Path | None, option("--markdown", panel=OUTPUT, metavar="PATH", help="Write the table as Markdown, too.")
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
    """Run the experiments of a published report and set its numbers beside ours.

    Every number gets ours as a mean over seeds, the difference, and a verdict: reproduced, where the published
    run could be one more of ours; differs; or cannot be compared, with the reason. A training that several rows
    share is made once.

    - `klcli reproduce --list`

    - `klcli reproduce a3-2024 --only T2 --repeats 5`
    """
    session = Session(as_json=as_json, quiet=quiet)

    from klcli.experiments.published import report, report_names
    from klcli.experiments.reproduction import QUICK_SEEDS, on_subset, shortened
    from klcli.report.formats import exact_rows
    from klcli.report.reproduction_tables import Terms, list_table

    if list_reports:
        table = list_table([report(one) for one in report_names()], repeats)
        session.result(table)
        session.document("reproduce", {"reports": exact_rows(table)})
        return
    if name is None:
        raise ConfigError(f"reproduce: name a report, one of {', '.join(report_names())}")
    chosen = report(name).only([part for text in only for part in text.split(",")])
    if quick:
        chosen, repeats = shortened(chosen), min(repeats, QUICK_SEEDS)
    if subset is not None:
        chosen = on_subset(chosen, subset)
    first = chosen.experiments[0].configs[0] if chosen.experiments else TrainConfig()
    runner = open_runner(session, first, data=data, db=db, jobs=jobs, executor=executor, resume=resume, threads=threads)
    dataset = runner.dataset
    terms = Terms(dataset.name, dataset.official, dataset.sha256, repeats, quick, subset)
    errors, suite = _check_gradients(runner, chosen)
    runs, sizes, studies = _train(runner, chosen, terms)
    _show(runner, chosen, terms, runs, errors, sizes, studies, suite, markdown)


def _check_gradients(runner: StudyRunner, report: "Report") -> "tuple[dict[GradientExperiment, list[Row]], int | None]":
    """Check the gradients of a report and return the errors of each experiment's tensors, and their suite."""
    from klcli.experiments.gradient_checks import CheckSettings, check_networks, entries
    from klcli.experiments.published import GradientExperiment
    from klcli.store.gradient_check_store import GradientCheckStore

    plans = {one: one.networks() for one in report.gradient_checks}
    if not plans:
        return {}, None
    total = sum(entries(members, one.dims) for one, networks in plans.items() for members in networks)
    checks = []
    with runner.session.progress("checking entries", total) as advance:
        for one, networks in plans.items():
            settings = CheckSettings(images=one.images, dims=one.dims)
            checks += list(check_networks(networks, runner.splits.train, settings, on_entries=advance))
    store = GradientCheckStore(runner.store.path)
    suite = store.record(checks, runner.dataset, typed_command())
    stored = iter(store.suite(suite))
    found: dict[GradientExperiment, list[Row]] = {
        one: [error for _ in networks for error in next(stored)["errors"]] for one, networks in plans.items()
    }
    return found, suite


def _train(
    runner: StudyRunner, report: "Report", terms: "Terms"
) -> "tuple[dict[TrainConfig, Row], dict[SplitConfig, Sizes], list[int]]":
    """Train what is missing of a report; return its runs by config, the sizes of its splits, and its studies.

    Each division of the images is a study of its own.
    """
    from klcli.data.dataset import split
    from klcli.experiments.reproduction import Sizes, plan

    runs: dict[TrainConfig, Row] = {}
    sizes: dict[SplitConfig, Sizes] = {}
    studies = []
    settings: dict[str, Any] = {"report": report.name, "rows": list(report.rows), "quick": terms.quick}
    for division, configs in plan(report, terms.repeats, quick=terms.quick).items():
        splits = split(runner.dataset, division)
        sizes[division] = Sizes(len(splits.train), len(splits.validation), len(splits.test))
        study = replace(runner, splits=splits).run(KIND, report.name, configs, settings, look_at_test=True)
        studies.append(study)
        runs |= {TrainConfig.from_json(run["config"]): run for run in runner.store.members(study)}
    return runs, sizes, studies


def _show(
    runner: StudyRunner,
    report: "Report",
    terms: "Terms",
    runs: "dict[TrainConfig, Row]",
    errors: "dict[GradientExperiment, list[Row]]",
    sizes: "dict[SplitConfig, Sizes]",
    studies: list[int],
    suite: int | None,
    markdown: Path | None,
) -> None:
    """Show table, notes and documents. Raises GradientCheckFailed or Diverged where ours failed."""
    from klcli.experiments.reproduction import compare, counts
    from klcli.report.formats import to_markdown
    from klcli.report.reproduction_tables import (
        comparison_document,
        report_document,
        reproduction_notes,
        reproduction_table,
    )
    from klcli.store.checkpoints import write_atomically

    session = runner.session
    comparisons = compare(report, runs, errors, sizes, incomparable=terms.incomparable)
    table, notes = reproduction_table(report, comparisons, terms), reproduction_notes(comparisons, terms)
    session.result(table, *notes)
    session.result(f"database    {runner.store.path}")
    if markdown is not None:
        write_atomically(markdown, f"{to_markdown(table, notes)}\n".encode())
        session.result(f"markdown    {markdown}")
    content = {
        "counts": counts(comparisons),
        "lines": [comparison_document(one, _numbers(one, runs)) for one in comparisons],
        "notes": notes,
        "studies": studies,
        "gradient_suite": suite,
        "markdown": str(markdown) if markdown else None,
    }
    session.document("reproduce", report_document(report, terms) | content)
    wrong = sorted({row["tensor"] for rows in errors.values() for row in rows if not row["passed"]})
    if wrong:
        raise GradientCheckFailed(f"wrong gradient: {', '.join(wrong)}, see `klcli gradcheck`")
    lost = [one.line.row for one in comparisons if one.diverged and one.ours is None]
    if lost:
        raise Diverged(f"every training of {', '.join(dict.fromkeys(lost))} diverged, its row has no number of ours")


def _numbers(one: "Comparison", runs: "dict[TrainConfig, Row]") -> list[int]:
    """Return the runs behind a line."""
    base = one.line.config
    if base is None:
        return []
    return [int(run["id"]) for config, run in runs.items() if replace(config, seed=base.seed, order_seed=None) == base]
