"""Train one network, from its config or from the checkpoint of a stored run, and record the run."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from klcli.data.dataset import Dataset, Splits, split
from klcli.errors import ConfigError
from klcli.procedures.run_lookup import NEWEST, chosen_run, place_of
from klcli.procedures.setup import Setup, ending_in_a_state
from klcli.settings.run_command import database_option, in_database, resuming_command, run_command
from klcli.settings.run_names import LAST
from klcli.settings.setting import require, settings_of, value_of
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Run
from klcli.store.runs import UNFINISHED
from klcli.store.store import Store
from klcli.termination import deferred
from klcli.text import command_text
from klcli.training.budget import budget_of, require_trainable
from klcli.training.cores import cores
from klcli.training.environment import continued, environment
from klcli.training.result import Snapshot, TrainResult
from klcli.training.trainer import train as train_stack


def train(setup: Setup, config: TrainConfig) -> Run:
    """Train one network and return its run, which is recorded before the first update."""
    require_trainable(config)
    with setup.pinned():
        setup.prepare_engine()
        return _begin(setup, config, setup.images())


def rerun(setup: Setup, which: str) -> Run:
    """Train a stored run again, with its settings, images and threads, and return the new run.

    Raises ConfigError for a run that no settings describe, DataError if its images are missing or have changed.
    """
    store = setup.store()
    run = chosen_run(store, which, "rerun")
    if run.method and run.study_id is not None:  # it begins with other weights, or is trained by other equations
        again = f"repeat study {run.study_id} with `{_study_command(store, run)}`"
        raise ConfigError(f"rerun {which}: no settings describe how this run was trained, {again}")
    with setup.pinned(run.threads):
        setup.prepare_engine()
        dataset = setup.images(run, f"rerun {run.id}")
        data = place_of(run, setup.data)
        command = run_command(run.config, data=data, threads=run.threads, db=setup.db)
        return _begin(replace(setup, command=command), run.config, dataset)


def _begin(setup: Setup, config: TrainConfig, dataset: Dataset) -> Run:
    budget = budget_of(config)
    store = setup.new_store()
    splits = split(dataset, config.split)  # takes 0.1 s, while the other thread loads the compiled code
    setup.why_no_engine()  # the environment names it
    with deferred() as check:  # from here on, a recorded run exists and must end in a state
        run = store.runs.get(store.runs.begin(config, budget, dataset, environment(), setup.command))
        return _train(setup, store, run, dataset, splits, check, is_resumed=False)


def resume(setup: Setup, which: str, wanted: Mapping[str, Any], threads: int | None) -> Run:
    """Complete a stored run and return it, as Lab.resume does; `wanted` are settings that the user gave again, by key.

    Raises ConfigError or DataError, which name the difference.
    """
    store = setup.store()
    run = _unfinished(store, which)
    run.require_length()
    known = settings_of(TrainConfig)
    for key, value in wanted.items():
        require(key in known, f"--resume {run.id}: {key!r} is no setting, name one as 'lam' or 'split.subset'")
        stored, option = value_of(run.config, key), known[key].option
        if stored != known[key].checked(value):
            raise ConfigError(f"--resume {run.id}: its {option} is {stored!r}, not {value!r}, omit that option")
    others = f"--resume {run.id}: it used --threads {run.threads}, not {threads}, omit that option"
    require(threads in (None, run.threads), others)
    setup.prepare_engine()
    dataset = setup.images(run, f"--resume {run.id}")
    splits = split(dataset, run.config.split)
    with setup.pinned(run.threads), deferred() as check:
        if run.state == "running":
            setup.observer.warn(f"run {run.id}: {store.runs.training_words(run)}: that process would end now")
        store.runs.claim(run.id)
        run = store.runs.get(run.id)  # it may have gone on while the images were read
        return _train(setup, store, run, dataset, splits, check, is_resumed=True)


def _train(
    setup: Setup, store: Store, run: Run, dataset: Dataset, splits: Splits, check: Callable[[], None], is_resumed: bool
) -> Run:
    config, recorded, before, started = run.config, 0, run.seconds or 0.0, time.perf_counter()
    snapshot: Snapshot | None = None
    latest: TrainResult | None = None

    def end(state: str, error: str | None = None) -> None:
        store.runs.finish(run.id, state, latest, before + time.perf_counter() - started, error)

    def how_to_continue() -> str:
        command = command_text(["klcli", "train", "--resume", str(run.id), *database_option(setup.db)])
        done = store.runs.get(run.id).epochs_done
        kept = f"keeps its {done:g} epoch{'s' * (done != 1)}" if done else "has no epoch yet"
        return f"run {run.id} {kept}, continue with `{command}`"

    def on_evaluation(results: list[TrainResult]) -> None:
        nonlocal latest, recorded
        [latest] = results
        if latest.epochs[recorded:]:  # none if the cost was not finite
            # The untrained network is no checkpoint: its seed gives it again.
            checkpoint = latest if latest.step or not budget.total_updates else None
            store.runs.record_epochs(run.id, *latest.epochs[recorded:], result=checkpoint)
            recorded = len(latest.epochs)
            observer.on_evaluation(latest)
            if setup.on_evaluation is not None:
                setup.on_evaluation(latest.epochs[-1])
        check()

    def on_update(step: int) -> None:
        observer.on_update(step)
        check()

    with ending_in_a_state(end, how_to_continue):
        setup.warn_of_locks(store)
        setup.warn_of(dataset, config)
        setup.warn_of_cycles(config)
        setup.warn_of_precision([config])
        budget = budget_of(config, len(splits.train))
        if is_resumed:
            snapshot = restored(setup, store, run)
            epochs = snapshot.epochs if snapshot else ()
            recorded, before = len(epochs), sum(metrics.seconds for metrics in epochs)
        started = time.perf_counter()  # the duration of a run is that of its training
        with setup.observer.training(budget) as observer:
            [latest] = train_stack(
                [config], splits, snapshot=snapshot, evaluate_test=config.schedule != "range",
                cores=1 if setup.jobs == 1 or run.threads > 1 else cores(),  # BLAS threads already occupy the others
                on_update=on_update, on_evaluation=on_evaluation, evaluate_untrained=True, step=observer.step,
            )  # fmt: skip
            end(*latest.end)
    return store.runs.get(run.id)


def restored(setup: Setup, store: Store, run: Run, *, is_here: bool = True) -> Snapshot | None:
    """Return the snapshot from which a run continues, if there is one; record the versions that train the rest.

    Those of a worker elsewhere are not known before it returns the run.
    """
    snapshot, remark = store.runs.snapshot(run)
    done = snapshot.epochs[-1].epoch if snapshot and snapshot.epochs else 0
    versions, changed = continued(run.versions, done, environment().versions) if is_here else (run.versions, "")
    store.runs.record_versions(run.id, versions, snapshot.step if snapshot else 0)
    differing = changed and f"run {run.id} was trained with {changed}: its bits can differ from here on"
    for warning in filter(None, [remark, differing]):
        setup.observer.warn(warning)
    setup.observer.say(f"run {run.id} continues after epoch {done:g}")
    return snapshot


def _instead_of_resuming(store: Store) -> str:
    for run in store.runs.where(f"state = 'running' AND study_id IS NULL {NEWEST}"):
        return f"run {run.id} is running, {store.runs.training_words(run)}"
    for run in store.runs.where(f"state IN {UNFINISHED} {NEWEST}"):
        again = _study_command(store, run, resumes=True)
        return f"run {run.id} belongs to study {run.study_id}, continue that with `{again}`"
    return "none was interrupted"


def _study_command(store: Store, run: Run, *, resumes: bool = False) -> str:
    study = store.studies.get(run.study_id or 0)
    # An older klcli stored the command of the study with each run, and held the order of the images.
    held = " --vary init" if len({one.config.seed for one in store.studies.members(study.id)}) > 1 else ""
    command = in_database(study.command or f"{run.command}{held}", store.path)
    return resuming_command(command, study.kind) if resumes else command


def _unfinished(store: Store, which: str) -> Run:
    if which == LAST:
        for run in store.runs.where(f"state IN {UNFINISHED} AND study_id IS NULL {NEWEST}"):
            return run
        raise ConfigError(f"--resume last: nothing to continue in {store.path}, {_instead_of_resuming(store)}")
    run = chosen_run(store, which, "--resume")
    if run.study_id is not None:
        again = f"continue that with `{_study_command(store, run, resumes=True)}`"
        raise ConfigError(f"--resume {which}: this run belongs to study {run.study_id}, {again}")
    reasons = {
        "complete": "it is complete, there is nothing to continue",
        "diverged": run.state == "diverged" and f"it diverged and would diverge again, {run.config.cure_of_divergence}",
        "running": store.runs.training_words(run) if store.runs.is_alive(run) else None,
    }
    require(not reasons.get(run.state), f"--resume {which}: {reasons.get(run.state)}")
    return run
