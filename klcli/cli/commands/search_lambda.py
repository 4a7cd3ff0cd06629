"""`klcli search-lambda`: coarse to fine, every value on a fresh network."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from klcli.cli.config_options import takes_config
from klcli.cli.options import (
    DEFAULT_DATABASE,
    DatabasePath,
    DataSource,
    Debug,
    Json,
    Quiet,
    Threads,
    integer_option,
    numbers,
    option,
)
from klcli.cli.session import Session
from klcli.cli.variadic import many_valued
from klcli.errors import ConfigError, Diverged
from klcli.procedures.study_runner import ExecutorAddress, Jobs, Repeats, Resume, StudyRunner, open_runner
from klcli.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from klcli.studies.lambda_search import Choice, Range

SEARCH = "The search"
KIND = "lambda"
FREE = ("lam", "seed", "order_seed", "evaluations_per_cycle")  # in these the stages of a search may differ
NETWORK_FIELDS = ("hidden", "batch_norm", "bn_position", "bn_momentum", "bn_eps", "initializer", "sigma")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    many = many_valued("--hidden", "-H", "--train-batches", "--validation-batches", "--values", "--range")
    app.command("search-lambda", cls=many)(search_lambda)


@takes_config(omit=("preset", "lam"), batch_norm=True, step_epochs=2.0)
def search_lambda(
    config: TrainConfig,
    coarse: Annotated[bool, option("--coarse", panel=SEARCH, help="Draw from the whole range; the default.")] = False,
    fine: Annotated[
        int,
        option("--fine", panel=SEARCH, count=True, help="Then from one that brackets the three best; twice: again."),
    ] = 0,
    rounds: Annotated[int, integer_option("--rounds", panel=SEARCH, help="The same as that many --fine.")] = 0,
    from_study: Annotated[
        int | None, integer_option("--from", panel=SEARCH, help="Begin --fine at this study, not at the latest.")
    ] = None,
    values: Annotated[
        list[str], option("--values", panel=SEARCH, metavar="X...", help="Try these lambdas instead of drawing any.")
    ] = [],
    between: Annotated[list[str], option("--range", panel=SEARCH, metavar="LOW HIGH", help="Where --coarse draws.")] = [
        "1e-5",
        "1e-1",
    ],
    scale: Annotated[
        str, option("--scale", panel=SEARCH, metavar="log|linear", help="Draw uniformly in log lambda, or in lambda.")
    ] = "log",
    trials: Annotated[int, integer_option("--trials", panel=SEARCH, help="Values per stage.", bounds=(1, 1000))] = 8,
    final: Annotated[
        bool, option("--final", panel=SEARCH, help="Train the chosen one for 3 cycles and look at the test split.")
    ] = False,
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
    """Search the L2 coefficient lambda by validation accuracy, from coarse to fine.

    Every value is tried on a fresh network, with the same initial weights and order of images, and
    stored as a run of its own. The values, seeds and groups are drawn before anything is trained: any
    number of workers gives the same table.

    - `klcli search-lambda --coarse --fine --final`

    - `klcli search-lambda --values 0.0015 0.002 0.003 0.0045 --repeats 3`
    """
    session = Session(as_json=as_json, quiet=quiet)

    from klcli.report.tables.studies import tried_values
    from klcli.studies.lambda_search import Range, choose, draw, narrow, plan
    from klcli.studies.lambda_search import final as final_plan

    ends = numbers(between, "range")
    if len(ends) != 2:
        raise ConfigError(f"--range {' '.join(between)}: give two numbers, for example --range 1e-5 1e-1")
    where = Range(ends[0], ends[1], scale)
    if rounds < 0:
        raise ConfigError(f"--rounds {rounds}: must be at least 0")
    fine = max(fine, rounds)
    listed = numbers(values, "values")
    if listed and (coarse or fine):
        raise ConfigError(f"--values {' '.join(values)}: a list needs no --coarse and no --fine, leave one of them out")
    if from_study is not None and (coarse or listed or not fine):
        raise ConfigError(f"--from {from_study}: this is where --fine begins, give --fine and no other stage")
    runner = open_runner(
        session, config, data=data, db=db, jobs=jobs, executor=executor, resume=resume, threads=threads
    )
    chain: list[tuple[str, int]] = []  # stages and their studies
    if listed:
        study = runner.run(KIND, "values", plan(config, sorted(listed), repeats), {}, look_at_test=False)
        chain.append(("values", study))
    elif coarse or not fine:
        drawn = draw(where, trials, config.seed, stage=0)
        study = runner.run(KIND, "coarse", plan(config, drawn, repeats), _settings(where), look_at_test=False)
        chain.append(("coarse", study))
    else:
        chain, where = _earlier(runner, config, from_study)
    for _ in range(fine):
        tried = [one for stage, study in chain for one in tried_values(runner.store.studies.members(study), stage)]
        if not any(one.accuracies for one in tried):
            break
        where = narrow(tried, where)
        number = len(chain)
        stage = "fine" if number == 1 else f"fine {number}"
        session.say(f"{stage}: lambda from {where.low:.4g} to {where.high:.4g} brackets the three best")
        drawn = draw(where, trials, config.seed, stage=number)
        settings = _settings(where)
        study = runner.run(KIND, stage, plan(config, drawn, repeats), settings, look_at_test=False, parent=chain[-1][1])
        chain.append((stage, study))
    tried = [one for stage, study in chain for one in tried_values(runner.store.studies.members(study), stage)]
    if not any(one.accuracies for one in tried):
        _show(runner, chain, None)
        raise Diverged(f"every lambda diverged: try a smaller --eta-max than {config.eta_max:g}")
    choice = choose(tried, len(runner.splits.validation))
    final_study = None
    if final:
        final_study = runner.run(
            KIND,
            "final",
            final_plan(config, choice.chosen.lam, repeats),
            {},
            look_at_test=True,
            parent=chain[-1][1],
        )
    _show(runner, chain, choice, final_study)


def _settings(where: "Range") -> dict[str, Any]:
    return {"low": where.low, "high": where.high, "scale": where.scale}


def _earlier(runner: StudyRunner, config: TrainConfig, from_study: int | None) -> tuple[list[tuple[str, int]], "Range"]:
    """Return the stored stages that --fine begins from, the first one first, and the range of the last."""
    import json

    from klcli.studies.lambda_search import Range

    if from_study is None:
        latest = runner.store.studies.latest(KIND, "coarse", runner.dataset.sha256)
        if latest is None:
            raise ConfigError("--fine: there is no complete coarse search of these images yet, add --coarse")
        from_study = int(latest["id"])
    study = runner.store.studies.get(from_study)
    settings = json.loads(study["settings"])
    if study["kind"] != KIND or "low" not in settings:
        raise ConfigError(f"--from {from_study}: this study is no coarse or fine search of lambda")
    if settings["dataset_sha256"] != runner.dataset.sha256:
        raise ConfigError(f"--from {from_study}: this study used other images, name them with --data")
    if study["state"] != "complete":
        raise ConfigError(
            f"--from {from_study}: this study is {study['state']}, repeat its command with --resume first"
        )
    _compare(runner, from_study, settings["plan"][0], config)
    chain = [(str(study["stage"]), int(study["id"]))]
    while study["parent"] is not None:
        study = runner.store.studies.get(study["parent"])
        chain.insert(0, (str(study["stage"]), int(study["id"])))
    return chain, Range(settings["low"], settings["high"], settings["scale"])


def _compare(runner: StudyRunner, study: int, earlier: dict[str, Any], config: TrainConfig) -> None:
    """Refuse to go on from the search of another network; warn of one that was trained otherwise."""
    import json

    now = json.loads(config.to_json())
    differing = [key for key in earlier if key in now and key not in FREE and earlier[key] != now[key]]
    told = ", ".join(f"{key} {earlier[key]} (here {now[key]})" for key in differing)
    if set(differing) & set(NETWORK_FIELDS):
        raise ConfigError(f"--fine: study {study} searched for another network, {told}: give the same, or add --coarse")
    if differing:
        runner.session.warn(f"study {study} was trained with {told}: the accuracies of its lambdas are others")


def _show(
    runner: StudyRunner, chain: list[tuple[str, int]], choice: "Choice | None", final_study: int | None = None
) -> None:
    from klcli.report.documents import run_document
    from klcli.report.plots.lambda_search import draw_lambda_search, lambda_search
    from klcli.report.tables.studies import choice_document, choice_sentence, repeats_table, search_table
    from klcli.report.tables.table import network_name, splits_table
    from klcli.store.checkpoints import write_atomically

    session, store = runner.session, runner.store
    stages = [(stage, store.studies.members(study)) for stage, study in chain]
    first = stages[0][1][0]
    studies = ", ".join(str(study) for _, study in chain)
    title = f"Lambda of the {network_name(first)} on {first['dataset']}, by validation accuracy (study {studies})"
    session.result(search_table(title, stages, choice))
    document: dict[str, Any] = {
        "studies": [
            {"study": study, "stage": stage, "runs": [run_document(run) for run in runs]}
            for (_, study), (stage, runs) in zip(chain, stages, strict=True)
        ],
        "choice": None,
    }
    places = [f"database    {store.path}"]
    diverged = False
    if choice is not None:
        picture = store.folder("plots") / f"study-{chain[-1][1]:06d}-lambda.png"
        write_atomically(picture, draw_lambda_search(lambda_search(stages, choice)))
        session.result(choice_sentence(choice))
        document |= {"choice": choice_document(choice), "picture": str(picture)}
        places.append(f"picture     {picture}")
    if choice is not None and final_study is not None:
        runs = store.studies.members(final_study)
        diverged = all(run["state"] == "diverged" for run in runs)
        what = f"Final: lambda {choice.chosen.lam:.6g}, {runs[0]['cycles']:g} cycles (study {final_study})"
        complete = [run for run in runs if run["state"] == "complete"]
        table = splits_table(what, runs[0]) if len(runs) == 1 else repeats_table(what, complete)
        session.result(table)
        document["final"] = {"study": final_study, "runs": [run_document(run) for run in runs]}
    session.result(*places)
    session.document("search-lambda", document)
    if diverged:
        raise Diverged(f"the final training (study {final_study}) diverged: try a smaller --eta-max")
