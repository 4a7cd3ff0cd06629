"""StudyRunner: trains the runs of a plan on the available workers and records them."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import Any

from klcli import second_core
from klcli.data.dataset import Dataset, Splits, split
from klcli.procedures.run_recorder import ending_in_a_state
from klcli.procedures.setup import Setup
from klcli.procedures.signals import obeyed_between_updates
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.store import Store
from klcli.studies.execution import ImagesReference, StackTask, execute, stacks
from klcli.studies.executors import open_executor
from klcli.training.budget import budget_of
from klcli.training.environment import environment

RESUME_WORDS = {"lambda": "--resume", "sigma": "--resume", "repeats": "--resume last", "reproduce": "--resume"}
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
        """Open the images and the database."""
        dataset = setup.images()
        splits = split(dataset, config.split)
        setup.warn_of_images(dataset)
        setup.warn_of_settings(config)
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
        }
        earlier = self.store.studies.find(kind, stage, settings, parent) if self.resume else None
        runs = [] if earlier is None else self.store.studies.members(earlier.id)
        missing = [part for part in divided if not runs or any(runs[p].state not in ENDED for p in part)]
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
        with (
            # A single stack is trained in this process, and the second core is otherwise idle.
            self.setup.second_core(is_alone),
            obeyed_between_updates() as check,
            # No run is recorded before a worker is available.
            open_executor(jobs, self.setup.executor, len(missing)) as executor,
        ):
            if earlier is None:
                study_id = self.store.studies.begin(
                    kind, stage, settings, plan, len(self.splits.train), self.dataset, environment(),
                    self.setup.command, parent,
                )  # fmt: skip
            else:
                study_id = earlier.id
                self.store.studies.restart([runs[p].id for part in missing for p in part], environment())
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
        again = self.setup.command if self.resume else f"{self.setup.command} {RESUME_WORDS[kind]}"
        return f"{done} runs of study {study_id} are complete, continue with `{again}`"
