"""`klcli predict`: the classes of pictures, named by a stored network."""

from pathlib import Path
from typing import Annotated

import typer

from klcli.cli.options import DEFAULT_DATABASE, DatabasePath, DataSource, Debug, Json, Quiet, integer_option, option
from klcli.cli.session import Session
from klcli.procedures.preflight import warn_of_data
from klcli.procedures.run_lookup import BEST, chosen_run, images_of, trained_networks

PREDICTION = "The prediction"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("predict")(predict)


def predict(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG or JPEG files of any size.")],
    which: Annotated[
        str, option("--run", panel=PREDICTION, metavar="RUN|last|best", help="The network that names them.")
    ] = BEST,
    top: Annotated[
        int, integer_option("--top", panel=PREDICTION, help="How many classes of each picture.", bounds=(1, 10))
    ] = 3,
    flips: Annotated[
        bool, option("--flips", panel=PREDICTION, help="Average the probabilities of a picture and its mirror image.")
    ] = False,
    snapshots: Annotated[
        bool, option("--snapshots", panel=PREDICTION, help="Average the networks at the ends of the run's cycles.")
    ] = False,
    data: DataSource = None,
    db: DatabasePath = DEFAULT_DATABASE,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Name the classes of pictures with a stored network.

    A picture is turned upright, cut to the square in its middle, made 32 x 32, and standardised by the training
    images of the run, which must therefore be there. The networks know ten classes and nothing else.

    - `klcli predict cat.jpg`

    - `klcli predict *.png --run 3 --top 5 --flips`
    """
    session = Session(as_json=as_json, quiet=quiet)

    import numpy as np

    from klcli.data.augmentation import views
    from klcli.data.dataset import split
    from klcli.data.pictures import pictures_like, read_picture
    from klcli.evaluation.metrics import log_mean, log_probabilities
    from klcli.report.tables.predictions import prediction_table
    from klcli.report.tables.table import network_name
    from klcli.store.store import Store
    from klcli.training.environment import pin_threads

    pixels = [read_picture(picture) for picture in pictures]
    store = Store.existing(db)
    run = chosen_run(store, which)
    networks = trained_networks(store, run, snapshots)
    config = networks[0].config
    dataset = images_of(run, data, f"run {run['id']}")
    warn_of_data(session, dataset)
    if config.batch_norm and config.bn_statistics == "batch":
        session.warn(f"run {run['id']} was evaluated with batch statistics, pictures get its running averages")
    pin_threads(run["threads"])
    images = pictures_like(split(dataset, config.split).train.standardised(config.standardise), pixels)
    log_P = [
        log_probabilities(one.network, view, config.dtype)
        for view in views(images, flips=flips, shifts=0)
        for one in networks
    ]
    P = np.exp(log_mean(log_P))
    named: list[tuple[str, dict[str, float]]] = [
        (str(picture), dict(zip(dataset.class_names, map(float, row), strict=True)))
        for picture, row in zip(pictures, P, strict=True)
    ]
    accuracy = "" if run["test_accuracy"] is None else f", test accuracy {run['test_accuracy']:.4f}"
    title = f"Classes by run {run['id']}: {network_name(run)} on {dataset.name}{accuracy}"
    session.result(prediction_table(title, named, top))
    documents = [
        {"picture": picture, "class": dataset.class_names[row.argmax()], "probabilities": own}
        for (picture, own), row in zip(named, P, strict=True)
    ]
    how = {"run": run["id"], "dataset": dataset.name, "flips": flips, "snapshots": snapshots}
    session.document("predict", how | {"pictures": documents})
