"""`klcli evaluate`: evaluate stored networks again, with other settings."""

from typing import Annotated

from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import argument, takes
from klcli.report.words import network_name, run_numbers, setting_value, subset_words
from klcli.settings.procedures import EvaluationSettings
from klcli.settings.run_names import NAMES_HELP, SHOWN_NAMES, names_of
from klcli.settings.setting import Role, flag

SHOWN_NETWORKS = 3


@takes(EvaluationSettings)
@invoked("data", "db")
def evaluate(
    runs: Annotated[list[str], argument("RUN...", NAMES_HELP)],
    settings: EvaluationSettings,
    ensemble: bool = flag(Role.EVALUATION, "Average the probabilities of these runs."),
    *,
    invocation: Invocation,
) -> None:
    """Evaluate stored networks again: with other statistics of BN, over flips, or as an ensemble.

    The networks are read from their checkpoints; the images must be those of the training. The result is shown
    beside the result at the end of the training, and stored in the database.

    - `klcli evaluate last --bn-statistics precise`
    - `klcli evaluate 3 4 5 --bn-statistics adaptive --flips`
    - `klcli evaluate 3 4 5 --ensemble`
    - `klcli evaluate last --snapshots --flips --shifts 2`
    """
    found, evaluations = invocation.lab.evaluate(runs, settings, ensemble=ensemble)

    from klcli.report.documents import record_document
    from klcli.report.tables.later_checks import difference_notes, evaluation_table, evaluation_words

    names = list(dict.fromkeys(network_name(run.config) for run in found))
    names = names if len(names) <= SHOWN_NETWORKS else [f"{len(names)} different networks"]
    on = " and ".join(dict.fromkeys(run.dataset for run in found))
    what = f"{run_numbers(found).capitalize()}: {', '.join(names)} on {on}{subset_words(found)}"
    title = f"{what}, evaluated again: {'; '.join(dict.fromkeys(map(evaluation_words, evaluations)))}"
    notes = [] if ensemble else difference_notes(evaluations, found)
    invocation.result(evaluation_table(title, evaluations, found), *notes)
    best = max(found, key=lambda run: run.validation_accuracy or 0.0)
    numbers = names_of(run.id for run in found)
    again = f"report --run {' '.join(numbers)}" if len(numbers) <= SHOWN_NAMES else "report --list"
    invocation.places(again, f"predict YOUR-PICTURE.jpg --run {best.id}")
    keys = ("validation_loss", "validation_accuracy", "test_loss", "test_accuracy")
    stored = []
    for run in found:
        own = setting_value(run, "bn_statistics")
        measured_with = own and ("ema" if run.epochs_done < run.epochs else own)  # running averages until the end
        stored.append({"run": run.id, "bn_statistics": measured_with} | {key: getattr(run, key) for key in keys})
    documents = [*map(record_document, evaluations)]
    invocation.document("evaluate", {"evaluations": documents, "stored": stored, "notes": notes})
