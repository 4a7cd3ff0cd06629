"""`klcli report`: what the database knows."""

from typing import Annotated, Any

import typer

from klcli.cli.options import DEFAULT_DATABASE, DatabasePath, Debug, Json, Quiet, number
from klcli.cli.session import Session
from klcli.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("report")(report)


def report(
    best: Annotated[
        int,
        typer.Option("--best", parser=number(int, (1, 10**9)), metavar="N", help="The N best runs of one data set."),
    ] = 10,
    gradchecks: Annotated[
        bool, typer.Option("--gradchecks", help="The latest gradient check instead, with its picture.")
    ] = False,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Of which data set: cifar10, synthetic, or the start of a sha256.")
    ] = None,
    db: DatabasePath = DEFAULT_DATABASE,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show the best runs of one data set; by default the one used last.

    Runs on different images are never ranked together.
    """
    session = Session(as_json=as_json, quiet=quiet)

    from klcli.cli import gradcheck
    from klcli.report.documents import run_document
    from klcli.report.tables import best_runs_table
    from klcli.store.gradient_check_store import GradientCheckStore
    from klcli.store.run_store import RunStore

    if gradchecks:
        gradcheck.show(session, GradientCheckStore.existing(db), suite=None)
        return
    store = RunStore.existing(db)
    datasets = store.datasets()
    if not datasets:
        session.result(f"{db} holds no complete run yet: begin with `klcli train --hidden 50 30 20 --bn`")
        session.document("report", {"dataset": None, "runs": []})
        return
    chosen, others = _choose(datasets, dataset)
    runs = store.best_runs(chosen["dataset_sha256"], best)
    session.result(best_runs_table(chosen["dataset"], runs))
    for other in others:
        see = f"klcli report --best {best} --dataset {other['dataset_sha256'][:8]}"
        session.say(f"{other['runs']} more on {other['dataset']}: {see}")
    session.document("report", {"dataset": chosen["dataset"], "runs": [run_document(run) for run in runs]})


def _choose(datasets: list[dict[str, Any]], wanted: str | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the wanted data set, by default the one used last, and the others."""
    matching = [
        row
        for row in datasets
        if wanted is None or row["dataset"] == wanted or row["dataset_sha256"].startswith(wanted)
    ]
    if not matching:
        known = ", ".join(f"{row['dataset']} ({row['dataset_sha256'][:8]})" for row in datasets)
        raise ConfigError(f"--dataset {wanted!r}: no complete run on it, there are {known}")
    return matching[0], [row for row in datasets if row is not matching[0]]
