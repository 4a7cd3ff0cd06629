"""Views: from a selection to one table, what it means in words, and its JSON document."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from klcli.errors import ConfigError
from klcli.report.documents import run_document
from klcli.report.selection import Selection
from klcli.report.tables.formats import exact_rows
from klcli.report.tables.groups import columns_of, group, group_notes, group_table
from klcli.report.tables.range_tests import suggestion_sentence
from klcli.report.tables.runs import RESULTS, comparison_table, list_table, ranking_table
from klcli.report.tables.studies import (
    choice_document,
    choice_sentence,
    repeats_table,
    search_table,
    sigma_table,
    tried_values,
)
from klcli.report.tables.table import Row, Table, network_name, statistics_words
from klcli.report.words import images_words, split_of, split_words
from klcli.store.runs import BEST_FIRST, Order, RunFilter
from klcli.store.store import Store
from klcli.studies.lambda_search import Choice, choose

FIRST_COMMAND = "klcli train --hidden 50 30 20 --bn"
NEWEST_FIRST = Order("id", descending=True)
DEFAULT_BEST = 10


@dataclass(frozen=True)
class View:
    """What a call of report shows."""

    table: Table | None  # None where there is nothing to show; the notes say why
    notes: list[str]  # part of the result
    document: dict[str, Any]
    hints: list[str] = field(default_factory=list)  # how to see what is not shown
    runs: list[Row] = field(default_factory=list)  # what pictures are made of
    study: Row | None = None
    is_chosen: bool = False  # the runs were asked for by number


def view(store: Store, selection: Selection, plot: Sequence[str] = ()) -> View:
    """Return the view of a selection, which may be no more than a picture of the latest study.

    Raises ConfigError or StoreError for what is not there.
    """
    if selection.runs:
        return _side_by_side(store, selection)
    if selection.study is not None:
        return study_view(store, selection.study)
    if not selection.has_view and plot and set(plot) <= {"lambda", "sigma"}:
        return study_view(store, latest_study(store, plot[0]))
    if selection.is_list and not _compares_results(selection):
        return _list(store, selection)
    return _ranking(store, selection)


def _ranking(store: Store, selection: Selection) -> View:
    """The best runs, or their groups, on one set of images divided in one way."""
    chosen = selection.filter()
    if selection.images_of is not None:
        like = store.runs.get(selection.images_of)
        chosen = replace(chosen, dataset_sha256=like["dataset_sha256"], split=like["split"])
    found = store.runs.image_sets(chosen)
    if not found:
        return _nothing(store, chosen)
    mine = choose_images(found, selection.dataset)
    chosen = replace(chosen, dataset_sha256=mine["dataset_sha256"], split=mine["split"])
    order = selection.order() or BEST_FIRST
    document = {"dataset": mine["dataset"], "dataset_sha256": mine["dataset_sha256"], "split": mine["split"]}
    hints = _others(found, mine, selection)
    if selection.group_by:
        return _groups(store.runs.query(chosen, order), selection, document, hints)
    limit = min(selection.best or selection.limit or DEFAULT_BEST, selection.limit or 10**9)
    runs = store.runs.query(chosen, order, limit)
    table = (
        list_table(runs, f"Runs on {images_words(mine)}") if selection.is_list else ranking_table(runs, order.column)
    )
    return View(table, [], document | {"runs": [run_document(run) for run in runs]}, hints, runs)


def _compares_results(selection: Selection) -> bool:
    order = selection.order()
    return order is not None and order.column in RESULTS


def _groups(runs: list[Row], selection: Selection, document: dict[str, Any], hints: list[str]) -> View:
    columns = columns_of(selection.group_by)
    groups, repeated = group(runs, columns)
    groups = groups[: selection.limit]
    table, notes = group_table(groups, columns), group_notes(groups, columns, repeated)
    return View(table, notes, document | {"groups": exact_rows(table), "notes": notes}, hints, runs)


def choose_images(found: Sequence[Row], wanted: str | None) -> Row:
    """Return the first set of images of that name or sha256. Raises ConfigError, which names those that are there."""
    for row in found:
        if wanted is None or row["dataset"] == wanted or row["dataset_sha256"].startswith(wanted):
            return row
    known = dict.fromkeys(f"{row['dataset']} ({row['dataset_sha256'][:8]})" for row in found)
    raise ConfigError(f"--dataset {wanted!r}: no such run on it, there are {', '.join(known)}")


def _others(found: Sequence[Row], mine: Row, selection: Selection) -> list[str]:
    """How to see the runs that may not be ranked together with these."""
    command = f"klcli report --best {selection.best or DEFAULT_BEST}"
    if selection.group_by:
        command = f"klcli report --group-by {','.join(selection.group_by)}"
    hints = [
        f"{row['runs']} more with {split_words(split_of(row))}: {command} --images-of {row['latest']}"
        for row in found
        if row["dataset_sha256"] == mine["dataset_sha256"] and row is not mine
    ]
    elsewhere: dict[str, int] = {}
    for row in found:
        if row["dataset_sha256"] != mine["dataset_sha256"]:
            elsewhere[row["dataset_sha256"]] = elsewhere.get(row["dataset_sha256"], 0) + row["runs"]
    names = {row["dataset_sha256"]: row["dataset"] for row in found}
    return hints + [f"{n} more on {names[sha]}: {command} --dataset {sha[:8]}" for sha, n in elsewhere.items()]


def _nothing(store: Store, chosen: RunFilter) -> View:
    """Say what to run first, or that nothing matches."""
    counts = store.runs.count_by_state()
    if counts.get(chosen.state or "complete"):
        return View(None, ["no run matches these filters"], {"dataset": None, "runs": []})
    notes = [f"{store.path} holds no complete run yet: begin with `{FIRST_COMMAND}`"]
    if counts:
        states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
        notes.append(f"there are {states}: `klcli report --list` shows them")
    return View(None, notes, {"dataset": None, "runs": []})


def _list(store: Store, selection: Selection) -> View:
    chosen = selection.filter()
    if selection.images_of is not None:
        like = store.runs.get(selection.images_of)
        chosen = replace(chosen, dataset_sha256=like["dataset_sha256"], split=like["split"])
    elif selection.dataset is not None:
        mine = choose_images(store.runs.image_sets(RunFilter()), selection.dataset)
        chosen = replace(chosen, dataset_sha256=mine["dataset_sha256"])
    runs = store.runs.query(chosen, selection.order() or NEWEST_FIRST, selection.limit)
    if not runs:
        note = "no run matches these filters" if store.runs.count_by_state() else f"{store.path} holds no run yet"
        return View(None, [f"{note}: begin with `{FIRST_COMMAND}`"], {"runs": []})
    counts = store.runs.count_by_state()
    title = f"Runs in {store.path}: {', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}"
    return View(list_table(runs, title), [], {"runs": [run_document(run) for run in runs]}, [], runs)


def _side_by_side(store: Store, selection: Selection) -> View:
    runs = [store.runs.get(number) for number in dict.fromkeys(selection.runs)]
    evaluations = store.evaluations.of_runs([run["id"] for run in runs])
    table = comparison_table(runs, selection.diff_only, evaluations)
    notes = [f"run {run['id']}: {run['command']}" for run in runs]
    tests = [run for run in runs if run["schedule"] == "range"]
    notes += [f"run {run['id']}, {suggestion_sentence(run, store.runs.epochs(run['id']))}" for run in tests]
    if len({(run["dataset_sha256"], run["split"]) for run in runs}) > 1:
        notes.append("These runs saw different images: their accuracies cannot be compared.")
    document = {
        "runs": [
            run_document(run) | {"epochs_measured": [dict(one) for one in store.runs.epochs(run["id"])]} for run in runs
        ],
        "evaluations": [dict(one) for one in evaluations],
        "differs": [row["setting"] for row in comparison_table(runs, diff_only=True).rows],
    }
    return View(table, notes, document, [], runs, is_chosen=True)


def study_view(store: Store, number: int) -> View:
    """Return the table of a study; that of a search has all its stages up to this one."""
    study = store.studies.get(number)
    runs = store.studies.members(number)
    document: dict[str, Any] = {"study": dict(study), "runs": [run_document(run) for run in runs]}
    if not runs:
        return View(None, [f"study {number} has no runs any more"], document, study=study)
    if study["kind"] == "reproduce":
        return _reproduction(store, study, runs, document)
    first = runs[0]
    where = f"{network_name(first)} on {images_words(first)}"
    if study["kind"] == "lambda" and study["stage"] != "final":
        stages, choice = search_of(store, number)
        chain = ", ".join(str(members[0]["study_id"]) for _, members in stages)
        title = f"Lambda of the {where}, by validation accuracy (study {chain})"
        table = search_table(title, stages, choice)
        notes = [choice_sentence(choice)] if choice else ["every lambda diverged or did not complete"]
        document |= {"choice": choice_document(choice) if choice else None}
    elif study["kind"] == "sigma":
        layers = f"{len(first['hidden'].split()) + 1}-layer {'-'.join(first['hidden'].split())}"
        where = f"{layers} on {images_words(first)}{statistics_words(runs)}"
        table, notes = sigma_table(f"Sigma of the {where} (study {number})", runs), []
    else:
        complete = [run for run in runs if run["state"] == "complete"]
        stage = f" {study['stage']}" if study["stage"] else ""
        table = repeats_table(f"{study['kind'].capitalize()}{stage}: {where} (study {number})", complete)
        notes = [f"run{'s' if len(runs) > 1 else ''} {', '.join(str(run['id']) for run in runs)}"]
    if study["state"] != "complete":
        notes.append(f"study {number} is {study['state']}")
    return View(table, notes, document | {"rows": exact_rows(table)}, [], runs, study)


def _reproduction(store: Store, study: Row, runs: list[Row], document: dict[str, Any]) -> View:
    """The table of a published report beside what is stored of it."""
    from klcli.published.reproduction import stored_reproduction
    from klcli.report.tables.reproductions import reproduction_notes, reproduction_table

    found = stored_reproduction(store, int(study["id"]))
    table = reproduction_table(found.report, found.comparisons, found.terms)
    notes = reproduction_notes(found.report, found.comparisons, found.terms)
    if study["state"] != "complete":
        notes.append(f"study {study['id']} is {study['state']}")
    return View(table, notes, document | {"rows": exact_rows(table)}, [], runs, study)


def latest_study(store: Store, kind: str) -> int:
    """Return the number of the latest search or sweep. Raises ConfigError where there is none."""
    known = [int(one["id"]) for one in store.studies.all() if one["kind"] == kind and one["stage"] != "final"]
    if not known:
        command = {"lambda": "search-lambda --coarse --fine", "sigma": "sigma-sweep"}[kind]
        raise ConfigError(f"--plot {kind}: there is no such study yet, begin with `klcli {command}`")
    return known[-1]


def search_of(store: Store, number: int) -> tuple[list[tuple[str, list[Row]]], Choice | None]:
    """Return the stages of a search up to a study, with their runs, and the choice; None where nothing completed."""
    chain = [study for study in store.studies.chain(number) if study["kind"] == "lambda"]
    stages = [(str(study["stage"]), members) for study in chain if (members := store.studies.members(study["id"]))]
    tried = [one for stage, members in stages for one in tried_values(members, stage)]
    if not any(one.accuracies for one in tried):
        return stages, None
    return stages, choose(tried, split_of(stages[0][1][0]).sizes()[1])
