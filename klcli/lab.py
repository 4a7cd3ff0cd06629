"""Lab: the Python interface to all procedures of klcli. They record their results and print nothing.

    from klcli import Lab, TrainConfig

    lab = Lab("results/klcli.db")
    run = lab.train(TrainConfig(hidden=(50, 30, 20), batch_norm=True), on_evaluation=print)
    run.test_accuracy, lab.epochs(run)

Ctrl-C raises Interrupted; `lab.resume()` completes the interrupted run.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klcli.arguments import checked
from klcli.procedures import run_lookup, trainings
from klcli.procedures.observer import Observer
from klcli.procedures.setup import Setup
from klcli.settings.editions import AssignmentSettings
from klcli.settings.presets import require_settings
from klcli.settings.procedures import (
    EXPORT,
    EXPORT_IMAGES,
    MOST_THREADS,
    SIGMAS,
    CheckSettings,
    EvaluationSettings,
    ReproductionSettings,
    SearchSettings,
)
from klcli.settings.run_command import database_in_use
from klcli.settings.setting import Settings, require, settings_of
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Epoch, Evaluation, GradientCheck, Run, RunFilter, Study
from klcli.store.store import Store
from klcli.studies.plans import repeat, sigma_sweep
from klcli.training.result import EpochMetrics

if TYPE_CHECKING:  # imported by the methods that use them, so that a training starts sooner
    from klcli.procedures import assignment, evaluating, searches
    from klcli.published.reproduction import Reproduction
    from klcli.studies.gradient_files import Comparison
    from klcli.studies.gradient_mistakes import Arrays

OnEvaluation = Callable[[EpochMetrics], None]
AnyRun = int | str | Run  # its number, another name of `klcli help runs`, or its record
AnyPath = str | os.PathLike[str]


@checked
class Lab:
    """A database, a data set, and the procedures that use them.

    `db` is by default that of the commands: KLCLI_DB, else results/klcli.db. `data` is a path, "cifar10" or
    "synthetic"; `threads` those of BLAS; `jobs` the number of processes that train stacks, by default one per core,
    with 1 this process, where a single network also trains on one core alone; `executor` the address of a Dask
    scheduler. `observer` receives messages and progress. `command` is stored with the results, but not with
    evaluations, which store the one that repeats them.

    Methods raise ConfigError for arguments of another type and settings that exclude each other, DataError for missing
    or damaged images, StoreError if the database or its disk fails, and Interrupted after Ctrl-C, with the command that
    continues.
    """

    def __init__(
        self, db: AnyPath | None = None, *, data: AnyPath | None = None, threads: int = 1, jobs: int | None = None,
        executor: str | None = None, observer: Observer | None = None, command: str | None = None,
    ) -> None:  # fmt: skip
        self._command = command
        for name, number in (("threads", threads), ("jobs", jobs)):
            is_valid = number is None or 1 <= number <= MOST_THREADS
            require(is_valid, f"{name} {number}: must be a whole number from 1 to {MOST_THREADS}")
        both = f"--jobs {jobs}: no effect, --executor trains in the workers of Dask, omit one of them"
        require(jobs is None or executor is None, both)
        path = database_in_use() if db is None else Path(db)
        where, observer = None if data is None else str(data), observer or Observer()
        self._setup = Setup(db=path, data=where, threads=threads, jobs=jobs, executor=executor, observer=observer)
        self._stores: dict[tuple[int, int, int], Store] = {}  # by process, thread and file

    def __repr__(self) -> str:
        """Return what determines the results, as Python code."""
        own = {key: value for key in ("data", "threads") if (value := getattr(self._setup, key)) not in (None, 1)}
        return _call("Lab", [str(self._setup.db)], own)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open databases: another process opens its own."""
        return vars(self) | {"_stores": {}}

    def train(self, config: TrainConfig, *, on_evaluation: OnEvaluation | None = None) -> Run:
        """Train one network and return its run; `on_evaluation` is called with the metrics of every evaluation."""
        return trainings.train(replace(self._calling("train", config), on_evaluation=on_evaluation), config)

    def resume(
        self, which: AnyRun = "last", *, wanted: Mapping[str, Any] | None = None, threads: int | None = None,
        on_evaluation: OnEvaluation | None = None,
    ) -> Run:  # fmt: skip
        """Complete an interrupted run with the same bits as without the interruption, and return it.

        Raises ConfigError if a setting in `wanted`, or `threads`, differs from those of the run.
        """
        setup = replace(self._calling("resume", self._name(which)), on_evaluation=on_evaluation)
        return trainings.resume(setup, str(self._name(which)), wanted or {}, threads)

    def rerun(self, which: AnyRun = "last", *, on_evaluation: OnEvaluation | None = None) -> Run:
        """Train a stored run again, with its settings, images and threads, and return the new run."""
        return trainings.rerun(replace(self._setup, on_evaluation=on_evaluation), str(self._name(which)))

    def repeat(self, config: TrainConfig, repeats: int, *, vary: str = "all", resume: bool = False) -> Study:
        """Train one config with several seeds and return the study; `runs_of` returns its runs.

        The seeds are those of everything, of the weights (`vary="init"`), of all but the weights ("order"), or of
        everything and the split.
        """
        setup, plan = self._calling("repeat", config, repeats, vary=vary), repeat(config, repeats, vary)
        return self._study(setup, "repeats", "train", plan, resume, vary=vary, evaluate_test=config.schedule != "range")

    def sigma_sweep(
        self, config: TrainConfig, sigmas: Iterable[float] = SIGMAS, *, repeats: int = 1, vary: str = "all",
        resume: bool = False,
    ) -> Study:  # fmt: skip
        """Train with every standard deviation of the initial weights, without and with BN, and return the study."""
        setup = self._calling("sigma_sweep", config, sigmas, repeats=repeats, vary=vary)
        plan = sigma_sweep(config, tuple(sigmas), repeats, vary)
        return self._study(setup, "sigma", "sweep", plan, resume, vary=vary, evaluate_test=True)

    def search_lambda(
        self, config: TrainConfig, what: SearchSettings | None = None, *, repeats: int = 1, vary: str = "all",
        resume: bool = False,
    ) -> "searches.LambdaSearch":  # fmt: skip
        """Search the L2 coefficient lambda by validation accuracy, by default in one coarse stage."""
        from klcli.procedures import searches

        what, known = what or SearchSettings(), settings_of(SearchSettings)
        if not resume:  # what is resumed may be of an older klcli
            what.require_effect([key for key, one in known.items() if getattr(what, key) != one.default], known)
        setup = self._calling("search_lambda", config, what, repeats=repeats, vary=vary)
        return searches.search_lambda(setup, config, what, repeats, vary, resume)

    def check_gradients(
        self, config: TrainConfig | None = None, settings: CheckSettings | None = None, *, seed: int = 0
    ) -> list[GradientCheck]:
        """Compare gradients with numerical ones in float64, of one network, or of the course's set with this `seed`."""
        from klcli.procedures.evaluating import check_gradients
        from klcli.studies.gradient_checks import course_set, with_and_without_l2

        own = f"check_gradients(seed={seed}): the config has the seed {config.seed if config else 0}, set it there"
        require(config is None or seed in (0, config.seed), own)
        settings = settings or CheckSettings()
        setup = self._calling("check_gradients", config, settings, seed=seed)
        return check_gradients(setup, with_and_without_l2(config) if config else course_set(seed), settings)

    def export_gradients(
        self, path: AnyPath, config: TrainConfig | None = None, settings: CheckSettings | None = None
    ) -> "Arrays":
        """Write a network, its minibatch and its gradients in float64 for another program; return the arrays by key.

        By default of 12 images. Replaces an earlier export; raises ConfigError if `path` is another file.
        """
        from klcli.data.dataset import split
        from klcli.files import has_member, require_export
        from klcli.store.checkpoints import npz, write_atomically
        from klcli.studies import gradient_files

        path, settings = Path(path), settings or CheckSettings(images=EXPORT_IMAGES)
        config = replace(config or TrainConfig(), dtype="float64")
        setup = self._calling("export_gradients", str(path), config, settings)
        path = require_export(path, lambda file: has_member(file, f"{gradient_files.SETTINGS}.npy"), "--export")
        dataset = setup.images()
        setup.warn_of(dataset)
        with setup.pinned(), setup.observer.step("computing gradients"):
            about = {"command": setup.command, "dataset": dataset.name, "dataset_sha256": dataset.sha256}
            arrays = gradient_files.exported(config, split(dataset, config.split).train, settings, about)
        write_atomically(path, npz(arrays))
        return arrays

    def compare_gradients(
        self, path: AnyPath, reference: AnyPath = EXPORT, settings: CheckSettings | None = None
    ) -> "Comparison":
        """Compare the arrays that another program has saved with those of an export, and find the likely mistakes."""
        from klcli.studies.gradient_files import compare_files

        observer = self._setup.observer
        with self._setup.pinned(), observer.step("comparing arrays"):  # BLAS threads only slow such small products
            return compare_files(Path(path), Path(reference), settings or CheckSettings(), observer.say)

    def evaluate(
        self, runs: Iterable[AnyRun] | AnyRun, settings: EvaluationSettings | None = None, *, ensemble: bool = False
    ) -> tuple[list[Run], list[Evaluation]]:
        """Evaluate stored runs again, individually or as one ensemble; return the runs and the evaluations."""
        from klcli.procedures import evaluating

        settings = settings or EvaluationSettings()
        several = runs if isinstance(runs, Iterable) and not isinstance(runs, str) else [runs]
        names = [*map(self._name, several)]
        require(bool(names), "evaluate(runs=()): give at least one run")
        return evaluating.evaluate(self._setup, [*map(str, names)], settings, ensemble)

    def predict(
        self, pictures: Iterable[AnyPath] | AnyPath, run: AnyRun | None = None, *,
        checkpoint: AnyPath | None = None, flips: bool | None = None, shifts: int | None = None,
        snapshots: bool = False,
    ) -> "evaluating.Predictions":  # fmt: skip
        """Return the probability of every class for PNG or JPEG files of up to 89 million pixels.

        By default, the best run classifies. A `checkpoint`, the path of its file, needs neither a database nor images.
        The probabilities are averaged over flips and shifts, by default those of the training, of at most 2 pixels.
        """
        from klcli.procedures import evaluating

        several = [pictures] if isinstance(pictures, str | os.PathLike) else pictures
        paths, which = list(map(Path, several)), None if run is None else str(self._name(run))
        file = None if checkpoint is None else Path(checkpoint)
        return evaluating.predict(self._setup, paths, which, file, flips=flips, shifts=shifts, snapshots=snapshots)

    def export(self, run: AnyRun, to: str = "npz", file: AnyPath | None = None) -> Path:
        """Write the network of a run as `npz` or `safetensors`, named as in PyTorch; return the file.

        By default it is `network-000007.npz` in the current folder. `klcli help checkpoints` describes the content.
        """
        from klcli.procedures.interchange import export_network

        return export_network(self._setup, str(self._name(run)), to, None if file is None else Path(file))

    def reproduce(
        self, *names: str, settings: ReproductionSettings | None = None, repeats: int = 3, vary: str = "all",
        resume: bool = False,
    ) -> "Iterator[Reproduction]":  # fmt: skip
        """Yield the reproduction of published reports, each as soon as it is complete.

        A report is named as in `klcli reproduce --list`; `all` are all of those, and "my-report.toml" is a file in the
        format of `klcli help reproduce`. Raises ConfigError, with the line of its first mistake.
        """
        from klcli.procedures import reproducing

        settings = settings or ReproductionSettings()
        setup = self._calling("reproduce", *names, settings=settings, repeats=repeats, vary=vary)
        return reproducing.reproduce(setup, names, settings, repeats, vary, resume)

    def plan_assignment(self, settings: AssignmentSettings | None = None) -> "list[assignment.Part]":
        """Return what the database has of an assignment of the course, what is missing, and how long that takes."""
        from klcli.procedures.assignment import plan

        return plan(self._setup, settings or AssignmentSettings())

    def assignment(self, settings: AssignmentSettings | None = None) -> "assignment.Assignment":
        """Train and check what an assignment of the course asks, unless the database has it, and return the results."""
        from klcli.procedures.assignment import assignment

        return assignment(self._setup, settings or AssignmentSettings())

    @property
    def store(self) -> Store:
        """The open database, for any query, one for each thread. Raises StoreError if there is none yet."""
        file = 0
        with suppress(OSError, ValueError):
            file = self._setup.db.stat().st_ino  # another one after `os.chdir`, or once the file is replaced
        here = (os.getpid(), threading.get_ident(), file)
        if here not in self._stores or not self._stores[here].is_current():
            self._stores[here] = self._setup.store()
        return self._stores[here]

    def run(self, which: AnyRun = "last") -> Run:
        """Return one run: by number, the `last` complete one, or the `best`. Raises KlcliError if there is none."""
        return run_lookup.chosen_run(self.store, str(self._name(which)))

    def best(self, n: int = 10, chosen: RunFilter | None = None) -> list[Run]:
        """Return the best complete runs by validation accuracy of the images and split that `report` shows."""
        require(n >= 0, f"best {n}: must be a whole number, at least 0")
        return run_lookup.best_runs(self.store, n, chosen or RunFilter())

    def runs_of(self, study: Study | int | str) -> list[Run]:
        """Return the runs of a study, by number or the `last` complete one, in the order of its plan."""
        which = self._number(study) if isinstance(study, Study) else study
        return self.store.studies.members(run_lookup.chosen_study(self.store, str(which)).id)

    def epochs(self, run: AnyRun) -> list[Epoch]:
        """Return the evaluations of a run in order."""
        return self.store.runs.epochs(self.run(run).id)

    def _name(self, run: AnyRun) -> int | str:
        return self._number(run) if isinstance(run, Run) else run

    def _number(self, given: Run | Study) -> int:
        """Return the number of a record. Raises ConfigError for one of another database, which has other numbers."""
        word, found = ("run", self.store.runs) if isinstance(given, Run) else ("study", self.store.studies)
        other = f"this record is of another database than {self._setup.db}, give it to the Lab of that"
        require(_origin(found.get(given.id)) == _origin(given), f"{word} {given.id}: {other}")
        return given.id

    def _study(self, setup: Setup, kind: str, stage: str, plan: list[TrainConfig], resume: bool, **how: Any) -> Study:
        from klcli.procedures.study_runner import StudyRunner

        with setup.pinned():
            runner = StudyRunner.opened(setup, plan[0], resume)
            setup.warn_of_cycles(plan[0])
            return runner.store.studies.get(runner.run(kind, stage, plan, {}, **how))

    def _calling(self, method: str, *given: Any, **named: Any) -> Setup:
        for config in given:
            if isinstance(config, TrainConfig):
                require_settings(config)
        command = f"{self!r}.{_call(method, given, named)}"
        command = f"list({command})" if method == "reproduce" else command  # which trains what it is asked for
        return replace(self._setup, command=self._command or command)


def _origin(record: Run | Study) -> object:
    """Return what copies of a record have in common, and no others."""
    return record.identity if isinstance(record, Run) else (record.created_at, record.command)


def _call(function: str, given: Sequence[Any], named: Mapping[str, Any]) -> str:
    return f"{function}({', '.join([*map(_text, given), *(f'{key}={_text(value)}' for key, value in named.items())])})"


def _text(argument: Any) -> str:
    """Return an argument as Python code; of settings, those that are not the default."""
    if not isinstance(argument, Settings):
        return repr(argument)
    default = vars(type(argument)())
    return _call(type(argument).__name__, (), {k: v for k, v in vars(argument).items() if v != default[k]})
