"""`klcli report`: tables, pictures and an HTML page of the stored runs; notes, tags, deletion, export and check."""

import io
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from klcli.cli.commands.gradcheck import raise_for_failed, show
from klcli.cli.invocation import Invocation, invoked, reason
from klcli.cli.options import takes
from klcli.errors import ConfigError, KlcliError, StoreError
from klcli.report.words import counted, network_name
from klcli.settings.selection import Selection
from klcli.settings.setting import Settings, flag, require, setting, settings_of
from klcli.text import storable

if TYPE_CHECKING:
    from klcli.report.pictures import Picture
    from klcli.store.store import Store

PANEL = "Manage runs"
NEWEST = 300  # checkpoints whose contents --check reads: 1 s for networks of 1 MB


@dataclass(frozen=True, kw_only=True)
class Upkeep(Settings):
    """The change or check to make. Raises ConfigError if two are requested at once."""

    note: tuple[int, str] | None = setting(None, PANEL, "Store a note; an empty one removes it.", metavar="RUN TEXT")
    tag: tuple[int, str] | None = setting(None, PANEL, "Tag a run.", metavar="RUN TAG")
    untag: tuple[int, str] | None = setting(None, PANEL, "Remove the tag.", metavar="RUN TAG")
    delete: tuple[int, ...] = setting(
        (), PANEL, "Delete runs, their checkpoints and pictures; asks for confirmation.", metavar="RUN..."
    )
    yes: bool = flag(PANEL, "Skip the confirmation of --delete.", short="-y")
    export: Path | None = setting(None, PANEL, "Write all tables as CSV files.", metavar="DIR")
    check: bool = flag(PANEL, f"Check database and checkpoints (contents of the newest {NEWEST}), find orphaned files.")
    check_contents: bool = flag(PANEL, "Check the same, with the contents of all checkpoints (3 ms per megabyte).")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.wanted) < 2, f"--{' and --'.join(self.wanted[:2])}: give one at a time")

    @property
    def wanted(self) -> list[str]:
        return [one.name.replace("_", "-") for one in fields(self) if one.name != "yes" and getattr(self, one.name)]

    def do(self, invocation: Invocation, store: "Store") -> None:
        upkeep = store.upkeep
        changes = (self.note, upkeep.set_note), (self.tag, upkeep.add_tag), (self.untag, upkeep.remove_tag)
        for given, write in changes:
            if given is not None:
                write(given[0], storable(given[1]))
                run = store.runs.get(given[0])
                invocation.result(f"run {run.id}: note {run.note or '-'}, tags {run.tags or '-'}")
                invocation.document("report", {"run": run.id, "note": run.note, "tags": (run.tags or "").split()})
        if self.delete:
            self._delete(invocation, store)
        if self.export is not None:
            written = store.upkeep.export(self.export)
            invocation.result(*(f"{self.export / name}  {rows} rows" for name, rows in written.items()))
            invocation.document("report", {"folder": str(self.export), "files": written})
        if self.check or self.check_contents:
            self._check(invocation, store)

    def _delete(self, invocation: Invocation, store: "Store") -> None:
        runs, numbers = [store.runs.get(number) for number in self.delete], " ".join(map(str, self.delete))
        what = f"delete {len(runs)} {counted(len(runs), 'run')} with epochs, checkpoints and pictures"
        silent = f"--delete {numbers}: there is no terminal to confirm it, add --yes to {what}"
        require(self.yes or sys.stdin.isatty(), silent)
        for run in runs:
            invocation.say(f"run {run.id}: {network_name(run.config)} on {run.dataset}, {run.state}")
        if not self.yes and not typer.confirm(f"{what.capitalize()}?", err=True):
            invocation.say("nothing was deleted")
            return
        files = store.upkeep.delete(self.delete)
        invocation.result(*(f"deleted run {number}" for number in self.delete), *(f"deleted {one}" for one in files))
        invocation.document("report", {"deleted": self.delete, "files": files})

    def _check(self, invocation: Invocation, store: "Store") -> None:
        from klcli.store.records import RunFilter

        number = sum(store.runs.count_by_state().values())
        files = store.runs.count(RunFilter(where="checkpoint IS NOT NULL"))
        read = files if self.check_contents else min(files, NEWEST)
        which = "all checkpoints" if read == files else f"the newest {read} of {files} checkpoints"
        with invocation.counting("checking", read) as advance:
            damage, orphans = store.upkeep.check(None if read == files else read, advance)
        if found := [*(f"damaged  {what}" for what in damage), *(f"orphan   {what}" for what in orphans)]:
            invocation.result("\n".join(found))  # one text: printing 100 000 separately takes 10 s
        if not damage:
            words = f"{number} {counted(number, 'run')}, the database and {which} are sound"
            invocation.result(f"{store.path}: {words}, {len(orphans)} {counted(len(orphans), 'orphan')}")
        if read < files:
            invocation.say(f"only {which} were read: `klcli report --check-contents` reads all")
        invocation.document("report", {"damage": damage, "orphans": orphans, "checkpoints": files, "read": read})
        if damage:
            raise StoreError(f"{store.path}: {len(damage)} damaged, restore a copy or delete the runs with --delete")


