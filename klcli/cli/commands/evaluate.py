"""`klcli evaluate`: stored networks, evaluated again in another way."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from klcli.cli.options import (
    DEFAULT_DATABASE,
    REPEATABILITY,
    DatabasePath,
    DataSource,
    Debug,
    Json,
    Quiet,
    integer_option,
    option,
)
from klcli.cli.session import Session
from klcli.errors import ConfigError
from klcli.procedures.preflight import typed_command, warn_of_data
from klcli.procedures.run_lookup import chosen_runs, images_of, trained_networks
from klcli.settings.train_config import BN_STATISTICS, MAX_SEED

if TYPE_CHECKING:
    from klcli.data.dataset import Dataset, Splits
    from klcli.evaluation.reevaluation import EvaluationSettings
    from klcli.store.store import Store
    from klcli.store.transition import Row

EVALUATION = "The evaluation"
SHOWN_NAMES = 3


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("evaluate")(evaluate)


def evaluate(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Numbers of runs, or `last`, or `best`.")],
    ensemble: Annotated[
        bool, option("--ensemble", panel=EVALUATION, help="Average the probabilities of these runs into one.")
    ] = False,
    snapshots: Annotated[
        bool, option("--snapshots", panel=EVALUATION, help="Average the networks at the ends of the cycles of a run.")
    ] = False,
    bn_statistics: Annotated[
        str | None,
        option(
            "--bn-statistics",
            panel=EVALUATION,
            metavar="|".join(BN_STATISTICS),
            help="Of batch normalisation, as for train; without it, those that the run ended with.",
        ),
    ] = None,
    bn_samples: Annotated[
        int | None,
        integer_option(
            "--bn-samples", panel=EVALUATION, help="Images of precise (10000) and adaptive (1000), at most."
        ),
    ] = None,
    flips: Annotated[
        bool, option("--flips", panel=EVALUATION, help="Average the probabilities of an image and its mirror image.")
    ] = False,
    shifts: Annotated[
        int,
        integer_option(
            "--shifts", panel=EVALUATION, help="And of the image moved by so many pixels to its four sides; 0: none."
        ),
    ] = 0,
    seed: Annotated[
        int | None,
        integer_option(
            "--seed",
            panel=REPEATABILITY,
            help="Of the images that precise and adaptive draw; without it, the run's own.",
            bounds=(0, MAX_SEED),
        ),
    ] = None,
    data: DataSource = None,
    db: DatabasePath = DEFAULT_DATABASE,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Evaluate stored networks again: with other statistics of BN, over flips, or as an ensemble.

    The networks come from their checkpoints, the images must be those that they were trained on. The result
    stands beside what the run gave when it was trained, and is kept in the database.

    - `klcli evaluate last --bn-statistics precise`

    - `klcli evaluate 3 4 5 --bn-statistics adaptive --flips`

    - `klcli evaluate 3 4 5 --ensemble`

    - `klcli evaluate last --snapshots --flips --shifts 2`
    """
    session = Session(as_json=as_json, quiet=quiet)

    from klcli.data.dataset import split
    from klcli.evaluation.reevaluation import EvaluationSettings, policy_of
    from klcli.settings.train_config import TrainConfig
    from klcli.store.store import Store
    from klcli.training.environment import pin_threads

    settings = EvaluationSettings(
        bn_statistics=bn_statistics, bn_samples=bn_samples, snapshots=snapshots, flips=flips, shifts=shifts, seed=seed
    )
    store = Store.existing(db)
    chosen = chosen_runs(store, runs)
    if not chosen:
        raise ConfigError(f"run {' '.join(runs)!r}: give the number of a run, or `last`, or `best`")
    if ensemble:
        _require_same_images(chosen)
    datasets: dict[str, Dataset] = {}
    divided: dict[tuple[str, str], Splits] = {}
    for run in chosen:  # before the first one is evaluated
        config, sha256 = TrainConfig.from_json(run["config"]), run["dataset_sha256"]
        policy_of(f"run {run['id']}", config, settings)
        if sha256 not in datasets:
            datasets[sha256] = images_of(run, data, f"run {run['id']}")
        if (sha256, run["split"]) not in divided:
            divided[sha256, run["split"]] = split(datasets[sha256], config.split)
    for dataset in datasets.values():
        warn_of_data(session, dataset)
    pin_threads(max(run["threads"] for run in chosen))
    parts = [chosen] if ensemble else [[run] for run in chosen]
    evaluations = []
    with session.progress("evaluating", len(parts)) as advance:
        for part in parts:
            splits = divided[part[0]["dataset_sha256"], part[0]["split"]]
            evaluations.append(_evaluate(store, part, splits, settings))
            advance(1)
    _show(session, store, chosen, evaluations, ensemble)


def _require_same_images(runs: "list[Row]") -> None:
    if len(runs) < 2:
        raise ConfigError(f"--ensemble: averages several runs, give at least two beside {runs[0]['id']}")
    first = runs[0]
    for run in runs[1:]:
        if (run["dataset_sha256"], run["split"]) != (first["dataset_sha256"], first["split"]):
            raise ConfigError(
                f"--ensemble: runs {first['id']} and {run['id']} were trained on different images or splits, "
                "what one has learnt by heart may test the other: choose runs that `klcli report` ranks together"
            )


def _evaluate(store: "Store", runs: "list[Row]", splits: "Splits", settings: "EvaluationSettings") -> "Row":
    """Evaluate one run, or the mean of several, and keep the result."""
    from klcli.evaluation.reevaluation import reevaluate

    networks = [one for run in runs for one in trained_networks(store, run, settings.snapshots)]
    found = reevaluate(networks, splits, settings)
    return store.evaluations.record([run["id"] for run in runs], settings, found, typed_command())


def _show(session: Session, store: "Store", runs: "list[Row]", evaluations: "list[Row]", ensemble: bool) -> None:
    from klcli.report.tables.evaluations import difference_notes, ensemble_table, evaluation_table, evaluation_words
    from klcli.report.tables.table import network_name

    first = runs[0]
    names = list(dict.fromkeys(network_name(run) for run in runs))
    names = names if len(names) <= SHOWN_NAMES else [f"{len(names)} different networks"]
    which = f"Run {first['id']}" if len(runs) == 1 else f"Runs {', '.join(str(run['id']) for run in runs)}"
    how = "; ".join(dict.fromkeys(evaluation_words(one) for one in evaluations))
    title = f"{which}: {', '.join(names)} on {first['dataset']}, evaluated again: {how}"
    if ensemble:
        table, notes = ensemble_table(title, evaluations[0], runs), []
    else:
        table, notes = evaluation_table(title, evaluations, runs), difference_notes(evaluations, runs)
    session.result(table, *notes, f"database    {store.path}")
    own = evaluations * len(runs) if ensemble else evaluations
    documents: list[dict[str, Any]] = [
        {"run": run["id"], "bn_statistics": run["bn_statistics"]}
        | {name: run[name] for name in one if name.endswith(("_loss", "_accuracy"))}
        for run, one in zip(runs, own, strict=True)
    ]
    shown = [dict(one) for one in evaluations]
    session.document("evaluate", {"evaluations": shown, "stored": documents, "notes": notes})
