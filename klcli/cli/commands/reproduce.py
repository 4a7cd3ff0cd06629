"""`klcli reproduce`: repeat the experiments of published reports and compare the numbers."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from klcli.cli.invocation import Invocation, invoked, typed_command
from klcli.cli.options import argument, takes
from klcli.errors import Diverged, GradientCheckFailed
from klcli.files import is_text, require_export
from klcli.report.words import counted
from klcli.settings.procedures import REPRODUCTION, ReproductionSettings
from klcli.settings.setting import Role, flag, require, setting
from klcli.text import path_text


@takes(ReproductionSettings)
@invoked("vary", "jobs", "executor", "resume", "data", "threads", "db", repeats=3)
def reproduce(
    *,
    names: Annotated[
        list[str] | None, argument("REPORT...", "Names of reports, as a3-2024, or all; files, as my-report.toml.")
    ] = None,
    list_reports: bool = flag(REPRODUCTION, "List the reports, or those named, and exit.", option="--list"),
    check: bool = flag(REPRODUCTION, "Train nothing: name every mistake of a file, or what there is to train."),
    settings: ReproductionSettings,
    markdown: Path | None = setting(None, Role.OUTPUT, "Write a Markdown page, with the figures beside it."),
    invocation: Invocation,
) -> None:
    """Repeat the experiments of published reports and compare the published numbers with ours.

    Every number is shown with our mean over seeds, the difference and a verdict: reproduced, if the published
    run could be one more run of ours; differs; undecided, if our runs scatter too much to tell a difference of 2
    points; or cannot be compared, with the reason. A training that several rows share is run once. `klcli help
    reproduce` has the format of a report of your own.

    - `klcli reproduce --list`
    - `klcli reproduce --check my-report.toml`
    - `klcli reproduce a3-2024 --only T2 --repeats 5`
    - `klcli reproduce all --markdown results/reproduction.md`
    """
    if list_reports or check:
        (_list if list_reports else _check)(invocation, names or [], settings)
        return

    if markdown is not None:
        markdown = require_export(markdown, is_text, "--markdown")
        report = f"--markdown {path_text(markdown)}: a report has such a name, end it in .md"
        require(markdown.suffix != ".toml", report)
    alone = f"--note {settings.note}: no effect without the page that it stands on, add --markdown"
    require(settings.note is None or markdown is not None or invocation.as_json, alone)
    from klcli.published.reproduction import Reproduction
    from klcli.report.plots.reproductions import pictures as figures
    from klcli.report.tables import reproductions
    from klcli.store.checkpoints import write_atomically

    documents, total = list[dict[str, Any]](), dict[str, Any]()
    sections, reproduced = list[reproductions.Section](), list[Reproduction]()
    for found in invocation.lab.reproduce(*names or [], settings=settings, **invocation.seeds):
        table, notes = reproductions.reproduction_table(found), reproductions.reproduction_notes(found)
        invocation.result(table, *notes)
        of_study = invocation.lab.store.folder("plots") / f"study-{max(found.studies, default=0):06d}"
        stem = markdown.with_suffix("") if markdown else of_study  # beside the page if there is one
        pictures = list[tuple[str, Path]]()
        for name, words, chart in figures(found, invocation.lab.store.runs.epochs):
            if (path := invocation.picture(stem.parent / f"{stem.name}-{name}.png", chart)) is None:
                break  # the others would fail for the same reason
            pictures.append((words, path))
        paths = [path for _, path in pictures]
        invocation.result(*(f"picture     {path}" for path in paths), "")
        reproduced.append(found)
        documents.append(reproductions.reproduction_document(found, notes, paths))
        beside = reproductions.reproduction_notes(found, has_reasons=False)  # the page numbers them
        sections.append((found.report, table, beside, pictures))
        total = reproductions.headline(reproduced)
        if markdown is not None:  # after each report: finished reports can be read while the next one trains
            page = reproductions.markdown_page(typed_command(), found.terms, sections, total["lines"])
            write_atomically(markdown, page.encode())
    invocation.result(*total["lines"])
    study = max((number for found in reproduced for number in found.studies), default=0)
    invocation.places(*[f"report --study {study}"] * bool(study), "report --html report.html", page=markdown)
    invocation.document("reproduce", {"reports": documents, "headline": total, "markdown": markdown})
    compared = [one for found in reproduced for one in found.comparisons]
    if wrong := dict.fromkeys(one.line.row for one in compared if one.failed):
        raise GradientCheckFailed(f"wrong gradient: {', '.join(wrong)}, see `klcli gradcheck`")
    if lost := dict.fromkeys(one.line.row for one in compared if one.diverged and one.ours is None):
        raise Diverged(f"every training of {', '.join(lost)} diverged: there is no number to compare")


def _list(invocation: Invocation, names: list[str], settings: ReproductionSettings) -> None:
    """Show what reports there are, or what those named have."""
    from klcli.procedures.reproducing import ALL, each_named
    from klcli.published.format.sources import open_report
    from klcli.report.tables.formats import exact_rows
    from klcli.report.tables.reproductions import list_table

    wanted = names or [ALL] * (not settings.only)
    reports = [open_report(name).only(settings.only) for name in each_named(wanted, settings.only)]
    table = list_table(reports, invocation.repeats)
    invocation.result(table)
    invocation.document("reproduce", {"reports": [*exact_rows(table)]})


def _check(invocation: Invocation, names: list[str], settings: ReproductionSettings) -> None:
    """Name every mistake of these reports with its line, as compilers do, or what a sound one holds."""
    from klcli.procedures.reproducing import each_named, extent, seeds_of
    from klcli.published.format.sources import read
    from klcli.published.format.validation import mistakes

    names = each_named(names, settings.only)
    documents, wrong = [], 0
    for name in names:
        found = mistakes(read(name))
        invocation.result(*(f"{name}:{one}" for one in found))
        held = None if found else extent(name, settings, invocation.repeats, invocation.vary)
        if held is not None:
            words = [f"{n} {counted(n, key.replace('_', ' ').rstrip('s'))}" for key, n in held.items()]
            rows, numbers, trainings, checks, updates = words
            n = seeds_of(settings, invocation.repeats)
            seeds = f"{'' if settings.quick else 'at least '}{n} {counted(n, 'seed')}"
            invocation.result(f"{name}: {rows}, {numbers}; {trainings} with {seeds}, {checks}, about {updates}")
        documents.append({"report": name, "mistakes": [asdict(one) for one in found], "holds": held})
        wrong += len(found)
    invocation.document("reproduce", {"checked": documents})
    require(not wrong, f"--check: {wrong} {counted(wrong, 'mistake')} in {', '.join(names)}")
