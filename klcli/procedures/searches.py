"""The search of lambda, from coarse to fine: each stage is a study, and begins where the one before has ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from klcli.errors import ConfigError, Diverged
from klcli.procedures.setup import Setup
from klcli.procedures.study_runner import StudyRunner
from klcli.settings.sameness import SETTINGS, differences
from klcli.settings.setting import Role
from klcli.settings.study_settings import SearchSettings
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Run, Study
from klcli.store.store import Store
from klcli.studies.lambda_search import Choice, Range, Tried, choose, draw, narrow, plan
from klcli.studies.lambda_search import final as final_plan

KIND = "lambda"
FREE = ("lam", "seed", "order_seed", "evaluations_per_cycle")  # in these the stages of a search may differ

Stages = list[tuple[str, list[Run]]]  # with the runs of each, the first stage first


@dataclass(frozen=True)
class LambdaSearch:
    """A search with all of its stages; `choice` is None where every value diverged."""

    stages: Stages
    choice: Choice | None
    final: list[Run] = field(default_factory=list)  # of the last training with the chosen lambda

    @property
    def studies(self) -> list[int]:
        """The studies of the stages."""
        return [run.study_id for _, runs in self.stages for run in runs[:1] if run.study_id is not None]


def search_lambda(setup: Setup, config: TrainConfig, what: SearchSettings, repeats: int, resume: bool) -> LambdaSearch:
    """Search lambda by validation accuracy and return what was found, all of it recorded.

    The values, seeds and stacks of a stage are drawn before anything of it is trained. Raises ConfigError for a range
    in which nothing can be drawn.
    """
    low, high = what.between
    where = Range(low, high, what.scale)
    with setup.pinned():
        runner = StudyRunner.opened(setup, config, resume)
        chain: list[tuple[str, int]] = []  # stages and their studies
        if what.values:
            study = runner.run(KIND, "values", plan(config, sorted(what.values), repeats), {}, look_at_test=False)
            chain.append(("values", study))
        elif what.coarse or not what.fine_stages:
            drawn = draw(where, what.trials, config.seed, stage=0)
            study = runner.run(KIND, "coarse", plan(config, drawn, repeats), _settings(where), look_at_test=False)
            chain.append(("coarse", study))
        else:
            chain, where = _earlier(runner, config, what.from_study)
        for _ in range(what.fine_stages):
            tried = _tried(runner, chain)
            if not any(one.accuracies for one in tried):
                break
            where = narrow(tried, where)
            number, parent = len(chain), chain[-1][1]
            stage = "fine" if number == 1 else f"fine {number}"
            setup.observer.say(f"{stage}: lambda from {where.low:.4g} to {where.high:.4g} brackets the three best")
            planned = plan(config, draw(where, what.trials, config.seed, stage=number), repeats)
            study = runner.run(KIND, stage, planned, _settings(where), look_at_test=False, parent=parent)
            chain.append((stage, study))
        stages = [(stage, runner.runs(study)) for stage, study in chain]
        tried = _tried(runner, chain)
        if not any(one.accuracies for one in tried):
            return LambdaSearch(stages, None)
        choice = choose(tried, len(runner.splits.validation))
        if not what.final:
            return LambdaSearch(stages, choice)
        planned = final_plan(config, choice.chosen.lam, repeats)
        final = runner.run(KIND, "final", planned, {}, look_at_test=True, parent=chain[-1][1])
        return LambdaSearch(stages, choice, runner.runs(final))


def stored_search(store: Store, number: int) -> LambdaSearch:
    """Return the stages of a stored search up to a study, and the choice among them."""
    chain = [study for study in store.studies.chain(number) if study.kind == KIND]
    stages = [(str(study.stage), runs) for study in chain if (runs := store.studies.members(study.id))]
    tried = [one for stage, runs in stages for one in tried_values(runs, stage)]
    if not any(one.accuracies for one in tried):
        return LambdaSearch(stages, None)
    return LambdaSearch(stages, choose(tried, stages[0][1][0].config.split.sizes()[1]))


def tried_values(runs: Sequence[Run], stage: str) -> list[Tried]:
    """Return the lambdas of a stage, each with the validation accuracies of its repeats."""
    complete = [run for run in runs if run.state == "complete" and run.validation_accuracy is not None]
    return [
        Tried(lam, stage, tuple(run.validation_accuracy or 0.0 for run in complete if run.config.lam == lam))
        for lam in dict.fromkeys(run.config.lam for run in runs)
    ]


def _tried(runner: StudyRunner, chain: Sequence[tuple[str, int]]) -> list[Tried]:
    return [one for stage, study in chain for one in tried_values(runner.runs(study), stage)]


def _settings(where: Range) -> dict[str, Any]:
    return {"low": where.low, "high": where.high, "scale": where.scale}


def _earlier(runner: StudyRunner, config: TrainConfig, from_study: int | None) -> tuple[list[tuple[str, int]], Range]:
    """Return the stored stages that --fine begins from, the first one first, and the range of the last."""
    studies = runner.store.studies
    if from_study is None:
        latest = studies.latest(KIND, "coarse", runner.dataset.sha256)
        if latest is None:
            raise ConfigError("--fine: there is no complete coarse search of these images yet, add --coarse")
        from_study = latest.id
    study = studies.get(from_study)
    settings = study.settings
    if study.kind != KIND or "low" not in settings:
        raise ConfigError(f"--from {from_study}: this study is no coarse or fine search of lambda")
    if settings["dataset_sha256"] != runner.dataset.sha256:
        raise ConfigError(f"--from {from_study}: this study used other images, name them with --data")
    if study.state != "complete":
        raise ConfigError(f"--from {from_study}: this study is {study.state}, repeat its command with --resume first")
    _compare(runner, study, config)
    chain = [(str(one.stage), one.id) for one in studies.chain(from_study)]
    return chain, Range(settings["low"], settings["high"], settings["scale"])


def _compare(runner: StudyRunner, study: Study, config: TrainConfig) -> None:
    """Refuse to continue the search of another network; warn of one that was trained otherwise."""
    found = differences(TrainConfig.from_values(study.settings["plan"][0]), config)
    differing = {SETTINGS[key]: values for key, values in found.items() if key not in FREE}
    words = ", ".join(f"{one.label} {one.words(old)} (here {one.words(new)})" for one, (old, new) in differing.items())
    if any(one.role is Role.NETWORK for one in differing):
        raise ConfigError(
            f"--fine: study {study.id} searched for another network, {words}: give the same, or add --coarse"
        )
    if differing:
        runner.setup.observer.warn(f"study {study.id} was trained with {words}: its accuracies cannot be compared")


def require_choice(search: LambdaSearch, config: TrainConfig) -> Choice:
    """Return the choice of a search. Raises Diverged where there is none."""
    if search.choice is None:
        raise Diverged(f"every lambda diverged: try a smaller --eta-max than {config.eta_max:g}")
    return search.choice
