"""`klcli train`: one network, from the options to the picture."""

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from klcli.cli.config_options import is_typed, takes_config, typed_fields
from klcli.cli.options import (
    DEFAULT_DATABASE,
    LEARNING,
    NETWORK,
    DatabasePath,
    DataSource,
    Debug,
    Json,
    Quiet,
    Threads,
    option,
)
from klcli.cli.progress import TrainingProgress
from klcli.cli.session import Session
from klcli.cli.variadic import many_valued
from klcli.errors import ConfigError, Diverged
from klcli.procedures.preflight import require_room, typed_command, warn_of_data, warn_of_settings
from klcli.procedures.resumption import Resumption
from klcli.procedures.resumption import resume as take_over
from klcli.procedures.run_recorder import Recording
from klcli.procedures.signals import Interrupted, obeyed_between_updates
from klcli.procedures.study_runner import EXECUTION, ExecutorAddress, Jobs, Repeats, StudyRunner, open_runner
from klcli.settings.train_config import TrainConfig

if TYPE_CHECKING:  # NumPy and sqlite-utils are slow to import, and --help needs neither
    from klcli.store.store import Store
    from klcli.training.result import TrainResult


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("train", cls=many_valued("--hidden", "-H", "--train-batches", "--validation-batches"))(train)


@takes_config()
def train(
    ctx: typer.Context,
    config: TrainConfig,
    resume: Annotated[
        str | None,
        option(
            "--resume", panel=EXECUTION, metavar="RUN|last", help="Go on with an interrupted run, to the same bits."
        ),
    ] = None,
    lr_range_test: Annotated[
        bool,
        option(
            "--lr-range-test",
            panel=LEARNING,
            help="Instead of training, let eta rise from 1e-5 to 1 within an epoch and suggest its limits.",
        ),
    ] = False,
    list_presets: Annotated[
        bool, option("--list-presets", panel=NETWORK, help="Show the settings that have a name, and train nothing.")
    ] = False,
    repeats: Repeats = 1,
    jobs: Jobs = None,
    executor: ExecutorAddress = None,
    data: DataSource = None,
    threads: Threads = 1,
    db: DatabasePath = DEFAULT_DATABASE,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train one network and store every epoch.

    Without options: the 3-layer network 50-50 of the course, He initialisation, two cycles of a
    cyclical learning rate on 45 000 images; 5 000 validate, and the 10 000 of the test split are
    looked at once, at the end. The run is in the database from its first second on, whatever
    becomes of it.

    Examples:

    - `klcli train --hidden 50 30 20 --bn`

    - `klcli train --hidden 50,50 --bn --lambda 0.003 --cycles 3 --seed 7`

    - `klcli train --init normal --sigma 1e-4 --subset 5000`
    """
    session = Session(as_json=as_json, quiet=quiet)
    if list_presets:
        _show_presets(session)
        return
    if lr_range_test:
        if resume is not None:
            raise ConfigError(f"--resume {resume}: a run goes on as it began, leave --lr-range-test away")
        from klcli.studies.range_test import range_test

        config = range_test(config, typed_fields(ctx))
    if repeats != 1:
        runner = open_runner(
            session, config, data=data, db=db, jobs=jobs, executor=executor, threads=threads, resume=resume is not None
        )
        train_repeatedly(runner, config, repeats)
        return

    from klcli.data.dataset import split
    from klcli.data.sources import open_dataset
    from klcli.store.store import Store
    from klcli.training.budget import timetable
    from klcli.training.environment import environment, pin_threads

    resumed = None
    if resume is not None:
        store = Store.existing(db)
        asked = threads if is_typed(ctx, "threads") else None
        resumed = take_over(session, store, resume, data=data, threads=asked, typed=config, named=typed_fields(ctx))
    else:
        pin_threads(threads)
        dataset = open_dataset(data)
        times = timetable(config, len(split(dataset, config.split).train))
        store = Store(db)
        require_room(store.path.parent)
    with obeyed_between_updates() as check:  # from here on there is a run that must end in a state
        if resumed is None:
            run_id = store.runs.begin(config, times, dataset, environment(), typed_command())
            resumed = Resumption(run_id, config, dataset)
        warn_of_data(session, resumed.dataset)
        warn_of_settings(session, resumed.config)
        _train_recorded(session, store, resumed, check)
    _show(session, store, resumed.run_id)


def _train_recorded(session: Session, store: "Store", resumed: Resumption, check: Callable[[], None]) -> None:
    """Train a run from where it is to its end, every evaluation in the database."""
    from klcli import second_core
    from klcli.data.dataset import split
    from klcli.second_core.partner import PartnerLost
    from klcli.training.budget import timetable
    from klcli.training.environment import environment
    from klcli.training.trainer import train as train_group

    run_id, config = resumed.run_id, resumed.config
    if environment().threads == 1:  # the threads of BLAS have taken the other cores otherwise
        second_core.use()
    splits = split(resumed.dataset, config.split)
    times = timetable(config, len(splits.train))
    if not times.ends_a_cycle:
        eta = times.learning_rate(times.total_updates, config)
        session.warn(
            f"{times.cycles:.2f} cycles: training ends where eta is {eta:.2g}, "
            "networks are best compared at the end of a whole cycle"
        )
    recording = Recording(store, run_id, len(resumed.epochs), resumed.seconds)
    progress = TrainingProgress(session, times)
    try:
        with recording.ending_in_a_state(), progress.showing():

            def on_evaluation(results: "list[TrainResult]") -> None:
                recording.on_evaluation(results[0])
                progress.on_evaluation(results[0])
                check()

            def on_update(step: int) -> None:
                progress.on_update(step)
                check()

            [result] = train_group(
                [config],
                splits,
                snapshot=resumed.snapshot,
                epochs=resumed.epochs,
                look_at_test=config.schedule != "range",
                on_update=on_update,
                on_evaluation=on_evaluation,
            )
            recording.complete(result)
    except Interrupted as interruption:
        raise interruption.adding(_how_to_continue(store, run_id)) from None
    except PartnerLost as lost:
        raise PartnerLost(f"{lost}: {_how_to_continue(store, run_id)}") from None


def _how_to_continue(store: "Store", run_id: int) -> str:
    database = [] if store.path == DEFAULT_DATABASE else ["--db", str(store.path)]
    command = shlex.join(["klcli", "train", "--resume", str(run_id), *database])
    epochs = store.runs.get(run_id)["epochs_done"]
    return f"run {run_id} keeps its {epochs:g} epochs, continue with `{command}`"


def _show_presets(session: Session) -> None:
    from dataclasses import asdict

    from klcli.report.tables.table import Column, Table
    from klcli.settings.presets import presets, setting_word

    known = presets().values()
    columns = (Column("setting", "setting", is_number=False), Column("value", "value", setting_word, is_number=False))
    for one in known:
        rows = [{"setting": key, "value": value} for key, value in one.differing().items()]
        session.result(Table(f"{one.name}: {one.description}", columns, rows or [{"setting": "the defaults"}]))
    documents = [{"name": one.name, "description": one.description, "config": asdict(one.config)} for one in known]
    session.document("train", {"presets": documents})


def train_repeatedly(runner: StudyRunner, config: TrainConfig, repeats: int) -> None:
    """Train one setting under several seeds, as members of groups, and show the mean with its error bar."""
    from klcli.report.documents import run_document
    from klcli.report.tables.studies import repeats_table
    from klcli.report.tables.table import network_name
    from klcli.studies.repeats import repeat

    study = runner.run("repeats", "train", repeat(config, repeats), {}, look_at_test=config.schedule != "range")
    runs = runner.store.studies.members(study)
    complete = [run for run in runs if run["state"] == "complete"]
    first, last = runs[0], runs[-1]
    seeds = f"seeds {first['seed']} to {last['seed']}"
    title = f"Study {study}, runs {first['id']} to {last['id']}: {network_name(first)} on {first['dataset']}, {seeds}"
    runner.session.result(repeats_table(title, complete), f"database    {runner.store.path}")
    runner.session.document("train", {"study": study, "runs": [run_document(run) for run in runs]})
    if len(complete) < len(runs):
        raise Diverged(f"{len(runs) - len(complete)} of {len(runs)} runs diverged, try a smaller --eta-max")


def _show(session: Session, store: "Store", run_id: int) -> None:
    """Draw the picture of the run and tell where everything is. Raises Diverged for a run that did."""
    from klcli.report.documents import run_document
    from klcli.report.plots.range_test import draw_range_test, range_curves
    from klcli.report.plots.training import draw_training, training_curves
    from klcli.report.tables.range_tests import suggestion_sentence
    from klcli.report.tables.table import duration, network_name, splits_table
    from klcli.store.checkpoints import write_atomically

    run, epochs = store.runs.get(run_id), store.runs.epochs(run_id)
    is_range_test = run["schedule"] == "range"
    picture = store.folder("plots") / f"run-{run_id:06d}.png"
    drawn = draw_range_test(range_curves(run, epochs)) if is_range_test else draw_training(training_curves(run, epochs))
    write_atomically(picture, drawn)
    diverged = run["state"] == "diverged"
    work = f"{run['epochs_done']:g} epochs on {run['dataset']} in {duration(run['seconds'])}"
    title = f"Run {run_id}: {network_name(run)}, {work}"
    places = [("database", store.path), ("picture", picture)]
    if run["checkpoint"]:
        places.insert(1, ("checkpoint", store.path.parent / run["checkpoint"]))
    notes = [suggestion_sentence(run, epochs)] if is_range_test else []
    session.result(splits_table(title, run), *notes, *(f"{what:<11} {where}" for what, where in places))
    document = {"run": run_document(run), "epochs": [dict(epoch) for epoch in epochs], "picture": str(picture)}
    session.document("train", document | ({"notes": notes} if notes else {}))
    if diverged and not is_range_test:  # a range test goes on until it does
        raise Diverged(
            f"run {run_id} diverged: {run['error']}; its {run['epochs_done']:g} epochs are kept, "
            f"try a smaller --eta-max than {run['eta_max']:g}"
        )
