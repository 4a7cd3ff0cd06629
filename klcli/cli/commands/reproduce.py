"""`klcli reproduce`: repeat the experiments of published reports and compare the numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klcli.cli.invocation import Invocation, invoked, typed_command
from klcli.cli.options import takes
from klcli.errors import Diverged, GradientCheckFailed
from klcli.settings.procedures import REPRODUCTION, ReproductionSettings
from klcli.settings.setting import Role, flag, setting

if TYPE_CHECKING:
    from klcli.published.reproduction import Reproduction
    from klcli.report.tables.reproductions import Section


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
    run could be one more run of ours; differs; undecided, if our runs scatter too much to tell a difference of 2
    points; or cannot be compared, with the reason. A training that several rows share is run once.

    - `klcli reproduce --list`

    - `klcli reproduce a3-2024 --only T2 --repeats 5`

    - `klcli reproduce all --markdown results/reproduction.md`
    """
    if list_reports:
        from klcli.published.report import report, report_names
        from klcli.report.tables.formats import exact_rows
        from klcli.report.tables.reproductions import list_table

        listed = list_table([*map(report, report_names())], invocation.repeats)
        invocation.result(listed)
        invocation.document("reproduce", {"reports": exact_rows(listed)})
        return

    from klcli.report.tables import reproductions
    from klcli.store.checkpoints import write_atomically

    documents: list[dict[str, Any]] = []
    total: dict[str, Any] = {}
    sections: list[Section] = []
    reproduced: list[Reproduction] = []
    for found in invocation.lab.reproduce(*names or [], settings=settings, **invocation.seeds):
        table, notes = reproductions.reproduction_table(found), reproductions.reproduction_notes(found)
        invocation.result(table, *notes)
        pictures = _write_pictures(invocation, found, markdown)
        paths = [path for _, path in pictures]
        invocation.result(*(f"picture     {path}" for path in paths), "")
        reproduced.append(found)
        documents.append(reproductions.reproduction_document(found, notes, paths))
        sections.append((found.report, table, notes, pictures))
        total = reproductions.headline(reproduced)
        if markdown is not None:  # after each report: finished reports can be read while the next one trains
            page = reproductions.markdown_page(typed_command(), found.terms, sections, total["lines"])
            write_atomically(markdown, page.encode())
    invocation.result(*total["lines"])
    invocation.places(page=markdown)
    invocation.document("reproduce", {"reports": documents, "headline": total, "markdown": markdown})
    compared = [one for found in reproduced for one in found.comparisons]
    if wrong := dict.fromkeys(one.line.row for one in compared if one.failed):
        raise GradientCheckFailed(f"wrong gradient: {', '.join(wrong)}, see `klcli gradcheck`")
    if lost := dict.fromkeys(one.line.row for one in compared if one.diverged and one.ours is None):
        raise Diverged(f"every training of {', '.join(lost)} diverged: there is no number to compare")


def _write_pictures(invocation: Invocation, found: "Reproduction", markdown: Path | None) -> list[tuple[str, Path]]:
    """Write the figures of a report, beside the page if there is one; return the caption and path of each."""
    from klcli.report.plots.reproductions import pictures

    store, written, study = invocation.lab.store, [], f"study-{max(found.studies, default=0):06d}"
    stem = markdown.with_suffix("") if markdown else store.folder("plots") / study
    for name, words, chart in pictures(found, store.runs.epochs):
        if (path := invocation.picture(stem.parent / f"{stem.name}-{name}.png", chart)) is None:
            break  # the others would fail for the same reason
        written.append((words, path))
    return written
