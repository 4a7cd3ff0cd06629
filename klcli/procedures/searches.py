"""The lambda search, from coarse to fine: each stage is a study and starts from the result of the previous one."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from klcli.errors import ConfigError
from klcli.procedures.run_lookup import chosen_study
from klcli.procedures.setup import Setup
from klcli.procedures.study_runner import StudyRunner
from klcli.settings.procedures import SearchSettings
from klcli.settings.run_command import with_study
from klcli.settings.run_names import parsed_study
from klcli.settings.sameness import SETTINGS, differences
from klcli.settings.setting import Role, Setting, require
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Run, Study
from klcli.store.runs import UNFINISHED
from klcli.store.store import Store
from klcli.studies.lambda_search import Choice, Range, Tried, choose, draw, narrow, plan
from klcli.studies.lambda_search import final as final_plan
from klcli.studies.plans import repeat

KIND = "lambda"
FREE = ("lam", "seed", "order_seed", "evaluations_per_cycle")  # settings in which the stages of a search may differ

Stages = list[tuple[str, list[Run]]]  # the runs of each stage, the first stage first


@dataclass(frozen=True)
class LambdaSearch:
    """A search with all of its stages; `choice` is None if every value diverged."""

    stages: Stages
    choice: Choice | None
    final: list[Run] = field(default_factory=list)  # the runs of the final training with the chosen lambda

    @property
    def studies(self) -> list[int]:
        return [run.study_id for _, runs in self.stages for run in runs[:1] if run.study_id is not None]

    @property
    def tried(self) -> list[Tried]:
        return [one for stage, runs in self.stages for one in tried_values(runs, stage)]


def search_lambda(
    setup: Setup, config: TrainConfig, what: SearchSettings, repeats: int, vary: str, resume: bool
) -> LambdaSearch:
    """Search lambda by validation accuracy; record all runs and return the search.

    All values, seeds and stacks of a stage are determined before its first training.
    """
    repeat(config, repeats, vary)  # refused before the images are opened, as the range is
    Range(what.between[0], what.between[1], what.scale)
    with setup.pinned():
        runner = StudyRunner.opened(setup, config, resume)
        # The final training obeys these two.
        setup.warn_of_cycles(replace(config, eta_decay=1.0, snapshots=False) if what.final else config)
        return search(runner, config, what, repeats, vary)


def search(runner: StudyRunner, config: TrainConfig, what: SearchSettings, repeats: int, vary: str) -> LambdaSearch:
    """Search lambda with a runner. Raises Untrained if it trains nothing and runs are missing."""
    where = Range(what.between[0], what.between[1], what.scale)

    def train(stage: str, values: list[float], settings: dict[str, Any], parent: int | None = None) -> int:
        planned = plan(config, values, repeats, vary)
        return runner.run(KIND, stage, planned, settings, vary=vary, evaluate_test=False, parent=parent)

    if what.values:
        latest = train("values", sorted(what.values), {})
    elif what.coarse or not what.fine_stages:
        latest = train("coarse", draw(where, what.trials, config.seed, stage=0), asdict(where))
    else:
        latest, where = _earlier(runner, repeat(config, repeats, vary)[0], what.from_study)
        command = with_study(runner.setup.command, lambda _: latest)  # that of `--from last` is another one later
        runner = replace(runner, setup=replace(runner.setup, command=command))
    for _ in range(what.fine_stages):
        if (found := stored_search(runner.store, latest)).choice is None:
            break
        where = narrow(found.tried, where)
        number = len(runner.store.studies.chain(latest))
        stage = "fine" if number == 1 else f"fine {number}"
        best = "three best" if sum(bool(one.accuracies) for one in found.tried) > 2 else "best"
        runner.setup.observer.say(f"{stage}: lambda from {where.low:.4g} to {where.high:.4g} brackets the {best}")
        latest = train(stage, draw(where, what.trials, config.seed, stage=number), asdict(where), latest)
    found = stored_search(runner.store, latest)
    if found.choice is None or not what.final:
        return found
    planned = final_plan(config, found.choice.chosen.lam, repeats, vary)
    final = runner.run(KIND, "final", planned, {}, vary=vary, evaluate_test=True, parent=latest)
    return replace(found, final=runner.store.studies.members(final))


def stored_search(store: Store, number: int) -> LambdaSearch:
    """Return the stages of a stored search up to a study, and the choice among them.

    Earlier stages on other validation images are left out: their accuracies cannot be compared with the last ones.
    """
    chain = [study for study in store.studies.chain(number) if study.kind == KIND]
    stages = [(str(one.stage), [run for run in store.studies.members(one.id) if not run.unreadable]) for one in chain]
    splits = next(({run.split for run in runs} for _, runs in reversed(stages) if runs), set[SplitConfig]())
    found = LambdaSearch([(stage, runs) for stage, runs in stages if splits & {run.split for run in runs}], None)
    has_any = any(one.accuracies for one in found.tried)
    return replace(found, choice=choose(found.tried, found.stages[0][1][0].split.sizes()[1])) if has_any else found


def tried_values(runs: Sequence[Run], stage: str, split: str = "validation") -> list[Tried]:
    """Return the lambdas of a stage with the accuracies of their repeats on a split."""
    found: dict[float, list[float]] = {run.config.lam: [] for run in runs}
    diverged = Counter(run.config.lam for run in runs if run.state == "diverged")
    for run in runs:
        if run.state == "complete" and (accuracy := run.measure(split, "accuracy")) is not None:
            found[run.config.lam].append(accuracy)
    return [Tried(lam, stage, tuple(accuracies), diverged[lam]) for lam, accuracies in found.items()]


def mixed(runs: Sequence[Run]) -> str:
    """`cycles, subset`: the settings in which the stages of a search differ, so that they cannot be compared."""
    keys = {key for run in runs for key in differences(runs[0].config, run.config)}.difference(FREE)
    return ", ".join(one.label for key, one in SETTINGS.items() if key in keys and not one.is_seed)


def _earlier(runner: StudyRunner, config: TrainConfig, from_study: str | int | None) -> tuple[int, Range]:
    """Return the stored study that --fine starts from, and its range; refuse other networks, warn of other settings.

    Without a name, it is the one of the search to resume, else the newest coarse one of these settings, else of this
    network, else of any other.
    """
    studies, sha256 = runner.store.studies, runner.dataset.sha256
    if from_study is None and runner.resume:
        from_study = _begun(runner, config)
    stages = [one for one in studies.all() if one.kind == KIND and "low" in one.settings]
    is_there = len(stages) >= -parsed_study(str(from_study or 0), "--from")
    require(is_there, f"--from {from_study}: there is no such coarse or fine search yet, add --coarse or give a number")
    named = [] if from_study is None else [chosen_study(runner.store, str(from_study), "--from", stages)]
    found = named or studies.complete(KIND, "coarse", sha256)
    require(bool(found), "--fine: there is no complete coarse search on these images yet, add --coarse")
    study = min(found, key=lambda one: _distance(one, config)) if len(found) > 1 else found[0]
    settings, this = study.settings, f"--from {study.id}: this study"
    require(study.kind == KIND and "low" in settings, f"{this} is not a coarse or fine lambda search")
    require(settings.get("dataset_sha256") == sha256, f"{this} used other images, name them with --data")
    wait = "wait for its end or, if its process has ended, " * (study.state == "running")
    require(study.state == "complete", f"{this} is {study.state}, {wait}repeat its command with --resume first")
    differing = _differing(study, config)
    words = ", ".join(f"{one.label} {one.words(old)} (here {one.words(new)})" for one, (old, new) in differing.items())
    other = f"--fine: study {study.id} searched for another network, {words}: give the same, or add --coarse"
    require(not any(one.role is Role.NETWORK for one in differing), other)
    if differing:
        runner.setup.observer.warn(f"study {study.id} was trained with {words}: its accuracies cannot be compared")
    return study.id, Range(settings["low"], settings["high"], settings["scale"])


def _begun(runner: StudyRunner, config: TrainConfig) -> int | None:
    """Return the coarse study of the newest unfinished search whose first fine stage has these settings and seeds."""
    for one in reversed(runner.store.studies.all()):
        if one.kind == KIND and one.state in UNFINISHED and one.parent is not None:
            coarse, fine, *_ = runner.store.studies.chain(one.id)
            with suppress(ConfigError, LookupError):  # this klcli cannot read it
                is_here = fine.settings["dataset_sha256"] == runner.dataset.sha256
                other = differences(TrainConfig.from_values(fine.settings["plan"][0]), config).keys() - {"lam"}
                if (coarse.stage, fine.stage) == ("coarse", "fine") and is_here and not other:
                    return coarse.id
    return None


def _distance(study: Study, config: TrainConfig) -> int:
    """0: a study of these settings, 1: of this network, 2: of another one, 3: this klcli cannot read it."""
    try:
        return max((1 + (one.role is Role.NETWORK) for one in _differing(study, config)), default=0)
    except ConfigError:
        return 3


def _differing(study: Study, config: TrainConfig) -> dict[Setting, tuple[Any, Any]]:
    """Return both values of every setting in which a study and a search differ, without those that its stages vary."""
    found = differences(TrainConfig.from_values(study.settings["plan"][0]), config)
    return {SETTINGS[key]: values for key, values in found.items() if key not in FREE}
