"""`klcli search-lambda`: coarse to fine, every value on a fresh network."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import integer_option, numbers, option, takes
from klcli.cli.variadic import variadic
from klcli.errors import ConfigError, Diverged
from klcli.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from klcli.lab import Lab
    from klcli.procedures.searches import LambdaSearch

SEARCH = "Search"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    many = variadic("--hidden", "-H", "--train-batches", "--validation-batches", "--values", "--range")
    app.command("search-lambda", cls=many)(search_lambda)


@takes(TrainConfig, "config", omit=("preset", "lam"), batch_norm=True, step_epochs=2.0)
@invoked("repeats", "jobs", "executor", "resume", "data", "threads", "db")
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
        bool,
        option("--final", panel=SEARCH, help="Train the chosen one for 3 cycles and evaluate it on the test split."),
    ] = False,
    *,
    invocation: Invocation,
) -> None:
    """Search the L2 coefficient lambda by validation accuracy, from coarse to fine.

    Every value is tried on a fresh network, with the same initial weights and order of images, and
    stored as a run of its own. The values, seeds and stacks are drawn before anything is trained: any
    number of workers gives the same table.

    - `klcli search-lambda --coarse --fine --final`

    - `klcli search-lambda --values 0.0015 0.002 0.003 0.0045 --repeats 3`
    """
    from klcli.procedures.searches import Stage, require_choice
    from klcli.studies.lambda_search import Range

    ends = numbers(between, "range")
    if len(ends) != 2:
        raise ConfigError(f"--range {' '.join(between)}: give two numbers, for example --range 1e-5 1e-1")
    what = Stage(
        values=numbers(values, "values"),
        between=Range(ends[0], ends[1], scale),
        trials=trials,
        coarse=coarse,
        fine=rounds if rounds < 0 else max(fine, rounds),
        from_study=from_study,
        final=final,
    )
    lab = invocation.lab()
    found = lab.search_lambda(config, what, repeats=invocation.repeats, resume=invocation.resume)
    _show(invocation, lab, found)
    require_choice(found, config)
    if found.final and all(run.state == "diverged" for run in found.final):
        raise Diverged(f"the final training (study {found.final[0].study_id}) diverged: try a smaller --eta-max")


def _show(invocation: Invocation, lab: "Lab", found: "LambdaSearch") -> None:
    from klcli.report.documents import run_document
    from klcli.report.plots.figure import draw
    from klcli.report.plots.studies import lambda_search
    from klcli.report.tables.runs import splits_table
    from klcli.report.tables.studies import choice_document, choice_sentence, repeats_table, search_table, search_title

    invocation.result(search_table(search_title(found, found.stages[0][1][0].dataset), found.stages, found.choice))
    document: dict[str, Any] = {
        "studies": [
            {"study": study, "stage": stage, "runs": [run_document(run) for run in runs]}
            for study, (stage, runs) in zip(found.studies, found.stages, strict=True)
        ],
        "choice": None,
    }
    places = [f"database    {lab.store.path}"]
    if found.choice is not None:
        name = f"study-{found.studies[-1]:06d}-lambda.png"
        picture = lab.store.write_picture(name, draw(lambda_search(found.stages, found.choice)))
        invocation.result(choice_sentence(found.choice))
        document |= {"choice": choice_document(found.choice), "picture": str(picture)}
        places.append(f"picture     {picture}")
    if found.choice is not None and found.final:
        runs, study = found.final, found.final[0].study_id
        what = f"Final: lambda {found.choice.chosen.lam:.6g}, {runs[0].cycles:g} cycles (study {study})"
        complete = [run for run in runs if run.state == "complete"]
        invocation.result(splits_table(what, runs[0]) if len(runs) == 1 else repeats_table(what, complete))
        document["final"] = {"study": study, "runs": [run_document(run) for run in runs]}
    invocation.result(*places)
    invocation.document("search-lambda", document)
