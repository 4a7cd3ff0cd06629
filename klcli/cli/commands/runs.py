"""`klcli runs`: what changes, keeps, checks, merges or repeats the runs of a database."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from klcli.cli.commands.train import show_run
from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import KlcliCommand, RecordingCommand, argument
from klcli.errors import StoreError
from klcli.files import irregular
from klcli.report.tables.table import Table, columns
from klcli.report.words import counted, network_name
from klcli.settings.procedures import EXPORT_FORMATS
from klcli.settings.run_names import NAME_HELP, NAMES_HELP, names_of
from klcli.settings.setting import flag, require, setting
from klcli.store.records import RunFilter
from klcli.termination import at_the_end
from klcli.text import path_text, storable, visible

if TYPE_CHECKING:
    from klcli.store.store import Store
    from klcli.store.upkeep import Upkeep

app = typer.Typer(help="Manage runs: notes, tags, deletion, export, check, merge, rerun.", no_args_is_help=True)

PANEL = "Manage runs"
FEW = 5  # missing checkpoints of a merged database that are named: if it has none, every run misses one
EXAMPLE = "for example results/klcli.db"
NEWEST = 300  # checkpoints whose contents a check reads: 1 s for networks of 1 MB
SomeRuns = Annotated[list[str], argument("RUN...", NAMES_HELP)]
Tag = Annotated[str, argument("TAG", "A word without spaces.")]


@app.command(cls=RecordingCommand)
@invoked("db")
def note(
    runs: SomeRuns,
    text: Annotated[
        str, argument("TEXT", "The note; an empty one removes it, and -- comes before one that begins with -.")
    ],
    *,
    invocation: Invocation,
) -> None:
    """Store a note with runs; it replaces the one before.

    - `klcli runs note 7 "the one for the thesis"`
    """
    _change(invocation, "note", runs, lambda upkeep, numbers: upkeep.set_note(numbers, storable(text)))


@app.command(cls=RecordingCommand)
@invoked("db")
def tag(runs: SomeRuns, tag: Tag, *, invocation: Invocation) -> None:
    """Tag runs, for `klcli report --tagged TAG`.

    - `klcli runs tag 1-3 7 baseline`
    """
    _change(invocation, "tag", runs, lambda upkeep, numbers: upkeep.add_tag(numbers, storable(tag)))


@app.command(cls=RecordingCommand)
@invoked("db")
def untag(runs: SomeRuns, tag: Tag, *, invocation: Invocation) -> None:
    """Remove a tag from runs.

    - `klcli runs untag 1-3 baseline`
    """
    _change(invocation, "untag", runs, lambda upkeep, numbers: upkeep.remove_tag(numbers, storable(tag)))


def _change(
    invocation: Invocation, verb: str, names: Sequence[str], change: "Callable[[Upkeep, Sequence[int]], None]"
) -> None:
    store, numbers = _chosen(invocation, names, verb)
    change(store.upkeep, numbers)
    changed = [store.runs.get(number) for number in numbers]
    invocation.result(*(f"run {run.id}: note {run.note or '-'}, tags {run.tags or '-'}" for run in changed))
    documents = [{"run": run.id, "note": run.note, "tags": (run.tags or "").split()} for run in changed]
    invocation.document(f"runs {verb}", {"runs": documents})


@app.command(cls=RecordingCommand)
@invoked("db")
def delete(
    runs: SomeRuns, yes: bool = flag(PANEL, "Skip the confirmation.", short="-y"), *, invocation: Invocation
) -> None:
    """Delete runs with their epochs, checkpoints and pictures.

    - `klcli runs delete 7 9-12 --yes`
    """
    store, numbers = _chosen(invocation, runs, "delete")
    what = f"delete {len(numbers)} {counted(len(numbers), 'run')} with epochs, checkpoints and pictures"
    silent = f"delete {' '.join(runs)}: there is no terminal to confirm it, add --yes to {what}"
    require(yes or sys.stdin.isatty(), silent)
    for run in map(store.runs.get, numbers):
        try:
            network = network_name(run.config)
        except StoreError:  # damaged: the check recommends to delete it
            network = "unreadable settings"
        invocation.say(f"run {run.id}: {network} on {run.dataset}, {run.state}")
    if not yes and not typer.confirm(f"{what.capitalize()}?", err=True):
        invocation.say("nothing was deleted")
        return
    with invocation.step("deleting"):
        files = store.upkeep.delete(numbers)
    invocation.result(*(f"deleted run {number}" for number in numbers), *(f"deleted {one}" for one in files))
    invocation.document("runs delete", {"deleted": numbers, "files": files})


@app.command(cls=KlcliCommand)
@invoked("data", "db")
def export(
    run: Annotated[str | None, argument("RUN", NAME_HELP)] = None,
    file: Annotated[Path | None, argument("FILE", "With --to; if omitted, as network-000007.npz.")] = None,
    to: str | None = setting(
        None, PANEL, "Write the network of a run, with the names of a PyTorch state_dict.", choices=EXPORT_FORMATS
    ),
    tables: Path | None = setting(None, PANEL, "Write every table as a CSV file into this folder.", metavar="FOLDER"),
    *,
    invocation: Invocation,
) -> None:
    """Write the network of a run, or the tables of the database, for other programs.

    `klcli help checkpoints` has the lines of PyTorch and of NumPy that read a network. The images of a run (--data) are
    needed only if an older klcli trained it.

    - `klcli runs export best --to safetensors network.safetensors`
    - `klcli runs export --tables FOLDER`
    """
    usage = "name a run and a format, `klcli runs export 7 --to npz`, or a folder, `klcli runs export --tables FOLDER`"
    require((run is None) == (to is None) and (run is None) != (tables is None), f"export: {usage}")
    no_images = f"--data {invocation.data}: --tables reads no images, omit it"
    require(tables is None or invocation.data is None, no_images)
    if run is not None and to is not None:
        number = invocation.lab.run(run).id
        written = invocation.lab.export(number, to, file)
        invocation.result(f"{path_text(written)}  `klcli help checkpoints` has the lines that read it")
        invocation.document("runs export", {"run": number, "to": to, "file": path_text(written)})
    if tables is not None:
        store = invocation.existing_store()
        with invocation.step("writing the tables"):
            rows = store.upkeep.export(tables)
        invocation.result(*(f"{tables / name}  {n} {counted(n, 'row')}" for name, n in rows.items()))
        invocation.document("runs export", {"folder": str(tables), "files": rows})


@app.command(cls=KlcliCommand)
@invoked("db")
def check(
    contents: bool = flag(PANEL, "Read the contents of all checkpoints (3 ms per megabyte)."), *, invocation: Invocation
) -> None:
    """Check the database and its checkpoints, and find files that belong to no run.

    Every checkpoint must be there; the contents of the newest 300 are read.

    - `klcli runs check --contents`
    """
    store = invocation.existing_store()
    number = sum(store.runs.count_by_state().values())
    files = store.runs.count(RunFilter(where="checkpoint IS NOT NULL"))
    read = files if contents else min(files, NEWEST)
    which = "all checkpoints" if read == files else f"the newest {read} of {files} checkpoints"
    with invocation.step("checking", read) as advance:
        damage, orphans = store.upkeep.check(None if read == files else read, advance)
    found = [*(f"damaged  {what}" for what in damage), *(f"orphan   {what}" for what in orphans)]
    if found and not invocation.as_json:
        print("\n".join(map(visible, found)))
    if not damage:
        words = f"{number} {counted(number, 'run')}, the database and {which} are sound"
        invocation.result(f"{store.path}: {words}, {len(orphans)} {counted(len(orphans), 'orphan')}")
    if read < files:
        invocation.say(f"only {which} were read: `klcli runs check --contents{invocation.database_words}` reads all")
    invocation.document("runs check", {"damage": damage, "orphans": orphans, "checkpoints": files, "read": read})
    if damage:
        numbers = {int(run[1]) for what in damage if (run := re.match(r"run (\d+)[:,]", what))}
        delete = f"delete the runs: `klcli runs delete {' '.join(names_of(numbers))}{invocation.database_words}`"
        cure = f", restore a copy or {delete}" if numbers else " or restore a copy"
        raise StoreError(f"{store.path}: {len(damage)} damaged, put back what is missing{cure}")


@app.command(cls=RecordingCommand)
@invoked("db")
def merge(
    databases: Annotated[list[Path], argument("DB...", "The databases to copy from.")], *, invocation: Invocation
) -> None:
    """Copy the runs of other databases into one, with studies, evaluations, gradient checks, checkpoints and pictures.

    Each run keeps the name of its database and its number there: `klcli report` shows them. A run that is there already
    is not copied again; one that has been continued since is updated. The other databases are only read.

    - `klcli runs merge hand-ins/*/results/klcli.db --db all.db`
    """
    from klcli.store.connection import explained
    from klcli.store.store import Store

    for path in databases:
        with explained(path):
            require(path.exists(), f"merge {path}: there is no database here, name another, {EXAMPLE}")
            what = irregular(path)
        require(not what, f"merge {path}: this is {what}, name a database, {EXAMPLE}")
        with explained(invocation.db):
            is_same = invocation.db.exists() and path.samefile(invocation.db)
        require(not is_same, f"merge {path}: this is the database of --db, name others")
    with invocation.step("opening the database"):
        store, found, failures = Store(invocation.db), [], []
    kept = "what is merged so far is kept, run the same command again for the rest"
    with at_the_end(lambda: kept), invocation.step("merging", len(databases)) as advance:
        for path in databases:
            try:
                found.append(store.upkeep.merge(path))
            except StoreError as error:
                if str(error).startswith((f"{store.path}: ", f"{store.folder('checkpoints')}: ")):
                    raise
                # The cure that other commands have for the database of --db.
                failures.append(re.sub("choose another( file)? with --db", "leave it out", str(error)))
            advance(1)
    left_out = f"{len(failures)} of {len(databases)} databases {'is' if len(failures) == 1 else 'are'} left out"
    failed = StoreError(f"{left_out}: {'; '.join(failures)}")
    if not found:
        raise failed
    names = ("runs", "updated", "known", "studies", "evaluations", "gradient_checks", "files")
    rows = [{"database": path_text(one.database)} | {name: getattr(one, name) for name in names} for one in found]
    head = columns(f"database; runs:=runs copied; {':; '.join(names[1:])}:")
    new, changed = sum(one.runs for one in found), sum(one.changes for one in found)
    copied = f"{new} {counted(new, 'run')} from {len(found)} {counted(len(found), 'database')}"
    total = f"{store.path}: {copied if changed or failures else 'nothing is new'}"
    invocation.result(*[Table("Copied", head, rows)] * bool(rows), total)
    for one in found:
        for remark in [*one.left_out, *one.without_checkpoint[:FEW]]:
            invocation.warn(f"{one.database}: {remark}")
        if more := one.without_checkpoint[FEW:]:
            command = f"`klcli runs check{invocation.database_words}`"
            invocation.warn(f"{one.database}: {len(more)} more, {command} names every missing checkpoint")
    if found and not failures:
        invocation.then("report --best 10", "runs check")
    documents = [row | {"remarks": one.remarks} for row, one in zip(rows, found, strict=True)]
    invocation.document("runs merge", {"merged": documents, "failed": failures})
    if failures:
        raise failed


@app.command(cls=RecordingCommand)
@invoked("data", "db")
def rerun(run: Annotated[str, argument("RUN", NAME_HELP)], *, invocation: Invocation) -> None:
    """Train a run again, as a new run with the settings, images and threads of the old one.

    - `klcli runs rerun 7`
    """
    from klcli.procedures.run_lookup import same_bits

    old = invocation.lab.run(run)
    new = invocation.lab.rerun(old.id)
    has_ended = old.state in ("complete", "diverged")  # else its network is that of an earlier update
    is_same = same_bits(invocation.lab.store, old, new) if has_ended else None
    lack = "has no readable checkpoint" if has_ended else f"is {old.state} and has no final network"
    command = f"klcli report --run {old.id} {new.id} --diff-only{invocation.database_words}"
    compare = f"`{command}` shows the differences"
    verdict = {
        True: f"run {new.id} has the same bits as run {old.id}",
        False: f"run {new.id} has other bits than run {old.id}: {compare}",
        None: f"run {old.id} {lack} to compare the bits with: {compare}",
    }[is_same]
    try:
        show_run(invocation, new, "runs rerun", {"same_bits": is_same})
    finally:  # show_run raises Diverged for a run that diverged
        invocation.result(verdict)


def _chosen(invocation: Invocation, names: Sequence[str], verb: str) -> tuple["Store", list[int]]:
    from klcli.procedures.run_lookup import chosen_runs

    store = invocation.existing_store()
    return store, [run.id for run in chosen_runs(store, names, verb)]
