"""StudyRunner: trains the runs of a plan on the available workers and records them."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import Any

from klcli import second_core
from klcli.data.dataset import Dataset, Splits, split
from klcli.errors import ConfigError
from klcli.procedures.run_recorder import ending_in_a_state
from klcli.procedures.setup import Setup
from klcli.procedures.signals import obeyed_between_updates
from klcli.settings.run_command import resuming_command, run_command
from klcli.settings.sameness import settings_and_seeds, without_seeds
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.store import Store
from klcli.store.studies import DELETED, canonical
from klcli.studies.execution import ImagesReference, StackTask, execute, stacks
from klcli.studies.executors import open_executor
from klcli.training.budget import budget_of
from klcli.training.environment import changes, environment

ENDED = ("complete", "diverged")  # states of runs that a study does not train again


@dataclass(frozen=True)
class StudyRunner:
    """Trains the plans of one procedure on one split of the images."""

    setup: Setup
    store: Store
    dataset: Dataset
    splits: Splits
    resume: bool

    @classmethod
    def opened(cls, setup: Setup, config: TrainConfig, resume: bool) -> "StudyRunner":
        dataset = setup.images()
        splits = split(dataset, config.split)
        setup.warn_of_images(dataset)
        setup.warn_of_settings(config, len(splits.train))
        return cls(setup, setup.new_store(), dataset, splits, resume)

    def on(self, division: SplitConfig) -> "StudyRunner":
        """Return the same runner with another split of the images."""
        return replace(self, splits=split(self.dataset, division))

    def run(
        self,
        kind: str,
        stage: str,
        plan: Sequence[TrainConfig],
        settings: dict[str, Any],
        *,
        vary: str,
        evaluate_test: bool,
        parent: int | None = None,
        chains: list[tuple[int, ...]] | None = None,
    ) -> int:
        """Train the missing runs of a plan and return the number of its study.

        `chains` are lists of positions in the plan that are trained in sequence, each from the weights of the previous
        one; without them, the plan is divided into stacks. With `resume`, an earlier study of the same plan is
        completed, stack by stack; otherwise a new one starts. The study always ends in a state.
        """
        divided = stacks(plan) if chains is None else chains
        settings = settings | {
            "plan": [asdict(config) for config in plan],
            "groups": divided,
            "dataset_sha256": self.dataset.sha256,
            "look_at_test": evaluate_test,
            "threads": self.setup.threads,
            "vary": vary,
        }
        earlier = self.store.studies.find(kind, stage, settings, parent) if self.resume else None
        if self.resume and earlier is None:
            self._refuse_other_repeats(kind, stage, settings)
        members = [] if earlier is None else self.store.studies.members(earlier.id)
        states = {run.member: run.state for run in members}
        missing = [part for part in divided if any(states.get(p) not in ENDED for p in part)]
        ended = [run for run in members if run.state in ENDED]
        changed = next((words for run in ended if (words := changes(run.versions, environment().versions))), "")
        if changed and missing and earlier:
            what = (
                f"{len(ended)} run{'s' * (len(ended) > 1)} of study {earlier.id} {'was' if len(ended) == 1 else 'were'}"
            )
            self.setup.observer.warn(f"{what} trained with {changed}: the bits of the others can differ")
        if earlier is not None and not missing:
            self.store.studies.end(earlier.id, "complete")  # its process may have died before it recorded the end
            self.setup.observer.say(f"study {earlier.id} ({stage}): all {len(plan)} runs exist already")
            return earlier.id
        images = ImagesReference.of(self.dataset, self.setup.data)
        is_chain = chains is not None
        tasks = [
            StackTask(part, tuple(plan[p] for p in part), images, evaluate_test, self.setup.threads, is_chain=is_chain)
            for part in missing
        ]
        jobs = self.setup.jobs or second_core.cores()
        is_alone = len(missing) == 1 and jobs > 1 and self.setup.threads == 1 and self.setup.executor is None
        commands = self._commands(plan, is_chain)
        with (
            # A single stack is trained in this process, and the second core is otherwise idle.
            self.setup.second_core(is_alone),
            # No run is recorded before a worker is available, and until then a signal ends the process at once.
            open_executor(jobs, self.setup.executor, len(missing), self.setup.observer.warn) as executor,
            obeyed_between_updates() as check,
        ):
            if earlier is None:
                study_id = self.store.studies.begin(
                    kind, stage, settings, plan, len(self.splits.train), self.dataset, environment(),
                    self.setup.command, parent, commands,
                )  # fmt: skip
            else:
                study_id = earlier.id
                again = {p: plan[p] for part in missing for p in part if states.get(p) not in ENDED}
                self.store.studies.restart(
                    study_id, again, len(self.splits.train), self.dataset, environment(), commands
                )
            self.setup.warn_of_locks(self.store)
            ending = functools.partial(self.store.studies.end, study_id)
            with ending_in_a_state(ending, lambda: self._how_to_continue(study_id, kind)):
                self._execute(study_id, stage, tasks, executor, check)
                ending("complete")
        return study_id

    def _execute(
        self, study_id: int, stage: str, tasks: list[StackTask], executor: Executor, check: Callable[[], None]
    ) -> None:
        run_ids = {run.member: run.id for run in self.store.studies.members(study_id)}
        # The networks of a stack share their updates, the networks of a chain do not.
        updates = [
            budget_of(task.configs[0], len(self.splits.train)).total_updates
            * (len(task.configs) if task.is_chain else 1)
            for task in tasks
        ]
        with self.setup.observer.study(f"study {study_id} {stage}", tasks, updates) as observer:
            for outcome in execute(tasks, executor, check=check, on_progress=observer.on_progress):
                self.store.studies.record_stack([run_ids[position] for position in outcome.positions], outcome)
                observer.on_outcome(outcome)

    def _how_to_continue(self, study_id: int, kind: str) -> str:
        done = sum(run.state in ENDED for run in self.store.studies.members(study_id))
        again = resuming_command(self.setup.command, kind)
        return f"{done} runs of study {study_id} are complete, continue with `{again}`"

    def _commands(self, plan: Sequence[TrainConfig], is_chain: bool) -> list[str]:
        """Return the command that repeats each run of a plan; a network of a chain is not trained alone."""
        if is_chain:
            return [f"{self.setup.command}  # each network begins with the weights of the one before"] * len(plan)
        data = self.setup.data or self.dataset.name
        return [run_command(config, data=data, threads=self.setup.threads, db=self.setup.db) for config in plan]

    def _refuse_other_repeats(self, kind: str, stage: str, settings: dict[str, Any]) -> None:
        """Raise ConfigError if the study to complete is there, but its repeats vary something else.

        An older klcli held the order of the images, as `--vary init` does.
        """
        wanted = _without_repeats(settings)
        for one in reversed(self.store.studies.all()):
            if (one.kind, one.stage) == (kind, stage) and _without_repeats(one.settings) == wanted:
                other = one.settings.get("vary", "init")
                cure = f"add --vary {other} to complete it, or omit --resume to begin a new one"
                raise ConfigError(f"--resume: the repeats of study {one.id} are those of --vary {other}: {cure}")


def _without_repeats(settings: dict[str, Any]) -> Any:
    """Return the settings of a study that --vary has no effect on; None if this klcli cannot read them."""
    rest = {key: value for key, value in settings.items() if key not in ("plan", "groups", "vary", DELETED)}
    try:
        plan = [TrainConfig.from_values(one) for one in settings["plan"]]
    except (ConfigError, KeyError, TypeError):
        return None
    return canonical(rest), settings_and_seeds(plan[0]), [without_seeds(config) for config in plan]
