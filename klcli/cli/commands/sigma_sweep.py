"""`klcli sigma-sweep`: how much the scale of the initial weights matters, with and without BN."""

from typing import Annotated

import typer

from klcli.cli.config_options import takes_config
from klcli.cli.options import (
    DEFAULT_DATABASE,
    NETWORK,
    DatabasePath,
    DataSource,
    Debug,
    Json,
    Quiet,
    Threads,
    numbers,
    option,
)
from klcli.cli.session import Session
from klcli.cli.variadic import many_valued
from klcli.procedures.study_runner import ExecutorAddress, Jobs, Repeats, Resume, open_runner
from klcli.settings.train_config import TrainConfig


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    many = many_valued("--hidden", "-H", "--train-batches", "--validation-batches", "--sigmas")
    app.command("sigma-sweep", cls=many)(sigma_sweep)


@takes_config(omit=("preset", "initializer", "sigma", "batch_norm"))
def sigma_sweep(
    config: TrainConfig,
    sigmas: Annotated[
        list[str], option("--sigmas", panel=NETWORK, metavar="X...", help="Standard deviations of the initial weights.")
    ] = ["1e-1", "1e-3", "1e-4"],
    repeats: Repeats = 1,
    jobs: Jobs = None,
    executor: ExecutorAddress = None,
    resume: Resume = False,
    data: DataSource = None,
    threads: Threads = 1,
    db: DatabasePath = DEFAULT_DATABASE,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train with every sigma, without and with batch normalisation, and set the two side by side.

    - `klcli sigma-sweep`

    - `klcli sigma-sweep --hidden 50 30 20 20 10 10 10 10 --step-epochs 2 --repeats 3`
    """
    session = Session(as_json=as_json, quiet=quiet)

    from klcli.report.documents import run_document
    from klcli.report.plots.sigma_sweep import draw_sigma_sweep, sigma_curves
    from klcli.report.tables.studies import interval_table, sigma_table
    from klcli.report.tables.table import statistics_words
    from klcli.store.checkpoints import write_atomically
    from klcli.studies.sigma_sweep import plan

    planned = plan(config, numbers(sigmas, "sigmas"), repeats)
    runner = open_runner(
        session, config, data=data, db=db, jobs=jobs, executor=executor, resume=resume, threads=threads
    )
    study = runner.run("sigma", "sweep", planned, {}, look_at_test=True)
    store = runner.store
    runs = store.studies.members(study)
    picture = store.folder("plots") / f"study-{study:06d}-sigma.png"
    curves = sigma_curves(runs, {run["id"]: store.runs.epochs(run["id"]) for run in runs})
    write_atomically(picture, draw_sigma_sweep(curves))
    widths = "-".join(runs[0]["hidden"].split())
    layers = len(runs[0]["hidden"].split()) + 1
    title = f"Sigma of the {layers}-layer {widths} on {runs[0]['dataset']}{statistics_words(runs)} (study {study})"
    session.result(sigma_table(title, runs))
    if repeats > 1:
        session.result(interval_table("Test accuracy over the repeats, with the 95 % interval of its mean", runs))
    session.result(f"database    {store.path}", f"picture     {picture}")
    documents = [run_document(run) for run in runs]
    session.document("sigma-sweep", {"study": study, "runs": documents, "picture": str(picture)})
