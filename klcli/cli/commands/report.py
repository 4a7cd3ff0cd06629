"""`klcli report`: from the stored runs to tables, pictures and a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klcli.cli.commands.upkeep import Upkeep
from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import gathers, integer_option, integers, option
from klcli.cli.variadic import variadic
from klcli.errors import ConfigError
from klcli.report.selection import STATES, Selection
from klcli.settings.setting import Role

if TYPE_CHECKING:
    from klcli.report.views import View
    from klcli.store.store import Store

VIEWS = "What to show"
FILTERS = "Which runs"
PICTURES = "Pictures and HTML report"
FORMATS = ("table", "markdown", "latex", "csv", "json")
MANY = ("--run", "--group-by", "--plot", "--delete")
ROWS = (1, 10**9)

# The options of a Selection, by its fields.
SELECTION: dict[str, Any] = {
    "best": Annotated[
        int | None,
        integer_option("--best", panel=VIEWS, help="The N best complete runs; without options, 10.", bounds=ROWS),
    ],
    "list_all": Annotated[bool, option("--list", panel=VIEWS, help="All runs in all states, the newest first.")],
    "runs": Annotated[
        list[str],
        option(
            "--run", panel=VIEWS, metavar="RUN...", help="These runs, side by side.",
            callback=lambda texts: integers(texts, "run"),
        ),
    ],
    "diff_only": Annotated[bool, option("--diff-only", panel=VIEWS, help="Of --run, only what differs.")],
    "study": Annotated[int | None, integer_option("--study", panel=VIEWS, help="The table of a search or sweep.")],
    "group_by": Annotated[
        list[str],
        option(
            "--group-by", panel=VIEWS, metavar="COLUMN...",
            help="Mean, deviation and n over seeds, as `hidden,bn`, and which rows chance alone could make differ.",
            callback=lambda texts: tuple(name for text in texts for name in text.split(",") if name),
        ),
    ],
    "gradchecks": Annotated[bool, option("--gradchecks", panel=VIEWS, help="The latest gradient check.")],
    "dataset": Annotated[
        str | None,
        option("--dataset", panel=FILTERS, help="On which images: cifar10, synthetic, or the start of a sha256."),
    ],
    "images_of": Annotated[
        int | None, integer_option("--images-of", panel=FILTERS, help="On the images of run N, divided as there.")
    ],
    "bn": Annotated[
        bool | None, option("--bn/--no-bn", panel=FILTERS, help="With or without batch normalisation.")
    ],
    "state": Annotated[
        str | None,
        option("--state", panel=FILTERS, help=f"{', '.join(STATES[:-1])} or {STATES[-1]}; lists them."),
    ],
    "since": Annotated[
        str | None, option("--since", panel=FILTERS, metavar="WHEN", help="Started since 2026-05-31, or 12h or 7d ago.")
    ],
    "tagged": Annotated[str | None, option("--tagged", panel=FILTERS, metavar="TAG", help="With this tag.")],
    "where": Annotated[
        str | None,
        option(
            "--where", panel=FILTERS, metavar="SQL",
            help="For which a condition on the columns of runs holds: `--where 'lambda < 0.01 AND seed = 0'`.",
        ),
    ],
    "sort": Annotated[
        str | None,
        option("--sort", panel=FILTERS, metavar="COLUMN", help="In this order; `seconds:desc` reverses it."),
    ],
    "limit": Annotated[int | None, integer_option("--limit", panel=FILTERS, help="At most N rows.", bounds=ROWS)],
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("report", cls=variadic(*MANY))(report)


@gathers(Selection, "selection", SELECTION)
@gathers(Upkeep, "upkeep", last=True)
@invoked("data", "db")
def report(
    selection: Selection,
    upkeep: Upkeep,
    format: Annotated[
        str,
        option(
            "--format",
            panel=Role.OUTPUT.value,
            metavar="|".join(FORMATS),
            help="Of the table; csv and json keep every digit.",
        ),
    ] = "table",
    plot: Annotated[
        list[str],
        option(
            "--plot",
            panel=PICTURES,
            metavar="KIND...",
            help="Draw it: curves of one run, or of several over one another with a band for seeds; bn, one network "
            "with and without it; rate; weights of the first layer; confusion; lambda and sigma of a study; gradients.",
        ),
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
    *,
    invocation: Invocation,
) -> None:
    """Show what the database knows as tables, pictures or a page, and manage its runs.

    Runs on different images, or on images divided differently, never share a ranking. By default the images
    used last are taken, divided as most runs on them; a line on stderr gives the command that shows the others.

    - `klcli report --best 3`

    - `klcli report --run 7 9 12 --diff-only`

    - `klcli report --group-by hidden,bn --format latex`

    - `klcli report --run 7 9 12 --plot curves --to figure-1.svg`

    - `klcli report --html report.html`
    """
    if format not in FORMATS:
        raise ConfigError(f"--format {format!r}: choose one of {', '.join(FORMATS)}")
    if invocation.as_json and format != "table":
        raise ConfigError(f"--json and --format {format}: give one, --json is the whole document")
    if to is not None and not plot:
        raise ConfigError(f"--to {to}: this names a picture, say which one with --plot")

    from klcli.store.store import Store

    store = Store.existing(invocation.db)
    if upkeep.wanted:
        upkeep.do(invocation, store)
    elif html is not None:
        _write_page(invocation, store, selection, html)
    else:
        _show(invocation, store, selection, format, plot, to)


def _write_page(invocation: Invocation, store: "Store", selection: Selection, path: Path) -> None:
    """Write the page; where there is no run yet, name the command to run first instead."""
    from klcli.report.page.page import render
    from klcli.report.page.sections import Sections
    from klcli.report.views import FIRST_COMMAND, states_words
    from klcli.store.checkpoints import write_atomically

    sections = Sections(store, selection, invocation.data, invocation.say)
    counts = store.runs.count_by_state()
    if not counts and not store.gradient_checks.suites():
        invocation.result(f"{store.path} holds no run yet: begin with `{FIRST_COMMAND}`")
        invocation.document("report", {"page": None})
        return
    shown = []
    with invocation.progress("drawing", len(sections)) as advance:
        for section in sections:
            shown.append(section)
            advance(1)
    page = render("klcli report", f"{store.path}: {states_words(counts) or 'no runs'}", shown)
    write_atomically(path, page.encode())
    invocation.result(f"page        {path} ({len(page) / 1e6:.1f} MB)")
    invocation.document("report", {"page": str(path), "sections": [section.title for section in shown]})


def _show(
    invocation: Invocation, store: "Store", selection: Selection, format: str, plot: list[str], to: Path | None
) -> None:
    only_gradients = plot == ["gradients"] and not selection.has_view
    if (selection.gradchecks or only_gradients) and format == "table" and to is None:
        from klcli.cli.commands.gradcheck import show

        show(invocation, store, store.gradient_checks.suite())
        return

    from klcli.report.views import view

    shown = view(store, selection, plot)
    pictures = _write_pictures(invocation, store, shown, plot, to) if plot else []
    # Beside the table in a terminal; on stderr beside a format that another program reads.
    messages = [f"picture     {picture}" for picture in pictures]
    if shown.table is None:
        messages = [*shown.notes, *messages]
    elif format == "table":
        invocation.result(shown.table, *shown.notes)
    else:
        from klcli.report.tables.formats import FORMATS as RENDERERS

        print(RENDERERS[format](shown.table, shown.notes))
        messages = [*(shown.notes if format == "csv" else ()), *messages]
    for message in messages:
        (invocation.result if format == "table" else invocation.say)(message)
    for hint in shown.hints:
        invocation.say(hint)
    invocation.document("report", shown.document | ({"pictures": list(map(str, pictures))} if pictures else {}))


def _write_pictures(
    invocation: Invocation, store: "Store", shown: "View", kinds: list[str], to: Path | None
) -> list[Path]:
    """Draw all pictures, then write them, and return their paths."""
    from klcli.report.pictures import draw
    from klcli.store.checkpoints import write_atomically

    drawn = draw(store, shown, kinds, to, invocation.data)
    for path, content in drawn:
        write_atomically(path, content)
    return [path for path, _ in drawn]
