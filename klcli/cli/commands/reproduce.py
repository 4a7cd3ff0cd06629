"""`klcli reproduce`: repeat the experiments of published reports and compare the numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klcli.cli.invocation import Invocation, invoked, typed_command
from klcli.cli.options import takes
from klcli.cli.pictures import place, write_beside
from klcli.errors import Diverged, GradientCheckFailed
from klcli.settings.procedures import REPRODUCTION, ReproductionSettings
from klcli.settings.setting import Role, flag, setting

if TYPE_CHECKING:
    from klcli.published.report import Report
    from klcli.published.reproduction import Reproduction
    from klcli.report.tables.table import Table
    from klcli.store.store import Store

    Section = tuple[Report, Table, list[str], list[tuple[str, Path]]]  # its notes; its pictures, each with its caption


@takes(ReproductionSettings)
@invoked("vary", "jobs", "executor", "resume", "data", "threads", "db", repeats=3)
def reproduce(
    *,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="REPORT...", help="Names of reports, for example a3-2024, or all.")
    ] = None,
    list_reports: bool = flag(REPRODUCTION, "List the reports and exit.", option="--list"),
    settings: ReproductionSettings,
    markdown: Path | None = setting(None, Role.OUTPUT, "Write a Markdown page, with the figures beside it."),
    invocation: Invocation,
) -> None:
    """Repeat the experiments of published reports and compare the published numbers with ours.

    Every number is shown with our mean over seeds, the difference and a verdict: reproduced, if the published
    run could be one more run of ours; differs; or cannot be compared, with the reason. A training that several
    rows share is run once.

    - `klcli reproduce --list`

    - `klcli reproduce a3-2024 --only T2 --repeats 5`

    - `klcli reproduce a2-2019 --as-published`

    - `klcli reproduce all --markdown results/reproduction.md`
    """
    if list_reports:
        from klcli.published.report import report, report_names
        from klcli.report.tables.formats import exact_rows
        from klcli.report.tables.reproductions import list_table

        listed = list_table([report(name) for name in report_names()], invocation.repeats)
        invocation.result(listed)
        invocation.document("reproduce", {"reports": exact_rows(listed)})
        return

    from klcli.report.tables import reproductions
    from klcli.store.checkpoints import write_atomically

    lab = invocation.lab()
    reproduced: list[Reproduction] = []
    documents: list[dict[str, Any]] = []
    sections: list[Section] = []
    repeats, vary, resume = invocation.repeats, invocation.vary, invocation.resume
    for found in lab.reproduce(*names or [], settings=settings, repeats=repeats, vary=vary, resume=resume):
        table = reproductions.reproduction_table(found.report, found.comparisons, found.terms)
        notes = reproductions.reproduction_notes(found.report, found.comparisons, found.terms)
        invocation.result(table, *notes)
        pictures = _write_pictures(invocation, lab.store, found, markdown)
        paths = [path for _, path in pictures]
        invocation.result(*(line for path in paths for line in place(path)), "")
        reproduced.append(found)
        documents.append(reproductions.reproduction_document(found, notes, paths))
        sections.append((found.report, table, notes, pictures))
        if markdown is not None:  # after each report: finished reports can be read while the next one trains
            page = reproductions.markdown_page(typed_command(), found.terms, sections)
            write_atomically(markdown, page.encode())
    invocation.result(f"database    {lab.store.path}", *([f"page        {markdown}"] if markdown else []))
    invocation.document("reproduce", {"reports": documents, "markdown": str(markdown) if markdown else None})
    compared = [one for found in reproduced for one in found.comparisons]
    wrong = dict.fromkeys(one.line.row for one in compared if one.failed)
    if wrong:
        raise GradientCheckFailed(f"wrong gradient: {', '.join(wrong)}, see `klcli gradcheck`")
    lost = dict.fromkeys(one.line.row for one in compared if one.diverged and one.ours is None)
    if lost:
        raise Diverged(f"every training of {', '.join(lost)} diverged: there is no number to compare")


def _write_pictures(
    invocation: Invocation, store: "Store", found: "Reproduction", markdown: Path | None
) -> list[tuple[str, Path]]:
    """Write the figures of a report, beside the page if there is one; return the caption and path of each."""
    from klcli.report.plots.reproductions import pictures
    from klcli.store.checkpoints import write_atomically

    def write(name: str, content: bytes) -> Path:
        if markdown is None:
            return store.write_picture(f"study-{max(found.studies):06d}-{name}.png", content)
        path = markdown.with_name(f"{markdown.stem}-{name}.png")
        write_atomically(path, content)
        return path

    written = []
    for name, words, chart in pictures(found, store.runs.epochs):
        path = write_beside(invocation, write, name, chart)
        if path is None:
            break  # the others would fail for the same reason
        written.append((words, path))
    return written
