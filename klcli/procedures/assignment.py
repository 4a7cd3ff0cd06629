"""An assignment of the course: find its trainings in the database, estimate and train what is missing."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any

from klcli.data.dataset import split
from klcli.errors import Diverged, Interrupted
from klcli.files import temporary_folder
from klcli.procedures import trainings
from klcli.procedures.evaluating import check_gradients
from klcli.procedures.observer import Observer
from klcli.procedures.searches import LambdaSearch, search
from klcli.procedures.setup import Setup
from klcli.procedures.study_runner import ENDED, StudyRunner, Untrained
from klcli.settings.editions import CHECK_LAMBDAS, AssignmentSettings, Edition
from klcli.settings.procedures import SIGMAS, CheckSettings, SearchSettings
from klcli.settings.run_command import in_database, run_command
from klcli.settings.run_names import runs_words
from klcli.settings.sameness import settings_and_seeds, without_seeds
from klcli.settings.train_config import TrainConfig
from klcli.store.records import GradientCheck, Order, Run, RunFilter
from klcli.store.runs import UNFINISHED
from klcli.store.store import Store
from klcli.studies.execution import stacks
from klcli.studies.gradient_checks import Stack
from klcli.studies.plans import repeat, sigma_sweep
from klcli.training.budget import budget_of
from klcli.training.cores import cores
from klcli.training.trainer import train

SAMPLE = 5000  # images of a trial that measures the speed
# What no trial measures, on two cores of a server:
CHECK_SECONDS = 0.1  # the gradients of a network
STUDY_SECONDS = 1.5  # the start of the workers of a study
FIGURES_SECONDS = 5.0  # the figures, as PDF and PNG


@dataclass(frozen=True)
class Part:
    """A part of an assignment: what the database has, and what is missing."""

    name: str
    done: str  # `runs 1-2`
    missing: int  # trainings; of the first part, gradient checks
    seconds: float = 0.0  # that these will take, by a trial


@dataclass(frozen=True)
class Assignment:
    """The results of an assignment."""

    settings: AssignmentSettings
    dataset: str
    checks: Sequence[GradientCheck]
    curves: Sequence[Sequence[Run]]  # as in the edition, each with its repeats
    search: LambdaSearch  # with a choice
    final: Sequence[Run]
    sweep: Sequence[Run]
    commands: dict[str, str]  # that repeat the gradient check, the search and the sweep
    where: dict[str, Any]  # the images, threads and database of a command


def plan(setup: Setup, settings: AssignmentSettings) -> list[Part]:
    """Return the parts of an assignment. Trains nothing but trials, and records nothing."""
    edition, silent = settings.chosen, replace(setup, observer=Observer())
    with temporary_folder() as folder, setup.pinned():
        setup.prepare_engine()
        none_yet = folder / "none.db"  # an empty database, which does not stay
        setup.observer.say("looking for the trainings, and measuring the speed of those that are missing")
        with closing(Store(setup.db if setup.db.exists() else none_yet)) as store:
            images = setup.images()
            setup.warn_of_synthetic(images.name)
            runner = StudyRunner(silent, store, images, True, trains=False, has_vary=False)
            with setup.observer.step("measuring the speed"):
                return list(_Work(silent, edition, settings.repeats, runner).parts())


def assignment(setup: Setup, settings: AssignmentSettings) -> Assignment:
    """Train and check what is missing, and return all results; after an interruption, the same call continues.

    Raises Diverged if no network of the lambda search converged.
    """
    edition = settings.chosen
    with setup.pinned():
        runner = replace(StudyRunner.opened(setup, edition.final, True), has_vary=False)
        work = _Work(setup, edition, settings.repeats, runner)
        try:
            checks = work.checks()
            curves = [[*map(work.trained, work.repeated(*configs))] for configs in edition.curves]
            found = work.search()
            if found.choice is None:
                every = in_database("klcli report --list", setup.db)
                raise Diverged(f"every lambda of the search diverged: `{every}` shows the runs")
            final = [*map(work.trained, work.repeated(replace(edition.final, lam=found.choice.chosen.lam)))]
            sweep = work.sweep()
        except Interrupted as error:
            raise Interrupted(f"{error}; or repeat this command, which continues there", error.signum) from None
    name = work.runner.dataset.name
    return Assignment(settings, name, checks, curves, found, final, sweep, work.commands, work.where)


@dataclass(frozen=True)
class _Work:
    """The steps of an assignment: each finds its results or makes them."""

    setup: Setup
    edition: Edition
    repeats: int
    runner: StudyRunner
    speeds: dict[Any, float] = field(default_factory=dict)  # seconds per update, by what determines them

    @property
    def where(self) -> dict[str, Any]:
        setup = self.setup
        return {"data": setup.data or self.runner.dataset.name, "threads": setup.threads, "db": setup.db}

    @property
    def commands(self) -> dict[str, str]:
        edition, how = self.edition, self.where
        again = ["--repeats", str(self.repeats)] * (self.repeats > 1)
        stages = ["--coarse", *["--fine"] * edition.fine, "--trials", str(edition.trials), *again]
        found = {"gradients": run_command(edition.checked[0], "gradcheck", only=("seed",), **how | {"threads": 1})}
        found["lambda"] = run_command(edition.search, "search-lambda", stages, **how)
        return found | ({"sigma": run_command(edition.sweep, "sigma-sweep", again, **how)} if edition.sweep else {})

    def known_checks(self) -> dict[Stack, GradientCheck | None]:
        latest, sha256 = self.runner.store.gradient_checks.latest, self.runner.dataset.sha256
        networks = [(replace(one, lam=lam, dtype="float64"),) for one in self.edition.checked for lam in CHECK_LAMBDAS]
        return {stack: latest(stack, CheckSettings(), sha256) for stack in networks}

    def checks(self) -> list[GradientCheck]:
        if missing := [stack for stack, check in self.known_checks().items() if check is None]:
            check_gradients(self._calling(self.commands["gradients"]), missing, CheckSettings())
        return [check for check in self.known_checks().values() if check]

    def known(self, config: TrainConfig, states: Sequence[str] = ENDED) -> Run | None:
        """Return the newest run with these settings and seeds in one of these states."""
        wanted, sha256 = settings_and_seeds(config), self.runner.dataset.sha256
        # The comparison of all settings takes 40 us per run, the database has the columns of these.
        alike: dict[str, Any] = {"hidden": config.hidden, "lam": config.lam, "seed": config.seed}
        of_images = RunFilter(dataset_sha256=sha256, as_configured=True, batch_norm=config.batch_norm, **alike)
        for run in self.runner.store.runs.query(of_images, Order("id", descending=True)):
            is_usable = run.state in states and (run.test_accuracy is not None or run.state != "complete")
            if is_usable and not run.unreadable and settings_and_seeds(run.config) == wanted:
                return run
        return None

    def trained(self, config: TrainConfig) -> Run:
        """Return the run of these settings, after its training if that is not complete."""
        if run := self.known(config):
            return run
        setup = self._calling(run_command(config, **self.where))
        begun = self.known(config, UNFINISHED)
        if begun and begun.study_id is None:
            return trainings.resume(setup, str(begun.id), {}, None)
        return trainings.train(setup, config)

    def search(self) -> LambdaSearch:
        what = SearchSettings(coarse=True, fine=self.edition.fine, trials=self.edition.trials)
        runner = replace(self.runner, setup=self._calling(self.commands["lambda"]))
        return search(runner, self.edition.search, what, self.repeats, vary="all")

    def sweep(self) -> list[Run]:
        if not self.edition.sweep:
            return []
        planned = sigma_sweep(self.edition.sweep, SIGMAS, self.repeats)
        runner = replace(self.runner, setup=self._calling(self.commands["sigma"]))
        study = runner.run("sigma", "sweep", planned, {}, vary="all", evaluate_test=True)
        return self.runner.store.studies.members(study)

    def repeated(self, *configs: TrainConfig) -> list[TrainConfig]:
        return [one for config in configs for one in repeat(config, self.repeats)]

    def _calling(self, command: str) -> Setup:
        """Show the command that repeats a step, and return the setup that records it with the runs of the step."""
        self.setup.observer.say(command)
        return replace(self.setup, command=command)

    def parts(self) -> Iterator[Part]:
        """Yield what there is and what is missing."""
        edition, checks = self.edition, self.known_checks()
        known = [check for check in checks.values() if check]
        missing = len(checks) - len(known)
        yield Part("gradient check", f"{len(known)} of {len(checks)} networks", missing, missing * CHECK_SECONDS)
        for configs in edition.curves:
            first = configs[0]
            n_s = budget_of(first).step_size
            how = "without and with BN" if len(configs) > 1 else f"n_s {n_s}"
            yield self._part_of_trainings(f"{len(first.hidden) + 1} layers, {how}", self.repeated(*configs))
        yield from self._parts_of_search()
        if edition.sweep:
            name = "sigma, without and with BN"
            try:
                yield Part(name, _words(self.sweep()), 0)
            except Untrained as missing:
                yield self._part_of_study(name, 2 * len(SIGMAS) * self.repeats, missing.configs)

    def _part_of_study(self, name: str, n: int, left: Sequence[TrainConfig]) -> Part:
        return Part(name, f"{n - len(left)} of {n} runs", len(left), self._together(left))

    def _part_of_trainings(self, name: str, configs: Sequence[TrainConfig]) -> Part:
        runs = [*map(self.known, configs)]
        missing = [config for config, run in zip(configs, runs, strict=True) if run is None]
        return Part(name, _words(runs), len(missing), sum(self._seconds([one]) for one in missing))

    def _parts_of_search(self) -> Iterator[Part]:
        edition, chosen = self.edition, Part("the chosen lambda", "-", self.repeats)
        stages = ["coarse", "fine", *(f"fine {n}" for n in range(2, edition.fine + 1))]
        try:
            found = self.search()
            yield from (Part(f"lambda, {stage}", _words(own), 0) for stage, own in found.stages)
            if found.choice:
                final = self.repeated(replace(edition.final, lam=found.choice.chosen.lam))
                chosen = self._part_of_trainings(chosen.name, final)
        except Untrained as missing:
            every, here = self.repeated(*[edition.search] * edition.trials), stages.index(missing.stage)
            for place, stage in enumerate(stages):
                left = [] if place < here else missing.configs if place == here else every
                yield self._part_of_study(f"lambda, {stage}", len(every), left)
            chosen = replace(chosen, seconds=self.repeats * self._seconds([edition.final]))
        yield chosen

    def _together(self, configs: Sequence[TrainConfig]) -> float:
        """Estimate the seconds of a study, whose stacks are divided among the cores."""
        parts = [[configs[position] for position in part] for part in stacks(configs)]
        workers = max(1, min(self.setup.jobs or cores(), len(parts)))
        ends = [STUDY_SECONDS] * workers
        for part, own in zip(parts, self.setup.cores_of(len(parts)), strict=True):
            # Each begins where a worker is free first.
            heapq.heapreplace(ends, ends[0] + self._seconds(part, workers, own))
        return max(ends) if parts else 0.0

    def _seconds(self, configs: Sequence[TrainConfig], workers: int = 1, own: int | None = None) -> float:
        """Estimate the seconds of one stack on its own cores, while so many workers train; by default, it is alone."""
        own = own or (1 if self.setup.jobs == 1 or self.setup.threads > 1 else cores())
        few = [replace(without_seeds(one), epochs=3, cycles=1, step_epochs=10, step_size=None) for one in configs]
        key = len(few), replace(few[0], lam=0.0), workers, own
        if key not in self.speeds:
            self.speeds[key] = self._speed(few, workers, own)
        return self.speeds[key] * budget_of(configs[0]).total_updates

    def _speed(self, few: Sequence[TrainConfig], workers: int, own: int) -> float:
        """Measure the seconds per update, by trials of a few epochs on at most SAMPLE images.

        As many trials at once as there are workers, because these share the caches and the memory of the machine.
        """
        n = min(few[0].split.sizes()[0], SAMPLE)
        trial = [replace(one, split=replace(one.split, subset=n)) for one in few]
        images = split(self.runner.dataset, trial[0].split)
        with ThreadPoolExecutor(workers) as pool:
            work = partial(train, trial, images, evaluate_test=False, cores=own)
            trials = [pool.submit(work) for _ in range(workers)]
        # The first epoch includes the preparation.
        epochs = [epoch.seconds for one in trials for epoch in one.result()[0].epochs[1:]]
        return fmean(epochs or [0.0]) / budget_of(trial[0]).updates_per_epoch


def _words(runs: Iterable[Run | None]) -> str:
    return runs_words(run.id for run in runs if run) or "-"
