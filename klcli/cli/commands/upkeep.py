"""The options of `klcli report` that change what is stored, or check it."""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from klcli.cli.invocation import Invocation
from klcli.errors import ConfigError, StoreError
from klcli.settings.setting import Settings, flag, require, setting

if TYPE_CHECKING:
    from klcli.store.store import Store

PANEL = "Manage runs"


@dataclass(frozen=True, kw_only=True)
class Upkeep(Settings):
    """What is changed or checked. Raises ConfigError for two things at once."""

    note: tuple[int, str] | None = setting(None, PANEL, "Store a note; an empty one removes it.", metavar="RUN TEXT")
    tag: tuple[int, str] | None = setting(None, PANEL, "Tag a run.", metavar="RUN TAG")
    untag: tuple[int, str] | None = setting(None, PANEL, "Remove the tag.", metavar="RUN TAG")
    delete: tuple[int, ...] = setting(
        (), PANEL, "Delete runs, their checkpoints and pictures; asks for confirmation.", metavar="RUN..."
    )
    yes: bool = flag(PANEL, "Skip the confirmation of --delete.", short="-y")
    export: Path | None = setting(None, PANEL, "Write all tables as CSV files.", metavar="DIR")
    check: bool = flag(PANEL, "Look for damage: database, checkpoints, files that belong to nothing.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.wanted) < 2, f"--{' and --'.join(self.wanted[:2])}: one at a time")

    @property
    def wanted(self) -> list[str]:
        """The names of the options that were given."""
        return [one.name for one in fields(self) if one.name != "yes" and getattr(self, one.name)]

    def do(self, invocation: Invocation, store: "Store") -> None:
        """Do what was asked for. Raises StoreError where something is damaged."""
        annotations = (
            (self.note, store.upkeep.set_note),
            (self.tag, store.upkeep.add_tag),
            (self.untag, store.upkeep.remove_tag),
        )
        for given, write in annotations:
            if given is not None:
                write(*given)
                run = store.runs.get(given[0])
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

        runs = [store.runs.get(number) for number in self.delete]
        what = f"delete {len(runs)} {counted(len(runs), 'run')} with epochs, checkpoints and pictures"
        if not self.yes and not sys.stdin.isatty():
            numbers = " ".join(map(str, self.delete))
            raise ConfigError(f"--delete {numbers}: there is no terminal to confirm it, add --yes to {what}")
        for run in runs:
            invocation.say(f"run {run.id}: {network_name(run.config)} on {run.dataset}, {run.state}")
        if not self.yes and not typer.confirm(f"{what[0].upper()}{what[1:]}?", err=True):
            invocation.say("nothing was deleted")
            return
        files = store.upkeep.delete(self.delete)
        invocation.result(*(f"deleted run {number}" for number in self.delete), *(f"deleted {one}" for one in files))
        invocation.document("report", {"deleted": self.delete, "files": list(map(str, files))})


def _check(invocation: Invocation, store: "Store") -> None:
    """Show what was found. Raises StoreError where something is damaged."""
    damage, orphans = store.upkeep.check()
    invocation.result(*(f"damaged  {what}" for what in damage), *(f"orphan   {what}" for what in orphans))
    runs = sum(store.runs.count_by_state().values())
    if not damage:
        sound = "the database and all checkpoints are sound"
        invocation.result(f"{store.path}: {runs} runs, {sound}, {len(orphans)} orphans")
    invocation.document("report", {"damage": damage, "orphans": orphans})
    if damage:
        raise StoreError(f"{store.path}: {len(damage)} damaged, restore a copy or delete the runs with --delete")
