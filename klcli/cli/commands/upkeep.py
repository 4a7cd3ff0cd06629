"""The options of `klcli report` that change what is stored, or check it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klcli.cli.invocation import Invocation
from klcli.cli.options import integers, option
from klcli.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from klcli.store.store import Store

PANEL = "Manage runs"


def _of_run(name: str) -> Any:
    """Return a callback that reads `--note 7 "text"` as (7, "text")."""
    return lambda given: given and (*integers([given[0]], name), given[1])


# The options of an Upkeep, by its fields.
UPKEEP: dict[str, Any] = {
    "note": Annotated[
        tuple[str, str] | None,
        option(
            "--note", panel=PANEL, metavar="RUN TEXT", help="Store a note; an empty one removes it.",
            callback=_of_run("note"),
        ),
    ],
    "tag": Annotated[
        tuple[str, str] | None,
        option("--tag", panel=PANEL, metavar="RUN TAG", help="Tag a run.", callback=_of_run("tag")),
    ],
    "untag": Annotated[
        tuple[str, str] | None,
        option("--untag", panel=PANEL, metavar="RUN TAG", help="Remove the tag.", callback=_of_run("untag")),
    ],
    "delete": Annotated[
        list[str],
        option(
            "--delete", panel=PANEL, metavar="RUN...",
            help="Delete runs, their checkpoints and pictures; asks for confirmation.",
            callback=lambda texts: integers(texts, "delete"),
        ),
    ],
    "yes": Annotated[bool, option("--yes", "-y", panel=PANEL, help="Of --delete: do not ask.")],
    "export": Annotated[
        Path | None, option("--export", panel=PANEL, metavar="DIR", help="Write all tables as CSV files.")
    ],
    "check": Annotated[
        bool,
        option("--check", panel=PANEL, help="Look for damage: database, checkpoints, files that belong to nothing."),
    ],
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """What is to be changed or checked. Raises ConfigError for two things at once."""

    note: tuple[int, str] | None = None
    tag: tuple[int, str] | None = None
    untag: tuple[int, str] | None = None
    delete: tuple[int, ...] = ()
    yes: bool = False
    export: Path | None = None
    check: bool = False

    def __post_init__(self) -> None:
        """Refuse two things at once."""
        if len(self.wanted) > 1:
            raise ConfigError(f"--{self.wanted[0]} and --{self.wanted[1]}: one at a time")

    @property
    def wanted(self) -> list[str]:
        """The names of the options that were given."""
        return [name for name in UPKEEP if name != "yes" and getattr(self, name)]

    def do(self, invocation: Invocation, store: "Store") -> None:
        """Do what was asked for. Raises StoreError where something is damaged."""
        annotations = {
            "note": (self.note, store.upkeep.set_note),
            "tag": (self.tag, store.upkeep.add_tag),
            "untag": (self.untag, store.upkeep.remove_tag),
        }
        for given, write in annotations.values():
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

        runs = [store.runs.get(run_id) for run_id in self.delete]
        what = f"delete {len(runs)} {counted(len(runs), 'run')} with epochs, checkpoints and pictures"
        if not self.yes and not sys.stdin.isatty():
            listed = " ".join(map(str, self.delete))
            raise ConfigError(f"--delete {listed}: there is no terminal to confirm it, add --yes to {what}")
        for run in runs:
            invocation.say(f"run {run.id}: {network_name(run.config)} on {run.dataset}, {run.state}")
        if not self.yes and not typer.confirm(f"{what[0].upper()}{what[1:]}?", err=True):
            invocation.say("nothing was deleted")
            return
        files = store.upkeep.delete(self.delete)
        invocation.result(*(f"deleted run {run.id}" for run in runs), *(f"deleted {file}" for file in files))
        invocation.document("report", {"deleted": list(self.delete), "files": list(map(str, files))})


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
