"""Train one network, from its config or from the checkpoint of a stored run, and record the run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from klcli.data.dataset import Dataset, Splits, split
from klcli.errors import ConfigError
from klcli.procedures.run_lookup import LAST, images_of
from klcli.procedures.run_recorder import RunRecorder, ending_in_a_state
from klcli.procedures.setup import Setup
from klcli.procedures.signals import obeyed_between_updates
from klcli.settings.run_command import DEFAULT_DATABASE, resuming_command
from klcli.settings.setting import settings_of, value_of
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Run
from klcli.store.runs import UNFINISHED
from klcli.store.store import Store
from klcli.text import command_text
from klcli.training.budget import budget_of
from klcli.training.environment import continued, environment
from klcli.training.result import EpochMetrics, Snapshot, TrainResult
from klcli.training.trainer import train as train_stack

DIFFERENT = "its bits can differ from here on"


def train(setup: Setup, config: TrainConfig) -> Run:
    """Train one network and return its run, which is recorded before the first update.

    Raises Interrupted with the command that continues the run, after Ctrl-C, SIGTERM or SIGHUP.
    """
    with setup.pinned():
        dataset = setup.images()
        splits = split(dataset, config.split)
        budget = budget_of(config, len(splits.train))
        store = setup.new_store()
        with obeyed_between_updates() as check:  # from here on, a recorded run exists and must end in a state
            run = store.runs.get(store.runs.begin(config, budget, dataset, environment(), setup.command))
            setup.warn_of_locks(store)
            return _train(setup, store, run, dataset, splits, check)


def resume(setup: Setup, which: str, wanted: Mapping[str, Any], threads: int | None) -> Run:
    """Complete a stored run and return it. Raises ConfigError or DataError, which name the difference.

    `wanted`, the settings that the user gave again, by key, and `threads`, if not None, must be unchanged, because a
    resumed run ends with the same bits as an uninterrupted one.
    """
    store = Store.existing(setup.db)
    run = _unfinished(store, which)
    for key, value in wanted.items():
        stored, option = value_of(run.config, key), settings_of(TrainConfig)[key].option
        if stored != value:
            raise ConfigError(f"--resume {run.id}: its {option} is {stored!r}, not {value!r}, omit that option")
    if threads not in (None, run.threads):
        raise ConfigError(f"--resume {run.id}: it used --threads {run.threads}, not {threads}, omit that option")
    dataset = images_of(run, setup.data, f"--resume {run.id}", setup.observer.say)
    with setup.pinned(run.threads), obeyed_between_updates() as check:
        splits = split(dataset, run.config.split)
        if run.state == "running":
            setup.observer.warn(f"run {run.id}: {store.runs.training_words(run)}: that process would end now")
        store.runs.claim(run.id)
        with ending_in_a_state(RunRecorder(store, run.id).end, lambda: _how_to_continue(setup, store, run.id)):
            setup.warn_of_locks(store)
            snapshot, remark = store.runs.snapshot(run)
            step = snapshot.step if snapshot else 0
            epochs = [metrics for metrics in store.runs.metrics(run.id) if metrics.step <= step]
            done = epochs[-1].epoch if epochs else 0
            versions, changed = continued(run.versions, done)
            store.runs.record_versions(run.id, versions)
        for warning in filter(None, [remark, changed and f"run {run.id} was trained with {changed}: {DIFFERENT}"]):
            setup.observer.warn(warning)
        setup.observer.say(f"run {run.id} continues after epoch {done:g}")
        return _train(setup, store, run, dataset, splits, check, snapshot, epochs)


def _train(
    setup: Setup,
    store: Store,
    run: Run,
    dataset: Dataset,
    splits: Splits,
    check: Callable[[], None],
    snapshot: Snapshot | None = None,
    epochs: Sequence[EpochMetrics] = (),
) -> Run:
    """Train a run to its end, from a snapshot and its epochs if there is one; record every evaluation."""
    config = run.config
    setup.warn_of_images(dataset)
    setup.warn_of_settings(config, len(splits.train))
    budget = budget_of(config, len(splits.train))
    if not budget.ends_a_cycle:
        eta = budget.learning_rate(budget.total_updates, config)
        setup.observer.warn(
            f"{budget.cycles:.2f} cycles: training ends where eta is {eta:.2g}, "
            "networks are best compared at the end of a whole cycle"
        )
    recorder = RunRecorder(store, run.id, epochs)

    def on_evaluation(results: list[TrainResult]) -> None:
        recorder.on_evaluation(results[0])
        observer.on_evaluation(results[0])
        if setup.on_evaluation is not None and results[0].epochs:
            setup.on_evaluation(results[0].epochs[-1])
        check()

    def on_update(step: int) -> None:
        observer.on_update(step)
        check()

    with (
        ending_in_a_state(recorder.end, lambda: _how_to_continue(setup, store, run.id)),
        # Several BLAS threads already occupy the other cores.
        setup.second_core(setup.jobs != 1 and environment().threads == 1),
        setup.observer.training(budget) as observer,
    ):
        [result] = train_stack(
            [config], splits, snapshot=snapshot, epochs=epochs, evaluate_test=config.schedule != "range",
            on_update=on_update, on_evaluation=on_evaluation,
        )  # fmt: skip
        recorder.complete(result)
    return store.runs.get(run.id)


def _how_to_continue(setup: Setup, store: Store, run_id: int) -> str:
    database = [] if setup.db == DEFAULT_DATABASE else ["--db", str(store.path)]
    command = command_text(["klcli", "train", "--resume", str(run_id), *database])
    epochs = store.runs.get(run_id).epochs_done
    return f"run {run_id} keeps its {epochs:g} epochs, continue with `{command}`"


def _instead_of_resuming(store: Store) -> str:
    """State what there is in place of a run that can be resumed."""
    for run in store.runs.where("state = 'running' AND study_id IS NULL ORDER BY id DESC LIMIT 1"):
        return f"run {run.id} is running, {store.runs.training_words(run)}"
    for run in store.runs.where(f"state IN {UNFINISHED} ORDER BY id DESC LIMIT 1"):
        return f"run {run.id} belongs to study {run.study_id}, continue that with `{_study_command(store, run)}`"
    return "none was interrupted"


def _study_command(store: Store, run: Run) -> str:
    """Return the command that completes the study of a run."""
    study = store.studies.get(run.study_id or 0)
    # An older klcli stored the command of the study with each run, and held the order of the images.
    held = " --vary init" if len({one.config.seed for one in store.studies.members(study.id)}) > 1 else ""
    return resuming_command(study.command or f"{run.command}{held}", study.kind)


def _unfinished(store: Store, which: str) -> Run:
    """Return the run to resume. Raises ConfigError if it cannot be resumed."""
    if which == LAST:
        for run in store.runs.where(f"state IN {UNFINISHED} AND study_id IS NULL ORDER BY id DESC LIMIT 1"):
            return run
        raise ConfigError(f"--resume last: nothing to continue in {store.path}, {_instead_of_resuming(store)}")
    try:
        run = store.runs.get(int(which))
    except ValueError:
        raise ConfigError(f"--resume {which!r}: give the number of a run, or `last`") from None
    if run.study_id is not None:
        again = f"continue that with `{_study_command(store, run)}`"
        raise ConfigError(f"--resume {which}: this run belongs to study {run.study_id}, {again}")
    reasons = {
        "complete": "it is complete, there is nothing to continue",
        "diverged": "it diverged and would diverge again, try a smaller --eta-max",
        "running": store.runs.training_words(run) if store.runs.is_alive(run) else None,
    }
    if reasons.get(run.state):
        raise ConfigError(f"--resume {which}: {reasons[run.state]}")
    return run
