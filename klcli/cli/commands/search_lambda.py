"""`klcli search-lambda`: search lambda from coarse to fine, every value on a new network."""

from dataclasses import asdict, replace
from typing import Any

from klcli.cli.commands.train import raise_for_lost
from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import takes
from klcli.report.words import repeats_note, subset_words, without_note
from klcli.settings.procedures import SearchSettings
from klcli.settings.run_command import OF_SEARCH, run_command
from klcli.settings.train_config import TrainConfig


@takes(TrainConfig, omit=("preset", "lam"), **OF_SEARCH)
@takes(SearchSettings)
@invoked("repeats", "vary", "jobs", "executor", "resume", "data", "threads", "db")
def search_lambda(config: TrainConfig, search: SearchSettings, *, invocation: Invocation) -> None:
    """Search the L2 coefficient lambda by validation accuracy, from coarse to fine.

    Every value trains a new network, with the same initial weights and order of images, which is
    stored as its own run. All values, seeds and stacks are determined before the first training: any
    number of workers gives the same table.

    - `klcli search-lambda --coarse --fine --final`
    - `klcli search-lambda --values 0.0015 0.002 0.003 0.0045 --repeats 3`
    """
    lab = invocation.lab
    found = lab.search_lambda(config, search, **invocation.seeds)

    from klcli.report.documents import run_document
    from klcli.report.plots.curves import training_curves
    from klcli.report.plots.studies import lambda_search
    from klcli.report.tables.runs import splits_table
    from klcli.report.tables.studies import choice_sentence, repeats_table, search_table, stages_note

    choice, picture, curves = found.choice, None, None
    notes = [choice_sentence(choice) if choice else "", stages_note(found)]
    notes = [*filter(None, [*notes, *dict.fromkeys(repeats_note(runs) for _, runs in found.stages)])]
    invocation.result(search_table(found), *notes)
    pairs = zip(found.studies, found.stages, strict=True)
    stages = [{"study": study, "stage": stage, "runs": [*map(run_document, own)]} for study, (stage, own) in pairs]
    document: dict[str, Any] = {"studies": stages, "choice": asdict(choice) if choice else None}
    if choice is not None and found.final:
        runs, study = found.final, found.final[0].study_id
        what = f"Final: lambda {choice.chosen.lam:.6g}, {runs[0].cycles:g} cycles{subset_words(runs)} (study {study})"
        complete = [run for run in runs if run.state == "complete"]
        shown = splits_table(what, runs[0]) if len(runs) == 1 else repeats_table(what, complete)
        left = [*filter(None, [without_note(runs)])]
        invocation.result(shown, *left)
        notes += left
        epochs = {run.id: lab.epochs(run) for run in runs}
        curves = invocation.picture(f"study-{study:06d}-training.png", lambda: training_curves(runs, epochs))
        document["final"] = {"study": study, "runs": [*map(run_document, runs)], "picture": curves}
    if choice is not None:
        name = f"study-{found.studies[-1]:06d}-lambda.png"
        document["picture"] = picture = invocation.picture(name, lambda: lambda_search(found.stages, choice))
    then = [f"report --study {found.studies[-1]} --plot lambda --to lambda.pdf"] if choice else []
    then += [f"evaluate {run.id} --flips" for run in found.final if run.state == "complete"][:1]
    if choice is not None and not found.final:
        data, chosen = invocation.data or found.stages[0][1][0].dataset, replace(config, lam=choice.chosen.lam)
        final = run_command(chosen, data=data, threads=invocation.threads, db=None)
        then += [final.removeprefix("klcli ")]
    invocation.places(*then, picture=picture, curves=curves)
    invocation.document("search-lambda", document | {"notes": notes})
    parts = {"every lambda": [run for _, own in found.stages for run in own]}
    raise_for_lost(parts | {f"the final training (study {run.study_id})": found.final for run in found.final[:1]})
