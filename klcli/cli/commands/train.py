"""`klcli train`: one network, from the options to the picture."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import typer

from klcli.cli.invocation import EXECUTION, Invocation, invoked
from klcli.cli.options import takes, typed_settings
from klcli.errors import Diverged
from klcli.report.tables.table import Table, columns, duration
from klcli.report.words import counted, network_name, repeats_note, settings_words, subset_words, without_note
from klcli.settings.presets import presets
from klcli.settings.run_names import runs_words
from klcli.settings.sameness import SETTINGS, not_default
from klcli.settings.setting import Role, flag, require, setting, value_of
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Run, RunFilter


@takes(TrainConfig)
@invoked("repeats", "vary", "jobs", "executor", "data", "threads", "db")
def train(
    ctx: typer.Context,
    config: TrainConfig,
    resume: str | None = setting(None, EXECUTION, "Continue a run; the result has the same bits.", metavar="RUN|last"),
    lr_range_test: bool = flag(
        Role.OPTIMISATION, "Instead of training, let eta rise from 1e-5 to 1 within an epoch and suggest its limits."
    ),
    list_presets: bool = flag(Role.NETWORK, "List the presets and exit."),
    *,
    invocation: Invocation,
) -> None:
    """Train one network and store every epoch.

    Without options: the 3-layer network 50-50 of the course, He initialisation, two cycles of a
    cyclical learning rate on 45 000 images; 5 000 validate, and the network is evaluated on the 10 000
    of the test set once, after training. The run is recorded before its first update.

    Examples:

    - `klcli train --hidden 50 30 20 --bn`
    - `klcli train --hidden 50,50 --bn --lambda 0.003 --cycles 3 --seed 7`
    - `klcli train --bn --init normal --sigma 1e-4 --subset 5000`
    """
    if list_presets:
        _show_presets(invocation)
        return
    named, is_study = typed_settings(ctx, TrainConfig), invocation.repeats != 1 or invocation.vary != "all"
    if lr_range_test:
        alone = f"--resume {resume}: a resumed run keeps its settings, omit --lr-range-test"
        require(resume is None or is_study, alone)
        from klcli.studies.plans import range_test

        config = range_test(config, named)
    lab = invocation.lab
    number = f"--resume {resume}: continues one run; the same command with --resume last continues its repeats"
    require(not is_study or resume in (None, "last"), number)
    alone = f"--executor {invocation.executor}: a single training has no use for workers, give --repeats 2 or more"
    require(is_study or invocation.executor is None, alone)
    alone = f"--jobs {invocation.jobs}: a single training has no stacks to divide, give --repeats 2 or more"
    require(is_study or invocation.jobs in (None, 1), alone)  # with 1, it leaves the other cores free
    if is_study:
        study = lab.repeat(config, invocation.repeats, vary=invocation.vary, resume=resume is not None)
        _show_repeats(invocation, study.id)
    elif resume is None:
        show_run(invocation, lab.train(config))
    else:
        wanted = {key: value_of(config, key) for key in named}
        threads = invocation.threads if "threads" in typed_settings(ctx, Invocation) else None
        show_run(invocation, lab.resume(resume, wanted=wanted, threads=threads))


def _show_presets(invocation: Invocation) -> None:
    known = presets().values()
    measured = "minutes=minutes on two cores; test=test accuracy, %; test_over_views=over flips and shifts, %"
    head = columns(f"name=preset; {measured}; description=for")
    invocation.result(Table("Presets, measured on all of CIFAR-10", head, [vars(one) for one in known]))
    for one in known:
        chosen = [(SETTINGS[key], value) for key, value in not_default(one.config).items()]
        rows = [{"setting": setting.label, "value": setting.words(value)} for setting, value in chosen]
        invocation.result(Table(f"Preset {one.name}", columns("setting; value"), rows or [{"setting": "the defaults"}]))
    invocation.document("train", {"presets": [*map(asdict, known)]})


def _show_repeats(invocation: Invocation, study: int) -> None:
    """Show the mean over seeds with its error bar. Raises Diverged where a run did."""
    from klcli.report.documents import run_document
    from klcli.report.plots.curves import training_curves
    from klcli.report.tables.studies import range_notes, repeats_table

    runs, picture = invocation.lab.runs_of(study), None
    complete = [run for run in runs if run.state == "complete"]
    first, words = runs[0], settings_words(runs[0], runs)
    seeds = ", ".join(filter(None, (words["seed"], words["order"])))
    what = f"{network_name(first.config)} on {first.dataset}{subset_words(runs)}, {seeds}"
    title = f"Study {study}, {runs_words(run.id for run in runs)}: {what}"
    suggestions = range_notes(runs, invocation.lab.epochs)
    notes = [*filter(None, (without_note(runs), repeats_note(runs))), *suggestions] if complete else suggestions
    invocation.result(repeats_table(title, complete) if complete else title, *notes)
    if complete and not suggestions:  # each range test has limits of its own: a picture of their mean could show none
        epochs = {run.id: invocation.lab.epochs(run) for run in runs}
        picture = invocation.picture(f"study-{study:06d}-training.png", lambda: training_curves(runs, epochs))
    then = [f"report --study {study} --plot curves"] if complete else []
    if complete and invocation.vary != "split" and not suggestions:
        then.append(_ranking(invocation, complete[0], f"report --group-by {_columns(invocation, complete[0])}"))
    invocation.places(*then, picture=picture)
    document = {"study": study, "runs": [*map(run_document, runs)], "notes": notes, "picture": picture}
    invocation.document("train", document)
    if len(complete) < len(runs) and not suggestions:
        raise Diverged(f"{len(runs) - len(complete)} of {len(runs)} runs diverged, {first.config.cure_of_divergence}")


def _columns(invocation: Invocation, run: Run) -> str:
    """`hidden,bn,lambda`, and the settings in which runs that share these with a run differ: no mean is over both."""
    from klcli.procedures.run_lookup import images_of_run
    from klcli.report.tables.groups import mixing

    store, config = invocation.lab.store, run.config
    alike = RunFilter(state="complete", hidden=config.hidden, batch_norm=config.batch_norm, lam=config.lam)
    found, _ = store.runs.results(alike.on_images_of(images_of_run(store, run)))
    return ",".join(["hidden", "bn", "lambda", *(one.option.removeprefix("--") for one in mixing(found))])


def _ranking(invocation: Invocation, run: Run, view: str) -> str:
    """Return the command of a view that shows a complete run: it names the run's images if others are ranked first."""
    first = invocation.lab.store.runs.image_sets(RunFilter(state="complete"))[:1]
    is_shown = any(one.dataset_sha256 == run.dataset_sha256 and run.split_json in one.splits for one in first)
    return view if is_shown else f"{view} --images-of {run.id}"


