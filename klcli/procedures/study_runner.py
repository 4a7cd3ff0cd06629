"""StudyRunner: trains the runs of a plan on the available workers and records them."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from klcli.data.dataset import Dataset
from klcli.errors import ConfigError
from klcli.procedures.setup import Setup, ending_in_a_state
from klcli.procedures.trainings import restored
from klcli.settings.run_command import resuming_command, run_command
from klcli.settings.train_config import TrainConfig
from klcli.store.runs import run_row
from klcli.store.store import Store
from klcli.store.studies import identity
from klcli.studies.execution import ImagesReference, StackTask, execute, stacks
from klcli.studies.executors import open_executor
from klcli.termination import deferred
from klcli.training.budget import budget_of, require_trainable, updates_of
from klcli.training.cores import cores
from klcli.training.environment import changes, environment
from klcli.training.result import TrainResult
from klcli.training.trainer import Quirk

ENDED = ("complete", "diverged")  # states of runs that a study does not train again


class Untrained(Exception):
    """Trainings of a study are missing, and its runner trains nothing."""

    def __init__(self, stage: str, configs: Sequence[TrainConfig]) -> None:
        super().__init__(stage)
        self.stage, self.configs = stage, configs


@dataclass(frozen=True)
class StudyRunner:
    """Trains the plans of one procedure. It needs the number of the images; the workers open and divide them."""

    setup: Setup
    store: Store
    dataset: Dataset
    resume: bool
    trains: bool = True  # otherwise, nothing is written, and a missing training raises Untrained
    has_vary: bool = True  # whether its command has --vary, the cure where the repeats of an earlier study are refused

    @classmethod
    def opened(cls, setup: Setup, config: TrainConfig, resume: bool) -> "StudyRunner":
        (budget_of if resume else require_trainable)(config)  # an older klcli began what it would not refuse
        setup.prepare_engine()
        dataset = setup.images()
        setup.warn_of(dataset, config)
        return cls(setup, setup.new_store(), dataset, resume)

    def run(
        self, kind: str, stage: str, plan: Sequence[TrainConfig], settings: dict[str, Any], *, vary: str,
        evaluate_test: bool, parent: int | None = None, chains: list[tuple[int, ...]] | None = None,
        quirks: Mapping[str, Quirk] | None = None,
    ) -> int:  # fmt: skip
        """Train the missing runs of a plan and return the number of its study.

        `chains` are lists of positions in the plan that are trained in sequence, each from the weights of the previous
        one; without them, the plan is divided into stacks. `quirks` change every training, and are stored by their
        names, with the study and in the note of every run. With `resume`, an earlier study of the same plan is
        completed, stack by stack, one of a single run from its checkpoint; otherwise a new one starts. The study always
        ends in a state.
        """
        is_chain, divided, quirks = chains is not None, chains or stacks(plan), quirks or {}
        settings = settings | {"plan": [*map(asdict, plan)], "groups": divided, "dataset_sha256": self.dataset.sha256}
        settings |= {"look_at_test": evaluate_test, "threads": self.setup.threads, "vary": vary}
        settings |= {"quirks": [*quirks]} if quirks else {}
        earlier = self.store.studies.find(kind, stage, settings, parent) if self.resume else None
        if self.resume and earlier is None:
            self._refuse_other_repeats(kind, stage, settings)
            if kind != "reproduce":  # whose studies are many, and those that are left begin
                self.setup.observer.say(f"this database has no study of these settings ({stage}), a new one begins")
        members = self.store.studies.members(earlier.id) if earlier else []
        ended = {run.member: run for run in members if run.state in ENDED}
        missing = [part for part in divided if not ended.keys() >= set(part)]
        if missing and not self.trains:
            raise Untrained(stage, [plan[p] for part in missing for p in part if p not in ended])
        if earlier and not missing:
            if self.trains and earlier.state != "complete":  # its process died before it recorded the end
                self.store.studies.end(earlier.id, "complete")
            all_runs = f"all {len(plan)} runs exist" if len(plan) > 1 else "its only run exists"
            self.setup.observer.say(f"study {earlier.id} ({stage}): {all_runs} already")
            return earlier.id
        self.setup.warn_of_precision(plan)
        now, data, db = environment(), self.setup.data or self.dataset.name, self.setup.db
        # What Dask's workers have is not known before one returns a stack.
        began = replace(now, versions={}) if self.setup.executor else now
        changed = next(filter(None, (changes(run.versions, now.versions) for run in ended.values())), None)
        if earlier and changed and not self.setup.executor:
            n = len(ended)
            runs = f"{n} run{'s' * (n > 1)} of study {earlier.id} {'were' if n > 1 else 'was'}"
            self.setup.observer.warn(f"{runs} trained with {changed}: the bits of the others can differ")
        images = ImagesReference.of(self.dataset, self.setup.data)
        jobs, threads = self.setup.jobs or cores(), self.setup.threads
        tasks = [
            StackTask(
                part, tuple(plan[p] for p in part), images, evaluate_test, threads, is_chain=is_chain, cores=n,
                quirks=tuple(quirks.values()))
            for part, n in zip(missing, self.setup.cores_of(len(missing)), strict=True)
        ]  # fmt: skip
        with (
            # No run is recorded before a worker is available, and until then a signal ends the process at once.
            self._workers(jobs, len(missing)) as executor,
            deferred() as check,
        ):
            first, rows = {part[0] for part in divided}, list[dict[str, Any]]()
            for position, one in enumerate(plan):
                is_warm = is_chain and position not in first
                note = "; ".join([*quirks, *["begins with the weights of the training before it"] * is_warm])
                again = run_command(one, data=data, threads=threads, db=db)
                command = self.setup.command if note else again  # `klcli train` cannot repeat the run
                rows.append(run_row(one, budget_of(one), self.dataset, began, command) | {"note": note or None})
            if earlier is None:
                study_id = self.store.studies.begin(kind, stage, settings, rows, self.setup.command, parent)
            else:
                study_id, untrained = earlier.id, {p: rows[p] for part in missing for p in part if p not in ended}
                alone = {part[0] for part in missing if len(part) == 1 and not is_chain}
                self.store.studies.restart(study_id, untrained, alone)
            self.setup.warn_of_locks(self.store)
            ending = functools.partial(self.store.studies.end, study_id)
            with ending_in_a_state(ending, lambda: self._how_to_continue(study_id, kind)):
                self._execute(study_id, stage, tasks, executor, check)
                ending("complete")
        return study_id

    @contextmanager
    def _workers(self, jobs: int, tasks: int) -> Iterator[Executor]:
        with ExitStack() as stack:
            with self.setup.observer.step("connecting to the workers"):
                open_ = open_executor(jobs, self.setup.executor, tasks, self.setup.observer.warn)
                executor = stack.enter_context(open_)
            yield executor
            with self.setup.observer.step("closing the workers"):
                stack.close()

    def _execute(
        self, study_id: int, stage: str, tasks: list[StackTask], executor: Executor, check: Callable[[], None]
    ) -> None:
        runs = {run.member: run for run in self.store.studies.members(study_id)}
        # Another process may have completed some until this one took over the rest.
        tasks = [task for task in tasks if any(runs[p].state not in ENDED for p in task.positions)]
        for index, task in enumerate(tasks):
            run = runs[task.positions[0]]
            if run.state == "running" and run.checkpoint:  # it continues
                snapshot = restored(self.setup, self.store, run, is_here=not self.setup.executor)
                tasks[index] = replace(task, snapshot=snapshot)
        updates = [updates_of(task.configs, is_chain=task.is_chain) for task in tasks]
        with self.setup.observer.study(f"study {study_id} {stage}", tasks, updates) as observer:
            recorded = [len(task.snapshot.epochs) if task.snapshot else 0 for task in tasks]

            def on_result(index: int, result: TrainResult) -> None:
                run_id = runs[tasks[index].positions[0]].id
                self.store.runs.record_epochs(run_id, *result.epochs[recorded[index] :], result=result)
                recorded[index] = len(result.epochs)

            how: dict[str, Any] = {"on_progress": observer.on_progress, "on_result": on_result}
            for outcome in execute(tasks, executor, check=check, **how):
                self.store.studies.record_stack([runs[position].id for position in outcome.positions], outcome)
                observer.on_outcome(outcome)

    def _how_to_continue(self, study_id: int, kind: str) -> str:
        runs = self.store.studies.members(study_id)
        done = sum(run.state in ENDED for run in runs)
        begun = sum(run.state not in ENDED and run.checkpoint is not None for run in runs)
        kept = f", {begun} keep{'s' if begun == 1 else ''} the epochs so far" if begun else ""
        again = resuming_command(self.setup.command, kind)
        complete = f"{done} run{'s' * (done != 1)} of study {study_id} {'is' if done == 1 else 'are'} complete"
        return f"{complete}{kept}, continue with `{again}`"

    def _refuse_other_repeats(self, kind: str, stage: str, settings: dict[str, Any]) -> None:
        """Raise ConfigError if the study to complete is there, but its repeats vary something else."""
        wanted = kind, stage, _whatever_varies(settings)
        for one in reversed(self.store.studies.all() if self.has_vary else []):
            other = one.settings.get("vary", "init")  # an older klcli held the order of the images
            if other != settings["vary"] and (one.kind, one.stage, _whatever_varies(one.settings)) == wanted:
                cure = f"add --vary {other} to complete it, or omit --resume to begin a new one"
                raise ConfigError(f"--resume: the repeats of study {one.id} are those of --vary {other}: {cure}")


def _whatever_varies(settings: dict[str, Any]) -> tuple[Any, ...]:
    """Return what plans of any --vary have in common, the seeds of their first repeat among it."""
    rest, plan, _ = identity(settings)
    seeds = [(seed, order, None if drawn == seed else drawn) for _, (seed, order, drawn) in plan[:1]]
    return rest, seeds, [config for config, _ in plan]
