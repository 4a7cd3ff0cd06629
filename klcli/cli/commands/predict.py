"""`klcli predict`: classify pictures with a stored network."""

from pathlib import Path
from typing import Annotated

import typer

from klcli.cli.invocation import Invocation, invoked
from klcli.settings.setting import flag, setting

PREDICTION = "Prediction"


@invoked("data", "db")
def predict(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG or JPEG files of any size.")],
    run: str = setting("best", PREDICTION, "Use the network of this run.", metavar="RUN|last|best"),
    top: int = setting(3, PREDICTION, "Show N classes per picture.", at_least=1, at_most=10),
    flips: bool = flag(PREDICTION, "Average the probabilities of a picture and its mirror image."),
    snapshots: bool = flag(PREDICTION, "Average the probabilities of the networks at the ends of the run's cycles."),
    *,
    invocation: Invocation,
) -> None:
    """Classify pictures with a stored network.

    A picture is turned upright, cropped to the square in its middle, scaled to 32 x 32, and standardised by the
    training images of the run, which must therefore be available. Any picture gets one of the ten classes.

    - `klcli predict cat.jpg`

    - `klcli predict *.png --run 3 --top 5 --flips`
    """
    found = invocation.lab.predict(pictures, run, flips=flips, snapshots=snapshots)

    from klcli.report.tables.later_checks import prediction_table
    from klcli.report.words import network_name, subset_words

    by = found.run
    accuracy = "" if by.test_accuracy is None else f", test accuracy {by.test_accuracy:.4f}"
    title = f"Classes by run {by.id}: {network_name(by.config)} on {found.dataset}{subset_words([by])}{accuracy}"
    invocation.result(prediction_table(title, found.pictures, top))
    documents = [
        {"picture": picture, "class": max(own.items(), key=lambda item: item[1])[0], "probabilities": own}
        for picture, own in found.pictures
    ]
    how = {"run": by.id, "dataset": found.dataset, "flips": flips, "snapshots": snapshots}
    invocation.document("predict", how | {"pictures": documents})