def show_run(invocation: Invocation, run: Run, command: str = "train", more: Mapping[str, Any] | None = None) -> None:
    """Show the results of a run, its picture, and where everything is. Raises Diverged for a run that did."""
    from klcli.report.documents import record_document, run_document
    from klcli.report.plots.curves import training_curves
    from klcli.report.tables.runs import splits_table
    from klcli.report.tables.studies import suggestion_sentence

    epochs = invocation.lab.epochs(run)
    is_range_test = run.config.schedule == "range"
    length = f"{run.epochs_done:g} {counted(run.epochs_done, 'epoch')}"
    work = f"{length} on {run.dataset}{subset_words([run])} in {duration(run.seconds or 0.0)}"
    notes = [suggestion_sentence(run, epochs)] if is_range_test else []
    invocation.result(splits_table(f"Run {run.id}: {network_name(run.config)}, {work}", run), *notes)
    picture = invocation.picture(f"run-{run.id:06d}.png", lambda: training_curves([run], {run.id: epochs}))
    checkpoint = invocation.lab.store.runs.file_of(run) if run.checkpoint else None
    is_ranked = run.state == "complete" and not is_range_test
    then = [f"evaluate {run.id} --flips", _ranking(invocation, run, "report --best 10")] if is_ranked else []
    invocation.places(*then, checkpoint=checkpoint, picture=picture)
    document = {"run": run_document(run), "epochs": [*map(record_document, epochs)], "notes": notes}
    invocation.document(command, document | {"picture": picture} | dict(more or {}))
    if run.state == "diverged" and not is_range_test:  # a range test continues until the cost diverges
        kept = f"{length} {'is' if run.epochs_done == 1 else 'are'}"
        raise Diverged(f"run {run.id} diverged: {run.error}; {kept} kept, {run.config.cure_of_divergence}")


def raise_for_lost(parts: Mapping[str, Sequence[Run]], cure: str = "") -> None:
    """Raise Diverged, which names the parts of which no run is complete, with a cure; call it when all is shown."""
    lost = {what: runs for what, runs in parts.items() if runs and all(run.state != "complete" for run in runs)}
    if lost:
        configs = [run.config for runs in lost.values() for run in runs]
        smallest = min(configs, key=lambda config: (config.lam, config.sigma or 0.0))
        raise Diverged(f"{' and '.join(lost)} diverged: {cure or smallest.cure_of_divergence}")
