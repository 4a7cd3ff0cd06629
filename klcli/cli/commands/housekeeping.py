"""Keeping house: the options of `klcli report` that change what is stored, or look after it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from klcli.cli.session import Session
from klcli.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from klcli.store.store import Store


def do(session: Session, db: Path, deed: str, argument: Any, *, yes: bool) -> None:
    """Do one of note, tag, untag, delete, export and check."""
    from klcli.store.store import Store

    store = Store.existing(db)
    if deed == "delete":
        _delete(session, store, argument, yes)
    elif deed == "export":
        written = store.upkeep.export(argument)
        session.result(*(f"{argument / name}  {rows} rows" for name, rows in written.items()))
        session.document("report", {"folder": str(argument), "files": written})
    elif deed == "check":
        _check(session, store)
    else:
        _annotate(session, store, deed, *argument)


def _annotate(session: Session, store: "Store", deed: str, run_id: int, text: str) -> None:
    {"note": store.upkeep.set_note, "tag": store.upkeep.add_tag, "untag": store.upkeep.remove_tag}[deed](run_id, text)
    run = store.runs.get(run_id)
    session.result(f"run {run_id}: note {run['note'] or '-'}, tags {run['tags'] or '-'}")
    session.document("report", {"run": run_id, "note": run["note"], "tags": (run["tags"] or "").split()})


def _delete(session: Session, store: "Store", run_ids: tuple[int, ...], yes: bool) -> None:
    from klcli.report.tables.table import network_name

    runs = [store.runs.get(run_id) for run_id in run_ids]
    what = f"delete {len(run_ids)} run{'s' if len(run_ids) > 1 else ''} with epochs, checkpoints and pictures"
    if not yes and not sys.stdin.isatty():
        raise ConfigError(f"--delete {' '.join(map(str, run_ids))}: nobody can be asked here, add --yes to {what}")
    for run in runs:
        session.say(f"run {run['id']}: {network_name(run)} on {run['dataset']}, {run['state']}")
    if not yes and not typer.confirm(f"{what[0].upper()}{what[1:]}?", err=True):
        session.say("nothing was deleted")
        return
    files = store.upkeep.delete(run_ids)
    session.result(*(f"deleted run {run_id}" for run_id in run_ids), *(f"deleted {file}" for file in files))
    session.document("report", {"deleted": list(run_ids), "files": list(map(str, files))})


def _check(session: Session, store: "Store") -> None:
    """Tell what was found. Raises StoreError where something is damaged."""
    found = store.upkeep.check()
    damage = [finding for finding in found if finding.is_damage]
    orphans = [finding for finding in found if not finding.is_damage]
    session.result(*(f"damaged  {finding.what}" for finding in damage))
    session.result(*(f"orphan   {finding.what}" for finding in orphans))
    runs = sum(store.runs.count_by_state().values())
    if not damage:
        session.result(f"{store.path}: {runs} runs, the database and all checkpoints are sound, {len(orphans)} orphans")
    session.document("report", {"damage": [one.what for one in damage], "orphans": [one.what for one in orphans]})
    if damage:
        raise StoreError(f"{store.path}: {len(damage)} damaged, restore a copy or delete the runs with --delete")
