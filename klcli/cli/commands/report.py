"""`klcli report`: tables, pictures and an HTML page of the stored runs. It reads; `klcli runs` changes them."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from klcli.cli.commands.gradcheck import raise_for_failed
from klcli.cli.invocation import Invocation, invoked, reason
from klcli.cli.options import takes
from klcli.errors import KlcliError, StoreError
from klcli.files import is_text, require_export
from klcli.report.tables.table import Table
from klcli.settings.selection import Selection
from klcli.settings.setting import require

if TYPE_CHECKING:
    from klcli.store.store import Store


@takes(Selection)
@invoked("data", "db")
def report(selection: Selection, invocation: Invocation) -> None:
    """Show the content of the database as tables, pictures or an HTML page; `klcli runs` changes it.

    Runs on different images or different splits are never ranked together. By default, the ranking uses the
    images that were used last (after a merge, those of the most runs), and the split of most of their runs; runs with
    --subset or --train-batches, or on synthetic images, come last. stderr names the command that shows the others.

    - `klcli report --best 3`
    - `klcli report --run 7 9-12 --diff-only`
    - `klcli report --group-by hidden,bn --format latex`
    - `klcli report --run 7 9 12 --plot curves --to figure-1.pdf --width 16 --no-title --split train`
    - `klcli report --html report.html`
    """
    both = f"--json and --format {selection.format}: give one, --json is the whole document"
    require(not invocation.as_json or selection.format == "table", both)
    page = None if selection.html is None else require_export(selection.html, is_text, "--html")
    store = invocation.existing_store()
    if page is not None:
        _write_page(invocation, store, selection, page)
    else:
        _show(invocation, store, selection)


def _write_page(invocation: Invocation, store: "Store", selection: Selection, path: Path) -> None:
    with invocation.step("reading the database"):  # and importing what draws, which is slow the first time
        from klcli.report.page.page import render
        from klcli.report.page.sections import Sections
        from klcli.report.views import FIRST_COMMAND, states_words
        from klcli.store.checkpoints import write_atomically

        sections, shown = Sections(store, selection, invocation.data, invocation.say), []
    counts = store.runs.count_by_state()
    if not counts and not store.gradient_checks.suite():
        invocation.result(f"{store.path} holds no run yet: begin with `{FIRST_COMMAND}{invocation.database_words}`")
        invocation.document("report", {"page": None})
        return
    with invocation.step("making the page", len(sections)) as advance:
        for section in sections:
            shown.append(section)
            advance(1)
    page = render("klcli report", f"{store.path}: {states_words(counts) or 'no runs'}", shown)
    write_atomically(path, page.encode())
    invocation.result(f"page        {path} ({len(page) / 1e6:.1f} MB)")
    invocation.document("report", {"page": str(path), "sections": [section.title for section in shown]})


def _show(invocation: Invocation, store: "Store", selection: Selection) -> None:
    from klcli.report.views import view
    from klcli.store.checkpoints import write_atomically

    with invocation.step("reading the database"):
        shown = view(store, selection)
    pictures: list[tuple[Path, Callable[[], bytes]]] = []
    if selection.plot:
        from klcli.report.pictures import planned

        pictures = planned(store, shown, selection, invocation.data)
    # To stdout with a table for a person; to stderr with a format for another program.
    say = invocation.result if selection.format == "table" else invocation.say
    table = shown.table or (Table("", (), ()) if selection.format == "json" else None)
    if table is None:
        say(*shown.notes)
    elif selection.format == "table":
        invocation.result(*(shown.tables or [table]), *shown.notes)
    else:
        from klcli.report.tables.formats import formatted

        tables = [table] if selection.is_csv or selection.format == "json" else shown.tables or [table]
        if selection.format == "csv-semicolon" and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # as the byte order mark promises
        with invocation.step("writing the table"):
            text = formatted(selection.format, tables, shown.notes, shown.name)
        print(text)
        invocation.say(*(shown.notes if selection.is_csv else ()))
    invocation.say(*(f"{command}{invocation.database_words}" for command in shown.hints))
    written, path = list[Path](), Path()
    try:  # the table first: a picture can fail, for example on a full disk
        for path, picture in pictures:
            with invocation.step("drawing"):
                write_atomically(path, picture())
            written.append(path)
            say(f"picture     {path}")
    except KlcliError:
        raise
    except Exception as error:  # a broken matplotlib can raise anything
        raise StoreError(f"{path}: cannot be drawn ({reason(error)})") from error
    finally:
        document = shown.document | {"notes": [*shown.notes]}
        invocation.document("report", document | ({"pictures": written} if selection.plot else {}))
    if selection.is_about_gradients:
        raise_for_failed(store.gradient_checks.suite())
