"""`klcli report`: from the stored runs to tables, pictures and a page."""

from pathlib import Path
from typing import TYPE_CHECKING

from klcli.cli.commands.upkeep import Upkeep
from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import takes
from klcli.errors import ConfigError
from klcli.settings.selection import Selection

if TYPE_CHECKING:
    from klcli.store.store import Store


@takes(Selection)
@takes(Upkeep)
@invoked("data", "db")
def report(selection: Selection, upkeep: Upkeep, invocation: Invocation) -> None:
    """Show what the database knows as tables, pictures or a page, and manage its runs.

    Runs on different images, or on images divided differently, never share a ranking. By default the images
    used last are taken, divided as most runs on them; a line on stderr gives the command that shows the others.

    - `klcli report --best 3`

    - `klcli report --run 7 9 12 --diff-only`

    - `klcli report --group-by hidden,bn --format latex`

    - `klcli report --run 7 9 12 --plot curves --to figure-1.svg`

    - `klcli report --html report.html`
    """
    if invocation.as_json and selection.format != "table":
        raise ConfigError(f"--json and --format {selection.format}: give one, --json is the whole document")

    from klcli.store.store import Store

    store = Store.existing(invocation.db)
    if upkeep.wanted:
        upkeep.do(invocation, store)
    elif selection.html is not None:
        _write_page(invocation, store, selection, selection.html)
    else:
        _show(invocation, store, selection)


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


def _show(invocation: Invocation, store: "Store", selection: Selection) -> None:
    """Print the view that was asked for, with its pictures."""
    only_gradients = selection.plot == ("gradients",) and not selection.has_view
    if (selection.gradchecks or only_gradients) and selection.format == "table" and selection.to is None:
        from klcli.cli.commands.gradcheck import show

        show(invocation, store, store.gradient_checks.suite())
        return

    from klcli.report.views import view

    shown = view(store, selection, selection.plot)
    pictures = []
    if selection.plot:
        from klcli.report.pictures import draw
        from klcli.store.checkpoints import write_atomically

        # All are drawn before the first one is written.
        for path, content in draw(store, shown, selection.plot, selection.to, invocation.data):
            write_atomically(path, content)
            pictures.append(str(path))
    # Beside the table in a terminal; on stderr beside a format that another program reads.
    messages = [f"picture     {picture}" for picture in pictures]
    if shown.table is None:
        messages = [*shown.notes, *messages]
    elif selection.format == "table":
        invocation.result(shown.table, *shown.notes)
    else:
        from klcli.report.tables.formats import FORMATS

        print(FORMATS[selection.format](shown.table, shown.notes))
        messages = [*(shown.notes if selection.format == "csv" else ()), *messages]
    for message in messages:
        (invocation.result if selection.format == "table" else invocation.say)(message)
    for hint in shown.hints:
        invocation.say(hint)
    invocation.document("report", shown.document | ({"pictures": pictures} if pictures else {}))
