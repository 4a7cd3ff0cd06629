"""Reproductions: the stored studies of a published report, gathered into its comparison."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klcli.published.comparison import Comparison, Sizes, by_setting, compare, on_subset, shortened
from klcli.published.report import GradientExperiment, Report, report
from klcli.published.terms import Terms
from klcli.settings.train_config import TrainConfig
from klcli.store.store import Store
from klcli.store.transition import Row

KIND = "reproduce"


@dataclass(frozen=True)
class Reproduction:
    """A report beside what is stored of it."""

    report: Report
    terms: Terms
    comparisons: Sequence[Comparison]
    settings: Mapping[TrainConfig, Sequence[Row]]  # the runs of all seeds, under the config of the first
    studies: Sequence[int]

    def runs_of(self, base: TrainConfig | None) -> Sequence[Row]:
        """Return the runs of all seeds of a setting."""
        return self.settings.get(base, ()) if base else ()


def gather(
    wanted: Report,
    terms: Terms,
    store: Store,
    studies: Sequence[int],
    shown: Mapping[GradientExperiment, Sequence[Row]] | None = None,
) -> Reproduction:
    """Return a report beside the runs of its studies and the latest checks of its gradients, or those `shown`."""
    runs = {TrainConfig.from_json(run["config"]): run for study in studies for run in store.studies.members(study)}
    errors = {
        one: [
            error
            for members in one.networks()
            if (check := store.gradient_checks.latest(members, one.settings, terms.sha256))
            for error in check["errors"]
        ]
        for one in wanted.gradient_checks
        if shown is None
    } | dict(shown or {})
    divided = {config.split: Sizes(*config.split.sizes()) for config in runs}
    comparisons = compare(wanted, runs, errors, divided, incomparable=terms.incomparable)
    return Reproduction(wanted, terms, comparisons, by_setting(runs), studies)


def stored_reproduction(store: Store, number: int) -> Reproduction:
    """Return the reproduction to which a study belongs, with the latest studies of its other divisions.

    Raises ConfigError where the study began with rows that this klcli's report does not have.
    """
    study = store.studies.get(number)
    settings = json.loads(study["settings"])
    latest: dict[str, int] = {}
    for other in store.studies.all():
        if other["kind"] == KIND and _key(other) == _key(study):
            latest[_part(other)] = int(other["id"])
    latest[_part(study)] = number
    first = store.studies.members(number)[0]
    subset = _plan(study)[0]["split"]["subset"]
    wanted = report(settings["report"])
    if settings.get("as_published") and wanted.as_published is not None:
        wanted = wanted.as_published
    wanted = wanted.only(settings["rows"])
    if settings["quick"]:
        wanted = shortened(wanted)
    if subset is not None:
        wanted = on_subset(wanted, subset)
    repeats = min(_seeds(store.studies.get(one)) for one in latest.values())
    terms = Terms(
        first["dataset"],
        None,
        first["dataset_sha256"],
        repeats,
        settings["quick"],
        subset,
        bool(settings.get("as_published")),
    )
    return gather(wanted, terms, store, sorted(latest.values()))


def reproductions(store: Store) -> list[int]:
    """Return the latest study of every reproduction whose runs are still there."""
    studies = [one for one in store.studies.all() if one["kind"] == KIND and store.studies.members(int(one["id"]))]
    return sorted({_key(study): int(study["id"]) for study in studies}.values())


def _key(study: Row) -> str:
    """What the studies of one reproduction have in common."""
    settings = json.loads(study["settings"])
    names = ("report", "rows", "quick", "as_published", "dataset_sha256")
    return json.dumps([*(settings.get(name) for name in names), _plan(study)[0]["split"]["subset"]])


def _part(study: Row) -> str:
    """In what they differ."""
    return json.dumps([study["stage"], _plan(study)[0]["split"]])


def _seeds(study: Row) -> int:
    """How many seeds every setting of a study has, at least."""
    return min(Counter(json.dumps(config | {"seed": None}) for config in _plan(study)).values())


def _plan(study: Row) -> list[dict[str, Any]]:
    return list(json.loads(study["settings"])["plan"])