@takes(Selection)
@takes(Upkeep)
@invoked("data", "db")
def report(selection: Selection, upkeep: Upkeep, invocation: Invocation) -> None:
    """Show the content of the database as tables, pictures or an HTML page, and manage its runs.

    Runs on different images or different splits are never ranked together. By default, the ranking uses the most
    recent images and the split that most of their runs have; stderr names the command that shows the others.

    - `klcli report --best 3`

    - `klcli report --run 7 9 12 --diff-only`

    - `klcli report --group-by hidden,bn --format latex`

    - `klcli report --run 7 9 12 --plot curves --to figure-1.svg`

    - `klcli report --html report.html`
    """
    both = f"--json and --format {selection.format}: give one, --json is the whole document"
    require(not invocation.as_json or selection.format == "table", both)
    require(not upkeep.yes or bool(upkeep.delete), "--yes: confirms --delete, omit it")
    if upkeep.wanted and selection != Selection():
        given = next(one for one in settings_of(Selection).values() if getattr(selection, one.key) != one.default)
        raise ConfigError(f"--{upkeep.wanted[0]} and {given.option}: give one at a time")

    from klcli.store.store import Store

    store = Store.existing(invocation.db)
    if upkeep.wanted:
        upkeep.do(invocation, store)
    elif selection.html is not None:
        _write_page(invocation, store, selection, selection.html)
    else:
        _show(invocation, store, selection)


def _write_page(invocation: Invocation, store: "Store", selection: Selection, path: Path) -> None:
    from klcli.report.page.page import render
    from klcli.report.page.sections import Sections
    from klcli.report.views import FIRST_COMMAND, states_words
    from klcli.store.checkpoints import write_atomically

    require(not path.is_dir(), f"--html {path}: this is a folder, name a file")
    sections, shown = Sections(store, selection, invocation.data, invocation.say), []
    counts = store.runs.count_by_state()
    if not counts and not store.gradient_checks.suites():
        invocation.result(f"{store.path} holds no run yet: begin with `{FIRST_COMMAND}`")
        invocation.document("report", {"page": None})
        return
    with invocation.counting("drawing", len(sections)) as advance:
        for section in sections:
            shown.append(section)
            advance(1)
    page = render("klcli report", f"{store.path}: {states_words(counts) or 'no runs'}", shown)
    write_atomically(path, page.encode())
    invocation.result(f"page        {path} ({len(page) / 1e6:.1f} MB)")
    invocation.document("report", {"page": str(path), "sections": [section.title for section in shown]})


def _show(invocation: Invocation, store: "Store", selection: Selection) -> None:
    if selection.gradchecks and selection.format == "table" and not selection.plot:
        show(invocation, store, store.gradient_checks.suite(), selection.shown_measures, selection.limit)
        return

    from klcli.report.views import view
    from klcli.store.checkpoints import write_atomically

    shown = view(store, selection)
    pictures: list[tuple[Path, Picture]] = []
    if selection.plot:
        from klcli.report.pictures import planned

        pictures = planned(store, shown, selection.plot, selection.to, invocation.data)
    # To stdout with a table for a person; to stderr with a format for another program.
    say = invocation.result if selection.format == "table" else invocation.say
    if shown.table is None:
        say(*shown.notes)
    elif selection.format == "table":
        invocation.result(*(shown.tables or [shown.table]), *shown.notes)
    else:
        from klcli.report.tables.formats import FORMATS

        if selection.format == "csv-semicolon" and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # as the byte order mark promises
        print(FORMATS[selection.format](shown.table, shown.notes))
        invocation.say(*(shown.notes if selection.is_csv else ()))
    invocation.say(*shown.hints)
    written: list[Path] = []
    path = Path()
    try:  # the table first: a picture can fail, for example on a full disk
        for path, picture in pictures:
            write_atomically(path, picture())
            written.append(path)
            say(f"picture     {path}")
    except KlcliError:
        raise
    except Exception as error:  # a broken matplotlib can raise anything
        raise StoreError(f"{path}: cannot be drawn ({reason(error)})") from error
    finally:
        invocation.document("report", shown.document | ({"pictures": written} if selection.plot else {}))
    if selection.is_about_gradients:
        raise_for_failed(store.gradient_checks.suite())
