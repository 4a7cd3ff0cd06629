"""`klcli report`: from the stored runs to tables, pictures and a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from klcli.cli.commands.upkeep import Upkeep
from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import takes
from klcli.errors import ConfigError
from klcli.settings.selection import Selection
from klcli.settings.setting import Role, setting

if TYPE_CHECKING:
    from klcli.report.views import View
    from klcli.store.store import Store

PICTURES = "Pictures and HTML report"


@takes(Selection)
@takes(Upkeep)
@invoked("data", "db")
def report(
    *,
    selection: Selection,
    format: str = setting(
        "table",
        Role.OUTPUT,
        "Print the table in this format; csv and json keep every digit.",
        choices=("table", "markdown", "latex", "csv", "json"),
    ),
    plot: tuple[str, ...] = setting(
        (),
        PICTURES,
        "Draw curves of one run, or of several over one another with a band for seeds; bn, one network "
        "with and without it; rate; weights of the first layer; confusion; lambda and sigma of a study; gradients.",
        metavar="KIND...",
    ),
    to: Path | None = setting(
        None, PICTURES, "Write --plot to this .png, .svg or .pdf instead of one in plots/.", metavar="FILE"
    ),
    html: Path | None = setting(None, PICTURES, "Write all tables and pictures into one page.", metavar="FILE"),
    upkeep: Upkeep,
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
    with invocation.counting("drawing", len(sections)) as advance:
        for section in sections:
            shown.append(section)
            advance(1)
    page = render("klcli report", f"{store.path}: {states_words(counts) or 'no runs'}", shown)
    write_atomically(path, page.encode())
    invocation.result(f"page        {path} ({len(page) / 1e6:.1f} MB)")
    invocation.document("report", {"page": str(path), "sections": [section.title for section in shown]})


def _show(
    invocation: Invocation, store: "Store", selection: Selection, format: str, plot: Sequence[str], to: Path | None
) -> None:
    only_gradients = plot == ("gradients",) and not selection.has_view
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
    invocation: Invocation, store: "Store", shown: "View", kinds: Sequence[str], to: Path | None
) -> list[Path]:
    """Draw all pictures, then write them, and return their paths."""
    from klcli.report.pictures import draw
    from klcli.store.checkpoints import write_atomically

    drawn = draw(store, shown, kinds, to, invocation.data)
    for path, content in drawn:
        write_atomically(path, content)
    return [path for path, _ in drawn]
