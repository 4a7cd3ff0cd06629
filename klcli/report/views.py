"""Views: the table, notes and JSON document of a selection."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from klcli.errors import ConfigError
from klcli.report.documents import check_document, record_document, run_document
from klcli.report.tables.runs import RESULTS, comparison_table, list_table, ranking_table
from klcli.report.tables.table import Table
from klcli.report.words import images_words, network_name, run_numbers, split_words
from klcli.settings.selection import Selection
from klcli.store.records import ImageSet, Run, Study
from klcli.store.runs import BEST_FIRST, Order, RunFilter
from klcli.store.store import Store

FIRST_COMMAND = "klcli train --hidden 50 30 20 --bn"
NEWEST_FIRST = Order("id", descending=True)
DEFAULT_BEST = 10
NO_MATCH = "no run matches these filters"


@dataclass(frozen=True, kw_only=True)
class View:
    """The result of a selection."""

    table: Table | None = None  # None if there is nothing to show; the notes give the reason
    notes: Sequence[str] = ()  # part of the result
    document: dict[str, Any] = field(default_factory=dict)
    hints: Sequence[str] = ()  # the commands that show the rest
    runs: Sequence[Run] = ()  # the data for pictures
    study: Study | None = None
    is_chosen: bool = False  # the user chose the runs by number


def view(store: Store, selection: Selection, plot: Sequence[str] = ()) -> View:
    """Return the view of a selection; without --study, pictures of a search or sweep show the latest study.

    Raises ConfigError or StoreError for a run, study or check that does not exist.
    """
    if selection.runs:
        return _side_by_side(store, selection)
    if selection.gradchecks:
        return gradients_view(store)
    if selection.study is not None:
        return study_view(store, selection.study, selection.limit)
    if not selection.has_view and plot and set(plot) <= {"lambda", "sigma"}:
        return study_view(store, latest_study(store, plot[0]))
    chosen = conditions(selection)
    if selection.images_of is not None:
        like = store.runs.get(selection.images_of)
        chosen = replace(chosen, dataset_sha256=like.dataset_sha256, split=like.split_json)
    order = Order(*selection.order) if selection.order else None
    if selection.is_list and (order is None or order.column not in RESULTS):
        return _list(store, selection, chosen, order or NEWEST_FIRST)
    return _ranking(store, selection, chosen, order or BEST_FIRST)


def _ranking(store: Store, selection: Selection, chosen: RunFilter, order: Order) -> View:
    found = store.runs.image_sets(chosen)
    if not found:
        return _nothing(store, chosen)
    mine = _choose_images(found, selection.dataset)
    chosen = replace(chosen, dataset_sha256=mine.dataset_sha256, split=mine.split_json)
    document = {"dataset": mine.dataset, "dataset_sha256": mine.dataset_sha256, "split": mine.split_json}
    hints = _others(found, mine, selection)
    if selection.group_by:
        from klcli.report.tables.formats import exact_rows
        from klcli.report.tables.groups import columns_of, group, group_notes, group_table

        runs, columns = store.runs.query(chosen, order), columns_of(selection.group_by)
        groups, repeated = group(runs, columns)
        groups = groups[: selection.limit]
        table, notes = group_table(groups, columns), group_notes(groups, columns, repeated)
        more: dict[str, Any] = {"groups": exact_rows(table), "notes": notes}
    else:
        limit = min(selection.best or selection.limit or DEFAULT_BEST, selection.limit or 10**9)
        runs, notes = store.runs.query(chosen, order, limit), []
        title = f"Runs on {images_words(mine)}"
        table = list_table(runs, title) if selection.is_list else ranking_table(runs, order.column)
        more = {"runs": [*map(run_document, runs)]}
    return View(table=table, notes=notes, document=document | more, hints=hints, runs=runs)


def _choose_images(found: Sequence[ImageSet], wanted: str | None) -> ImageSet:
    """Return the first set of images of that name or sha256. Raises ConfigError, which lists the known sets."""
    for one in found:
        if wanted is None or one.dataset == wanted or one.dataset_sha256.startswith(wanted):
            return one
    known = dict.fromkeys(f"{one.dataset} ({one.dataset_sha256[:8]})" for one in found)
    raise ConfigError(f"--dataset {wanted!r}: no such run on it, there are {', '.join(known)}")


def _others(found: Sequence[ImageSet], mine: ImageSet, selection: Selection) -> list[str]:
    """Return the commands that show the runs that cannot be ranked together with these."""
    command = f"klcli report --best {selection.best or DEFAULT_BEST}"
    if selection.group_by:
        command = f"klcli report --group-by {','.join(selection.group_by)}"
    alike = [one for one in found if one is not mine and one.dataset_sha256 == mine.dataset_sha256]
    hints = [f"{one.runs} more with {split_words(one.split)}: {command} --images-of {one.latest}" for one in alike]
    elsewhere = Counter[tuple[str, str]]()
    for one in found:
        if one.dataset_sha256 != mine.dataset_sha256:
            elsewhere[one.dataset, one.dataset_sha256[:8]] += one.runs
    return hints + [f"{n} more on {name}: {command} --dataset {sha256}" for (name, sha256), n in elsewhere.items()]


def _nothing(store: Store, chosen: RunFilter) -> View:
    counts = store.runs.count_by_state()
    notes = [f"{store.path} holds no complete run yet: begin with `{FIRST_COMMAND}`"]
    notes += [f"there are {states_words(counts)}: `klcli report --list` shows them"] if counts else []
    has_any = counts.get(chosen.state or "complete")
    return View(notes=[NO_MATCH] if has_any else notes, document={"dataset": None, "runs": []})


def states_words(counts: dict[str, int]) -> str:
    """`3 complete, 1 diverged`."""
    return ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))


def _list(store: Store, selection: Selection, chosen: RunFilter, order: Order) -> View:
    if selection.dataset is not None:
        mine = _choose_images(store.runs.image_sets(RunFilter()), selection.dataset)
        chosen = replace(chosen, dataset_sha256=mine.dataset_sha256)
    runs = store.runs.query(chosen, order, selection.limit)
    counts = store.runs.count_by_state()
    if not runs:
        note = NO_MATCH if counts else f"{store.path} holds no run yet"
        return View(notes=[f"{note}: begin with `{FIRST_COMMAND}`"], document={"runs": []})
    title = f"Runs in {store.path}: {states_words(counts)}"
    return View(table=list_table(runs, title), document={"runs": [*map(run_document, runs)]}, runs=runs)


def _side_by_side(store: Store, selection: Selection) -> View:
    runs = [store.runs.get(number) for number in dict.fromkeys(selection.runs)]
    epochs = {run.id: store.runs.epochs(run.id) for run in runs}
    evaluations = store.evaluations.of_runs([run.id for run in runs])
    notes = [f"run {run.id}: {run.command}" for run in runs]
    if ranges := [run for run in runs if run.config.schedule == "range"]:
        from klcli.report.tables.studies import suggestion_sentence

        notes += [f"run {run.id}, {suggestion_sentence(run, epochs[run.id])}" for run in ranges]
    if len({(run.dataset_sha256, run.split) for run in runs}) > 1:
        notes.append("These runs saw different images: their accuracies cannot be compared.")
    document = {
        "runs": [run_document(run) | {"epochs_measured": [*map(record_document, epochs[run.id])]} for run in runs],
        "evaluations": [*map(record_document, evaluations)],
        "differs": [row["setting"] for row in comparison_table(runs, diff_only=True).rows],
    }
    table = comparison_table(runs, selection.diff_only, evaluations)
    return View(table=table, notes=notes, document=document, runs=runs, is_chosen=True)


def gradients_view(store: Store) -> View:
    """Return the latest suite of gradient checks as one table."""
    from klcli.report.tables.gradient_checks import gradient_method, gradient_verdict, suite_table

    checks = store.gradient_checks.suite()
    if not checks:
        note = f"{store.path} holds no gradient check yet: begin with `klcli gradcheck`"
        return View(notes=[note], document={"checks": []})
    notes, document = [gradient_verdict(checks), gradient_method(checks[0])], [*map(check_document, checks)]
    return View(table=suite_table(checks), notes=notes, document={"checks": document})


def study_view(store: Store, number: int, limit: int | None = None) -> View:
    """Return the table of a study, of at most `limit` rows; a search includes all its stages up to this one."""
    from klcli.report.tables import studies
    from klcli.report.tables.formats import exact_rows

    study, runs = store.studies.get(number), store.studies.members(number)
    document: dict[str, Any] = {"study": record_document(study), "runs": [*map(run_document, runs)]}
    if not runs:
        return View(notes=[f"study {number} has no runs any more"], document=document, study=study)
    images = images_words(runs[0])
    if study.kind == "reproduce":
        from klcli.published.reproduction import stored_reproduction
        from klcli.report.tables.reproductions import reproduction_notes, reproduction_table

        found = stored_reproduction(store, study.id)
        compared = found.report, found.comparisons, found.terms
        table, notes = reproduction_table(*compared), reproduction_notes(*compared)
    elif study.kind == "lambda" and study.stage != "final":
        from klcli.procedures.searches import stored_search

        search = stored_search(store, number)
        choice = search.choice
        table = studies.search_table(studies.search_title(search, images), search.stages, choice)
        notes = [studies.choice_sentence(choice) if choice else "every lambda diverged or did not complete"]
        document["choice"] = asdict(choice) if choice else None
    elif study.kind == "sigma":
        table, notes = studies.sigma_table(studies.sigma_title(runs, images), runs), []
    else:
        what = f"{study.kind.capitalize()} {study.stage or ''}".rstrip()
        table = studies.repeats_table(f"{what}: {network_name(runs[0].config)} on {images} (study {number})", runs)
        notes = [run_numbers(runs)]
    if study.state != "complete":
        notes.append(f"study {number} is {study.state}")
    table = replace(table, rows=table.rows[:limit])
    return View(table=table, notes=notes, document=document | {"rows": exact_rows(table)}, runs=runs, study=study)


def latest_study(store: Store, kind: str) -> int:
    """Return the number of the latest search or sweep. Raises ConfigError if there is none."""
    known = [one.id for one in store.studies.all() if one.kind == kind and one.stage != "final"]
    if not known:
        command = {"lambda": "search-lambda --coarse --fine", "sigma": "sigma-sweep"}[kind]
        raise ConfigError(f"--plot {kind}: there is no such study yet, begin with `klcli {command}`")
    return known[-1]


def conditions(selection: Selection) -> RunFilter:
    """Return the filter of runs, without the filter of images."""
    state, since = selection.state if selection.is_list else "complete", selection.started_since
    return RunFilter(state=state, batch_norm=selection.bn, since=since, tag=selection.tagged, where=selection.where)
