"""`klcli assignment`: train what an assignment of the course asks, and write its figures, tables and document."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from klcli.cli.commands.train import raise_for_lost
from klcli.cli.invocation import Invocation, invoked, typed_command
from klcli.cli.options import argument, takes
from klcli.errors import GradientCheckFailed
from klcli.files import require_file_name
from klcli.report.tables.table import duration
from klcli.report.words import counted
from klcli.settings.editions import ASSIGNMENT, AssignmentSettings
from klcli.settings.run_command import in_database
from klcli.settings.setting import flag


@takes(AssignmentSettings)
@invoked("jobs", "data", "threads", "db")
def assignment(
    *,
    folder: Annotated[
        Path | None,
        argument("FOLDER", "Where to write; if omitted, `assignment` beside klcli.db, `ada-assignment` beside ada.db."),
    ] = None,
    editions: bool = flag(ASSIGNMENT, "Show what each edition of the course asks, and exit."),
    dry_run: bool = flag(ASSIGNMENT, "Show what is there, what is missing and how long that takes, and exit."),
    settings: AssignmentSettings,
    invocation: Invocation,
) -> None:
    """Train what an assignment of the course asks, and write its figures, tables and a LaTeX document.

    Trainings that the database has are used, whichever command has made them. After Ctrl-C, the same command
    continues. Figures have the width of a page, and their numbers and commands beside them.

    - `klcli assignment --dry-run`
    - `klcli assignment report --edition a3-2021 --repeats 3`
    - `klcli assignment --data synthetic --subset 2000 --epochs 2`
    """
    from klcli.data.sources import open_dataset
    from klcli.procedures.assignment import FIGURES_SECONDS
    from klcli.report import assignment as report
    from klcli.report.tables.formats import exact_rows
    from klcli.store.reading import folder_of
    from klcli.training.cores import cores

    if editions:
        listed = report.editions_table()
        invocation.result(listed)
        invocation.document("assignment", {"editions": [*exact_rows(listed)]})
        return
    folder = folder_of(invocation.db, "assignment") if folder is None else folder
    report.require_own(folder)
    if not dry_run:
        require_file_name(folder / report.INDEX, "assignment")
        report.require_same(folder, settings, open_dataset(invocation.data, invocation.say, invocation.step).name)
    lab = invocation.lab
    parts = lab.plan_assignment(settings)
    n, seconds = min(invocation.jobs or cores(), cores()), sum(part.seconds for part in parts)
    seconds += FIGURES_SECONDS if seconds else 0.0
    invocation.result(report.plan_table(parts, settings.edition))
    if seconds:
        measured = "measured just now on a few of these images"
        on = f"on {n} {counted(n, 'core')}"
        invocation.result(f"about {duration(seconds)} {on}, by the speed of each network, {measured}")
    content: dict[str, Any] = {"parts": [*map(asdict, parts)], "seconds": seconds}
    if not dry_run:
        found = lab.assignment(settings)
        invocation.say("drawing the figures")
        sections = [*report.sections(found, lab.epochs)]
        files, is_edited = report.write(folder, found, sections, typed_command(), invocation.picture)
        if is_edited:
            stays = "is edited and stays as it is, with the old numbers in its sentences"
            cure = "it has the new figures and tables. Move it away to get a new one"
            invocation.warn(f"{folder / report.DOCUMENT} {stays}; {cure}")
        invocation.result("")
        named = {"index": report.INDEX, "document": report.DOCUMENT}
        invocation.places(**{kind: folder / name for kind, name in named.items()})
        content |= {"folder": folder, "files": files}
    invocation.document("assignment", content)
    if dry_run:
        return
    if wrong := [check for check in found.checks if not check.passed]:
        raise GradientCheckFailed(f"{len(wrong)} of {len(found.checks)} networks have a wrong gradient")
    trained = {"every network of the curves": [run for runs in found.curves for run in runs]}
    trained |= {"the final training": [*found.final], "every network of the sweep": [*found.sweep]}
    raise_for_lost(trained, f"`{in_database('klcli report --list', invocation.db)}` shows the runs")
