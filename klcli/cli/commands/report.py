"""`klcli report`: from the stored runs to tables, pictures and a page."""

from pathlib import Path
from typing import Annotated, Any

import typer

from klcli.cli.commands import housekeeping
from klcli.cli.options import (
    DEFAULT_DATABASE,
    OUTPUT,
    DatabasePath,
    DataSource,
    Debug,
    Json,
    Quiet,
    integer_option,
    integers,
    option,
)
from klcli.cli.session import Session
from klcli.cli.variadic import variadic
from klcli.errors import ConfigError
from klcli.report import pictures as report_pictures
from klcli.report.page import sections as report_page
from klcli.report.selection import Selection

VIEWS = "What to show"
FILTERS = "Which runs"
PICTURES = "Pictures and page"
KEEPING = "Keeping house"
FORMATS = ("table", "markdown", "latex", "csv", "json")
MANY = ("--run", "--group-by", "--plot", "--delete")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("report", cls=variadic(*MANY))(report)


def report(
    best: Annotated[
        int | None,
        integer_option("--best", panel=VIEWS, help="The N best complete runs; without options, 10.", bounds=(1, 10**9)),
    ] = None,
    list_all: Annotated[bool, option("--list", panel=VIEWS, help="All runs in all states, the newest first.")] = False,
    run: Annotated[list[str], option("--run", panel=VIEWS, metavar="RUN...", help="These runs, side by side.")] = [],
    diff_only: Annotated[bool, option("--diff-only", panel=VIEWS, help="Of --run, only what differs.")] = False,
    study: Annotated[int | None, integer_option("--study", panel=VIEWS, help="The table of a search or sweep.")] = None,
    group_by: Annotated[
        list[str],
        option(
            "--group-by",
            panel=VIEWS,
            metavar="COLUMN...",
            help="Mean, deviation and n over seeds, as `hidden,bn`, and which rows chance alone could make differ.",
        ),
    ] = [],
    gradchecks: Annotated[bool, option("--gradchecks", panel=VIEWS, help="The latest gradient check.")] = False,
    dataset: Annotated[
        str | None,
        option("--dataset", panel=FILTERS, help="On which images: cifar10, synthetic, or the start of a sha256."),
    ] = None,
    images_of: Annotated[
        int | None, integer_option("--images-of", panel=FILTERS, help="On the images of run N, divided as there.")
    ] = None,
    bn: Annotated[
        bool | None, option("--bn/--no-bn", panel=FILTERS, help="With or without batch normalisation.")
    ] = None,
    state: Annotated[
        str | None,
        option("--state", panel=FILTERS, help="complete, diverged, interrupted, failed or running; lists them."),
    ] = None,
    since: Annotated[
        str | None, option("--since", panel=FILTERS, metavar="WHEN", help="Started since 2026-05-31, or 12h or 7d ago.")
    ] = None,
    tagged: Annotated[str | None, option("--tagged", panel=FILTERS, metavar="TAG", help="With this tag.")] = None,
    where: Annotated[
        str | None,
        option(
            "--where",
            panel=FILTERS,
            metavar="SQL",
            help="""For which a condition on the columns of runs holds: `--where 'lambda < 0.01 AND seed = 0'`.""",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        option("--sort", panel=FILTERS, metavar="COLUMN", help="In this order; `seconds:desc` turns it round."),
    ] = None,
    limit: Annotated[
        int | None, integer_option("--limit", panel=FILTERS, help="Not more than N rows.", bounds=(1, 10**9))
    ] = None,
    format: Annotated[
        str,
        option(
            "--format", panel=OUTPUT, metavar="|".join(FORMATS), help="Of the table; csv and json keep every digit."
        ),
    ] = "table",
    plot: Annotated[
        list[str],
        option("--plot", panel=PICTURES, metavar="KIND...", help=f"Draw it: {report_pictures.KINDS_HELP}."),
    ] = [],
    to: Annotated[
        Path | None,
        option(
            "--to", panel=PICTURES, metavar="FILE", help="Of --plot: a .png, .svg or .pdf instead of one in plots/."
        ),
    ] = None,
    html: Annotated[
        Path | None, option("--html", panel=PICTURES, metavar="FILE", help="All tables and pictures in one page.")
    ] = None,
    data: DataSource = None,
    note: Annotated[
        tuple[str, str] | None,
        option("--note", panel=KEEPING, metavar="RUN TEXT", help="Keep a note; an empty one removes it."),
    ] = None,
    tag: Annotated[tuple[str, str] | None, option("--tag", panel=KEEPING, metavar="RUN TAG", help="Tag a run.")] = None,
    untag: Annotated[
        tuple[str, str] | None, option("--untag", panel=KEEPING, metavar="RUN TAG", help="Take the tag away.")
    ] = None,
    delete: Annotated[
        list[str],
        option(
            "--delete",
            panel=KEEPING,
            metavar="RUN...",
            help="Delete runs, their checkpoints and pictures; asks before.",
        ),
    ] = [],
    yes: Annotated[bool, option("--yes", "-y", panel=KEEPING, help="Of --delete: do not ask.")] = False,
    export: Annotated[
        Path | None, option("--export", panel=KEEPING, metavar="DIR", help="Write all tables as CSV files.")
    ] = None,
    check: Annotated[
        bool,
        option("--check", panel=KEEPING, help="Look for damage: database, checkpoints, files that belong to nothing."),
    ] = False,
    db: DatabasePath = DEFAULT_DATABASE,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what the database knows: tables, pictures, a page; and keep it in order.

    Runs on different images, or on images divided differently, never share a ranking. By default the images
    used last are taken, divided as most runs on them; a line on stderr tells how to see the others.

    - `klcli report --best 3`

    - `klcli report --run 7 9 12 --diff-only`

    - `klcli report --group-by hidden,bn --format latex`

    - `klcli report --run 7 9 12 --plot curves --to figure-1.svg`

    - `klcli report --html report.html`
    """
    session = Session(as_json=as_json, quiet=quiet)
    if format not in FORMATS:
        raise ConfigError(f"--format {format!r}: choose one of {', '.join(FORMATS)}")
    if as_json and format != "table":
        raise ConfigError(f"--json and --format {format}: give one, --json is the whole document")
    runs, deleted = integers(run, "run"), integers(delete, "delete")
    selection = Selection(
        best=best,
        list_all=list_all,
        runs=runs,
        diff_only=diff_only,
        study=study,
        group_by=tuple(name for names in group_by for name in names.split(",") if name),
        gradchecks=gradchecks,
        dataset=dataset,
        images_of=images_of,
        bn=bn,
        state=state,
        since=since,
        tagged=tagged,
        where=where,
        sort=sort,
        limit=limit,
    )
    if to is not None and not plot:
        raise ConfigError(f"--to {to}: this names a picture, say which one with --plot")

    deeds: dict[str, Any] = {
        "note": _of_run("note", note),
        "tag": _of_run("tag", tag),
        "untag": _of_run("untag", untag),
        "delete": deleted,
        "export": export,
        "check": check,
    }
    wanted = [name for name, value in deeds.items() if value]
    if len(wanted) > 1:
        raise ConfigError(f"--{wanted[0]} and --{wanted[1]}: one at a time")
    if wanted:
        housekeeping.do(session, db, wanted[0], deeds[wanted[0]], yes=yes)
    elif html is not None:
        report_page.write(session, db, selection, html, data)
    else:
        _show(session, db, selection, format, plot, to, data)


def _of_run(name: str, given: tuple[str, str] | None) -> tuple[int, str] | None:
    """Read `--note 7 "text"`. Raises ConfigError, which names what is no number."""
    return None if given is None else (integers([given[0]], name)[0], given[1])


def _show(
    session: Session, db: Path, selection: Selection, format: str, plot: list[str], to: Path | None, data: str | None
) -> None:
    from klcli.cli.commands import gradcheck
    from klcli.report import views as report_views
    from klcli.report.tables.formats import FORMATS as RENDERERS
    from klcli.store.store import Store

    only_gradients = plot == ["gradients"] and not selection.has_view
    if (selection.gradchecks or only_gradients) and format == "table" and to is None:
        gradcheck.show(session, Store.existing(db), suite=None)
        return
    store = Store.existing(db)
    view = report_views.view(store, selection, plot)
    pictures = report_pictures.draw(session, store, view, plot, to, data)

    def talk(*lines: str) -> None:
        """Beside the table in a terminal; beside the file that another program reads on stderr."""
        if format == "table":
            session.result(*lines)
        else:
            for line in lines:
                session.say(line)

    if view.table is None:
        talk(*view.notes)
    elif format == "table":
        session.result(view.table, *view.notes)
    else:
        print(RENDERERS[format](view.table, view.notes))
        if format == "csv":
            talk(*view.notes)
    talk(*(f"picture     {picture}" for picture in pictures))
    for hint in view.hints:
        session.say(hint)
    session.document("report", view.document | ({"pictures": list(map(str, pictures))} if pictures else {}))
