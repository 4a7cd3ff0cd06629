"""`klcli predict`: the classes of pictures, by a stored network."""

from pathlib import Path
from typing import Annotated

import typer

from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import integer_option, option

PREDICTION = "Prediction"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("predict")(predict)


@invoked("data", "db")
def predict(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG or JPEG files of any size.")],
    which: Annotated[
        str, option("--run", panel=PREDICTION, metavar="RUN|last|best", help="The network that classifies them.")
    ] = "best",
    top: Annotated[
        int, integer_option("--top", panel=PREDICTION, help="How many classes of each picture.", bounds=(1, 10))
    ] = 3,
    flips: Annotated[
        bool, option("--flips", panel=PREDICTION, help="Average the probabilities of a picture and its mirror image.")
    ] = False,
    snapshots: Annotated[
        bool, option("--snapshots", panel=PREDICTION, help="Average the networks at the ends of the run's cycles.")
    ] = False,
    *,
    invocation: Invocation,
) -> None:
    """Classify pictures with a stored network.

    A picture is turned upright, cropped to the square in its middle, scaled to 32 x 32, and standardised by the
    training images of the run, which must therefore be there. The networks know ten classes and nothing else.

    - `klcli predict cat.jpg`

    - `klcli predict *.png --run 3 --top 5 --flips`
    """
    found = invocation.lab().predict(pictures, which, flips=flips, snapshots=snapshots)

    from klcli.report.tables.predictions import prediction_table
    from klcli.report.words import network_name

    run = found.run
    accuracy = "" if run.test_accuracy is None else f", test accuracy {run.test_accuracy:.4f}"
    title = f"Classes by run {run.id}: {network_name(run.config)} on {found.dataset}{accuracy}"
    invocation.result(prediction_table(title, found.pictures, top))
    documents = [
        {"picture": picture, "class": max(own.items(), key=lambda item: item[1])[0], "probabilities": own}
        for picture, own in found.pictures
    ]
    how = {"run": run.id, "dataset": found.dataset, "flips": flips, "snapshots": snapshots}
    invocation.document("predict", how | {"pictures": documents})
