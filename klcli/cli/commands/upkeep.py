"""The options of `klcli report` that change what is stored, or check it."""

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from klcli.cli.invocation import Invocation
from klcli.cli.options import integers, option
from klcli.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from klcli.store.store import Store

PANEL = "Manage runs"


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """The options, as typed. Raises ConfigError for two things at once."""

    note: Annotated[
        tuple[str, str] | None,
        option("--note", panel=PANEL, metavar="RUN TEXT", help="Store a note; an empty one removes it."),
    ] = None
    tag: Annotated[tuple[str, str] | None, option("--tag", panel=PANEL, metavar="RUN TAG", help="Tag a run.")] = None
    untag: Annotated[
        tuple[str, str] | None, option("--untag", panel=PANEL, metavar="RUN TAG", help="Remove the tag.")
    ] = None
    delete: Annotated[
        list[str],
        option(
            "--delete",
            panel=PANEL,
            metavar="RUN...",
            help="Delete runs, their checkpoints and pictures; asks for confirmation.",
        ),
    ] = field(default_factory=list)
    yes: Annotated[bool, option("--yes", "-y", panel=PANEL, help="Of --delete: do not ask.")] = False
    export: Annotated[
        Path | None, option("--export", panel=PANEL, metavar="DIR", help="Write all tables as CSV files.")
    ] = None
    check: Annotated[
        bool,
        option("--check", panel=PANEL, help="Look for damage: database, checkpoints, files that belong to nothing."),
    ] = False

    def __post_init__(self) -> None:
        """Refuse two things at once."""
        if len(self.wanted) > 1:
            raise ConfigError(f"--{self.wanted[0]} and --{self.wanted[1]}: one at a time")

    @property
    def wanted(self) -> list[str]:
        """The names of the options that were given."""
        return [one.name for one in fields(self) if one.name != "yes" and getattr(self, one.name)]

    def do(self, invocation: Invocation, store: "Store") -> None:
        """Do what was asked for. Raises StoreError where something is damaged."""
        annotations = {
            "note": (self.note, store.upkeep.set_note),
            "tag": (self.tag, store.upkeep.add_tag),
            "untag": (self.untag, store.upkeep.remove_tag),
        }
        for name, (given, write) in annotations.items():
            if given is not None:
                [number] = integers([given[0]], name)
                write(number, given[1])
                run = store.runs.get(number)
                invocation.result(f"run {run.id}: note {run.note or '-'}, tags {run.tags or '-'}")
                invocation.document("report", {"run": run.id, "note": run.note, "tags": (run.tags or "").split()})
        if self.delete:
            self._delete(invocation, store)
        if self.export is not None:
            written = store.upkeep.export(self.export)
            invocation.result(*(f"{self.export / name}  {rows} rows" for name, rows in written.items()))
            invocation.document("report", {"folder": str(self.export), "files": written})
        if self.check:
            _check(invocation, store)

    def _delete(self, invocation: Invocation, store: "Store") -> None:
        from klcli.report.words import counted, network_name

        runs = [store.runs.get(number) for number in integers(self.delete, "delete")]
        what = f"delete {len(runs)} {counted(len(runs), 'run')} with epochs, checkpoints and pictures"
        if not self.yes and not sys.stdin.isatty():
            raise ConfigError(
                f"--delete {' '.join(self.delete)}: there is no terminal to confirm it, add --yes to {what}"
            )
        for run in runs:
            invocation.say(f"run {run.id}: {network_name(run.config)} on {run.dataset}, {run.state}")
        if not self.yes and not typer.confirm(f"{what[0].upper()}{what[1:]}?", err=True):
            invocation.say("nothing was deleted")
            return
        numbers = [run.id for run in runs]
        files = store.upkeep.delete(numbers)
        invocation.result(*(f"deleted run {number}" for number in numbers), *(f"deleted {file}" for file in files))
        invocation.document("report", {"deleted": numbers, "files": list(map(str, files))})


def _check(invocation: Invocation, store: "Store") -> None:
    """Show what was found. Raises StoreError where something is damaged."""
    found = store.upkeep.check()
    damage = [finding.what for finding in found if finding.is_damage]
    orphans = [finding.what for finding in found if not finding.is_damage]
    invocation.result(*(f"damaged  {what}" for what in damage), *(f"orphan   {what}" for what in orphans))
    runs = sum(store.runs.count_by_state().values())
    if not damage:
        sound = "the database and all checkpoints are sound"
        invocation.result(f"{store.path}: {runs} runs, {sound}, {len(orphans)} orphans")
    invocation.document("report", {"damage": damage, "orphans": orphans})
    if damage:
        raise StoreError(f"{store.path}: {len(damage)} damaged, restore a copy or delete the runs with --delete")
