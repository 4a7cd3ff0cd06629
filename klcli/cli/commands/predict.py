"""`klcli predict`: classify pictures with a stored network."""

from pathlib import Path
from typing import Annotated, Any

import typer

from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import argument, is_typed
from klcli.report.words import network_name, run_title
from klcli.settings.setting import flag, require, setting
from klcli.settings.train_config import MAX_SHIFT
from klcli.text import path_text

PREDICTION = "Prediction"
SHIFTS_HELP = "Also average over the picture shifted by N pixels to its four sides; if omitted, as trained, at most 2."


@invoked("data", "db")
def predict(
    ctx: typer.Context,
    pictures: Annotated[list[Path], argument("IMAGE...", "PNG or JPEG files of up to 89 million pixels.")],
    run: str | None = setting(
        None, PREDICTION, "Use the network of this run; the best one if omitted.", metavar="RUN|last|best"
    ),
    checkpoint: Path | None = setting(
        None, PREDICTION, "Use this checkpoint, without a database and without images.", metavar="FILE"
    ),
    top: int = setting(3, PREDICTION, "Show N classes per picture.", at_least=1, at_most=10),
    flips: bool | None = setting(
        None, PREDICTION, "Average the probabilities of a picture and its mirror image; if omitted, as trained."
    ),
    shifts: int | None = setting(None, PREDICTION, SHIFTS_HELP, at_least=0, at_most=MAX_SHIFT),
    snapshots: bool = flag(PREDICTION, "Average the probabilities of the networks at the ends of the run's cycles."),
    *,
    invocation: Invocation,
) -> None:
    """Classify pictures with a stored network.

    A picture is turned upright, cropped to the square in its middle, scaled to 32 x 32, and standardised as in the
    training. Any picture gets one of the ten classes. The images of the training are needed only for runs of an older
    klcli.

    - `klcli predict cat.jpg`
    - `klcli predict *.png --run 3 --top 5 --flips`
    - `klcli predict cat.jpg --checkpoint run-000003.npz`
    """
    for name, what in (("data", "images"), ("db", "database")) if checkpoint is not None else ():
        both = f"--{name} {getattr(invocation, name)} and --checkpoint {checkpoint}"
        require(not is_typed(ctx, name), f"{both}: a checkpoint needs no {what}, omit --{name}")
    how: dict[str, Any] = {"flips": flips, "shifts": shifts, "snapshots": snapshots}
    found = invocation.lab.predict(pictures, run, checkpoint=checkpoint, **how)

    from klcli.report.tables.later_checks import prediction_table

    by, on = found.run, f" on {found.dataset}"
    averaged = ["flips"] * found.flips + [f"shifts by {found.shifts}"] * bool(found.shifts) + ["snapshots"] * snapshots
    over = f", mean over {' and '.join(averaged)}" if averaged else ""
    if by is None:
        title = f"Classes by {path_text(checkpoint or '')}: {network_name(found.config)}{on}"
    else:
        alone = " without it" if averaged else ""
        over += "" if by.test_accuracy is None else f", test accuracy {by.test_accuracy:.4f}{alone}"
        title = run_title("Classes by run", by, on)
    invocation.result(prediction_table(f"{title}{over}", found.pictures, top))
    classes = [max(own.items(), key=lambda item: item[1])[0] for _, own in found.pictures]
    pairs = zip(found.pictures, classes, strict=True)
    documents = [{"picture": picture, "class": name, "probabilities": own} for (picture, own), name in pairs]
    of = {"run": by and by.id, "checkpoint": checkpoint and path_text(checkpoint), "dataset": found.dataset}
    how |= {"flips": found.flips, "shifts": found.shifts}
    invocation.document("predict", of | how | {"pictures": documents})
