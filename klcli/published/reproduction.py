"""Reproductions: the comparison of a published report with its stored studies, and their conditions."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

from klcli.data.cifar10.layouts import is_official
from klcli.published.comparison import compare
from klcli.published.conclusions import Evidence
from klcli.published.planning import QUICK_CYCLES
from klcli.published.registration import plan_notes, registered_report, subset_of
from klcli.published.report import Comparison, Report
from klcli.settings.sameness import without_seeds, without_seeds_in_split
from klcli.settings.setting import require
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Run, Study
from klcli.store.store import Store
from klcli.training.budget import budget_of

KIND = "reproduce"


@dataclass(frozen=True)
class Terms:
    """The conditions of a reproduction, which every table, page and document states."""

    dataset: str
    sha256: str
    repeats: int
    quick: bool = False
    subset: int | None = None
    note: str | None = None  # what the user adds about the conditions
    vary: str = "all"  # what differs between the repeats

    @property
    def official(self) -> bool | None:
        return is_official(self.dataset, self.sha256)

    @property
    def marks(self) -> list[str]:
        marks = {
            "SYNTHETIC IMAGES, no CIFAR-10: no training can be compared": self.dataset == "synthetic",
            f"SUBSET of {self.subset} training images: no training can be compared": self.subset is not None,
            "QUICK: fewer seeds, and one cycle where the report has more": self.quick,
        }
        return [mark for mark, is_true in marks.items() if is_true]

    @property
    def brackets(self) -> str:
        return "".join(f" [{mark.partition(':')[0]}]" for mark in self.marks)

    @property
    def images(self) -> str:
        words = {True: ", the official files", False: ", not the official files", None: ""}[self.official]
        return f"{self.dataset} (sha256 {self.sha256[:8]}{words})"

    @property
    def incomparable(self) -> str | None:
        if self.dataset == "synthetic":
            return "synthetic images, no CIFAR-10"
        return None if self.subset is None else f"{self.subset} training images, not all"


@dataclass(frozen=True)
class Reproduction:
    """A report with the stored runs and checks of its reproduction; a notebook does not show the megabytes of these."""

    report: Report = field(repr=False)
    terms: Terms
    comparisons: Sequence[Comparison] = field(repr=False)
    evidence: Evidence = field(repr=False)
    studies: Sequence[int]
    plan_notes: Sequence[str] = ()  # the hash of the plan, what deviates from an earlier one, and what is deleted


def gather(wanted: Report, terms: Terms, store: Store, studies: list[int]) -> Reproduction:
    """Compare a report with the runs of its studies and with its latest gradient checks."""
    key = without_seeds if terms.vary == "split" else without_seeds_in_split
    mine, runs = [store.studies.get(study) for study in studies], dict[tuple[str, TrainConfig], list[Run]]()
    for study in mine:
        method = study.settings.get("method") or study.settings.get("study", "")
        for run in store.studies.members(study.id):
            runs.setdefault((method, key(run.config)), []).append(run)
    sha256, latest = terms.sha256, store.gradient_checks.latest
    checks = {one: [latest(stack, one.settings, sha256) for stack in one.networks()] for one in wanted.gradient_checks}
    errors = {one: [error for check in found if check for error in check.errors] for one, found in checks.items()}
    evidence = Evidence(runs, errors, store.runs.epochs, key)
    notes = [*plan_notes(mine, store.studies.all()), *store.studies.deletions(mine)]
    return Reproduction(wanted, terms, compare(wanted, evidence, terms.incomparable), evidence, studies, notes)


def asked_for(whole: Report, rows: Sequence[str], *, quick: bool = False, subset: int | None = None) -> Report:
    """Return the part to reproduce. Raises ConfigError without such a row."""
    found = whole.only(rows)
    if quick:
        found = found.with_configs(_shortened)
    if subset is not None:
        found = found.with_configs(lambda config: replace(config, split=replace(config.split, subset=subset)))
    return found


def _shortened(config: TrainConfig) -> TrainConfig:
    is_short = budget_of(config).cycles <= QUICK_CYCLES
    return config if is_short else replace(config, cycles=QUICK_CYCLES, epochs=None)


def stored_reproduction(store: Store, number: int) -> Reproduction:
    """Return the reproduction that a study belongs to, with the latest studies of its other divisions."""
    study = store.studies.get(number)
    older = f"study {number} is of an older klcli, with --as-published, which this one has replaced: reproduce it again"
    require(not study.settings.get("as_published"), older)
    alike = [one for one in store.studies.all() if one.kind == KIND and _key(one) == _key(study)]
    latest = {(one.stage, _split(one)): one for one in [*alike, study]}
    settings, subset = study.settings, subset_of(study)
    quick = settings["quick"]
    wanted = asked_for(registered_report(study), settings["rows"], quick=quick, subset=subset)
    first = store.studies.members(number)[0]
    plans = [map(TrainConfig.from_values, one.settings["plan"]) for one in latest.values()]
    repeats = min(n for plan in plans for n in Counter(map(without_seeds, plan)).values())
    terms = Terms(first.dataset, first.dataset_sha256, repeats, quick, subset, vary=_vary(study))
    return gather(wanted, terms, store, sorted(one.id for one in latest.values()))


def reproductions(store: Store) -> list[int]:
    """Return the latest study of every reproduction with existing runs."""
    own = [one for one in store.studies.all() if one.kind == KIND and not one.settings.get("as_published")]
    studies = [one for one in own if store.studies.members(one.id)]
    return sorted({_key(study): study.id for study in studies}.values())


def _key(study: Study) -> Hashable:
    settings = study.settings
    images = settings["dataset_sha256"], subset_of(study)
    return settings["report"], tuple(settings["rows"]), settings["quick"], *images, _vary(study)


def _vary(study: Study) -> str:
    """What differs between the repeats of a study; in those of an older klcli, the weights alone."""
    return str(study.settings.get("vary", "init"))


def _split(study: Study) -> SplitConfig:
    return TrainConfig.from_values(study.settings["plan"][0]).split
