"""StudyRunner: from a plan to recorded runs, on as many workers as there are."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from klcli.cli.options import integer_option, option
from klcli.cli.session import Session
from klcli.errors import StoreError
from klcli.procedures.preflight import require_room, typed_command, warn_of_data, warn_of_settings
from klcli.procedures.signals import Interrupted, obeyed_between_updates
from klcli.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from klcli.data.dataset import Dataset, Splits
    from klcli.store.store import Store

EXECUTION = "Execution"
RESUME_WORDS = {"lambda": "--resume", "sigma": "--resume", "repeats": "--resume last", "reproduce": "--resume"}

Jobs = Annotated[
    int | None,
    integer_option(
        "--jobs", "-j", panel=EXECUTION, help="Processes that train groups of members; all cores.", bounds=(1, 1024)
    ),
]
ExecutorAddress = Annotated[
    str | None,
    option("--executor", panel=EXECUTION, metavar="ADDRESS", help="A Dask scheduler instead, as tcp://host:8786."),
]
Resume = Annotated[
    bool, option("--resume", panel=EXECUTION, help="Complete an earlier study of this very command; repeat nothing.")
]
Repeats = Annotated[
    int,
    integer_option(
        "--repeats",
        panel=EXECUTION,
        help="Seeds per setting, from --seed on; the mean gets an error bar.",
        bounds=(1, 1000),
    ),
]


@dataclass(frozen=True)
class StudyRunner:
    """Runs the plans of one command."""

    session: Session
    store: "Store"
    dataset: "Dataset"
    splits: "Splits"
    requested: str | None  # of --data
    jobs: int | None
    executor: str | None
    resume: bool
    threads: int

    def run(
        self,
        kind: str,
        stage: str,
        plan: Sequence[TrainConfig],
        settings: dict[str, Any],
        *,
        look_at_test: bool,
        parent: int | None = None,
        chains: list[tuple[int, ...]] | None = None,
    ) -> int:
        """Train what is missing of a plan and return the number of its study.

        `chains` are positions in the plan that are trained one after another, each with the weights of the one
        before; without them, the plan is divided into groups. With `resume`, an earlier study of the same plan
        is completed, group by group; otherwise a new one begins. Ends the study in a state, whatever happens.
        """
        from klcli.second_core import cores, use
        from klcli.studies.execution import groups
        from klcli.studies.executors import open_executor
        from klcli.training.environment import environment

        divided = groups(plan) if chains is None else chains
        settings = settings | {
            "plan": [asdict(config) for config in plan],
            "groups": divided,
            "dataset_sha256": self.dataset.sha256,
            "look_at_test": look_at_test,
            "threads": self.threads,
        }
        earlier = self.store.studies.find(kind, stage, settings, parent) if self.resume else None
        missing = divided if earlier is None else self._missing(earlier["id"], divided)
        if earlier is not None and not missing:
            self.store.studies.end(earlier["id"], "complete")  # its process may have died before it could
            self.session.say(f"study {earlier['id']} ({stage}): all {len(plan)} runs are there already")
            return int(earlier["id"])
        jobs = self.jobs or cores()
        # A single group is trained in this process, and the other core has nothing else to do.
        use(len(missing) == 1 and jobs > 1 and self.threads == 1 and self.executor is None)
        # Nothing is recorded before there is somebody to train it.
        with (
            obeyed_between_updates() as check,
            open_executor(jobs, self.executor, len(missing)) as executor,
        ):
            if earlier is None:
                study_id = self.store.studies.begin(
                    kind,
                    stage,
                    settings,
                    plan,
                    len(self.splits.train),
                    self.dataset,
                    environment(),
                    typed_command(),
                    parent,
                )
            else:
                study_id = int(earlier["id"])
                members = self.store.studies.members(study_id)
                self.store.studies.restart([members[p]["id"] for part in missing for p in part], environment())
            with self._ending_in_a_state(study_id, kind):
                self._execute(study_id, stage, plan, missing, look_at_test, executor, check, chains is not None)
        return study_id

    def _missing(self, study_id: int, divided: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        members = self.store.studies.members(study_id)
        return [part for part in divided if any(members[p]["state"] not in ("complete", "diverged") for p in part)]

    def _execute(
        self,
        study_id: int,
        stage: str,
        plan: Sequence[TrainConfig],
        missing: list[tuple[int, ...]],
        look_at_test: bool,
        executor: "Executor",
        check: Callable[[], None],
        is_chain: bool,
    ) -> None:
        from klcli.cli.study_progress import StudyProgress
        from klcli.studies.execution import GroupTask, ImagesReference, execute
        from klcli.training.budget import timetable

        images = ImagesReference.of(self.dataset, self.requested)
        tasks = [
            GroupTask(
                part, tuple(plan[position] for position in part), images, look_at_test, self.threads, is_chain=is_chain
            )
            for part in missing
        ]
        run_ids = {row["member"]: row["id"] for row in self.store.studies.members(study_id)}
        updates = [
            timetable(task.configs[0], len(self.splits.train)).total_updates * (len(task.configs) if is_chain else 1)
            for task in tasks
        ]
        progress = StudyProgress(self.session, f"study {study_id} {stage}", tasks, updates)
        with progress.showing():
            for outcome in execute(tasks, executor, check=check, on_progress=progress.on_progress):
                self.store.studies.record_group([run_ids[position] for position in outcome.positions], outcome)
                progress.on_outcome(outcome)
        self.store.studies.end(study_id, "complete")

    @contextmanager
    def _ending_in_a_state(self, study_id: int, kind: str) -> Iterator[None]:
        from klcli.studies.execution import WorkersLost

        try:
            yield
        except Interrupted as interruption:
            self.store.studies.end(study_id, "interrupted", str(interruption))
            raise interruption.adding(self._how_to_continue(study_id, kind)) from None
        except WorkersLost as error:
            self.store.studies.end(study_id, "failed", str(error))
            raise WorkersLost(f"{error}: {self._how_to_continue(study_id, kind)}") from None
        except Exception as error:
            # Where the store itself is what failed, whoever opens it next marks the study.
            with suppress(StoreError):
                self.store.studies.end(study_id, "failed", f"{type(error).__name__}: {error}")
            raise

    def _how_to_continue(self, study_id: int, kind: str) -> str:
        done = sum(row["state"] in ("complete", "diverged") for row in self.store.studies.members(study_id))
        again = typed_command() if self.resume else f"{typed_command()} {RESUME_WORDS[kind]}"
        return f"{done} runs of study {study_id} are complete, continue with `{again}`"


def open_runner(
    session: Session,
    config: TrainConfig,
    *,
    data: str | None,
    db: Any,
    jobs: int | None,
    executor: str | None,
    threads: int,
    resume: bool = False,
) -> StudyRunner:
    """Return a runner over the images and the database that a command names."""
    from klcli.data.dataset import split
    from klcli.data.sources import open_dataset
    from klcli.store.store import Store
    from klcli.training.environment import pin_threads

    pin_threads(threads)
    dataset = open_dataset(data)
    splits = split(dataset, config.split)
    warn_of_data(session, dataset)
    warn_of_settings(session, config)
    store = Store(db)
    require_room(store.path.parent)
    return StudyRunner(session, store, dataset, splits, data, jobs, executor, resume, threads)
