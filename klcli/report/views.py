"""Views: the table, notes and JSON document of a selection."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from klcli.errors import ConfigError, StoreError
from klcli.procedures.run_lookup import chosen_run, chosen_runs, chosen_study, images_of_run
from klcli.report import words
from klcli.report.documents import check_document, record_document, run_document
from klcli.report.tables.formats import exact_rows
from klcli.report.tables.runs import RESULTS, comparison_table, list_table, ranking_table
from klcli.report.tables.table import Table
from klcli.settings.procedures import MEASURES
from klcli.settings.run_command import in_database
from klcli.settings.run_names import names_of
from klcli.settings.selection import MOST_ROWS, Selection
from klcli.settings.setting import require
from klcli.store.records import BEST_FIRST, NEWEST_FIRST, GradientCheck, ImageSet, Order, Run, RunFilter, Study
from klcli.store.store import Store

FIRST_COMMAND = "klcli train --hidden 50 30 20 --bn"
DEFAULT_BEST = 10
DEFAULT_ROWS = 1000  # of a list: more take seconds to print
DEFAULT_GROUPS = 100  # all pairs are compared
NO_MATCH = "no run matches these filters"
NONE_RANKED = "no run to rank"


@dataclass(frozen=True, kw_only=True)
class View:
    """The result of a selection."""

    name: str = ""  # of its tables: `best`, `study-3`
    table: Table | None = None  # None if there is nothing to show; the notes give the reason
    tables: Sequence[Table] = ()  # all that are shown, if not this one alone
    notes: Sequence[str] = ()  # part of the result
    document: dict[str, Any] = field(default_factory=dict)
    hints: Sequence[str] = ()  # the commands that show the rest
    runs: Sequence[Run] = ()  # the data for pictures
    study: Study | None = None
    is_chosen: bool = False  # the user chose these runs, by number or with --best
    is_default: bool = False  # no view was named


def view(store: Store, selection: Selection) -> View:
    """Return the view of a selection; without --study, pictures of a search or sweep show the latest study.

    Raises ConfigError or StoreError for a run, study or check that does not exist.
    """
    if selection.runs:
        return _side_by_side(store, selection)
    if selection.is_about_gradients:
        return gradients_view(store, store.gradient_checks.suite(), selection.limit, selection.shown_measures)
    if selection.study is not None:
        return study_view(store, chosen_study(store, selection.study, "--study").id, selection.limit)
    if selection.is_about_studies:
        return study_view(store, latest_study(store, selection.plot[0]), selection.limit)
    if selection.group_by:
        from klcli.report.tables.groups import settings_named  # a ranking must not import studies/

        settings_named(selection.group_by)  # a wrong name is refused before any run is read
    chosen, order = conditions(store, selection), Order(*selection.order) if selection.order else None
    if order:
        store.runs.require_column(order.column)
    if selection.is_list and (order is None or order.column not in RESULTS):
        if selection.dataset is not None and (known := image_sets(store, RunFilter())):
            called = _images_called(known, selection.dataset)
            chosen = replace(chosen, images=tuple(one.dataset_sha256 for one in called))
        return _listed(store, selection, chosen, order or NEWEST_FIRST)
    return _ranking(store, selection, chosen, order or BEST_FIRST)


def _ranking(store: Store, selection: Selection, chosen: RunFilter, order: Order) -> View:
    found = image_sets(store, chosen)
    if not found:
        counts, notes = store.runs.count_by_state(), [NO_MATCH]
        if not counts or (chosen.state == "complete" and not counts.get("complete")):
            first, listed = (in_database(one, store.path) for one in (FIRST_COMMAND, "klcli report --list"))
            notes = [f"{store.path} holds no complete run yet: begin with `{first}`"]
            notes += [f"`{listed}` shows those in other states: {states_words(counts)}"] * bool(counts)
        return View(notes=notes, document={"dataset": None, "runs": []})
    mine, *_ = _images_called(found, selection.dataset)
    chosen, hints = chosen.on_images_of(mine), _others(found, mine, selection)
    every = replace(chosen, as_configured=None)
    if selection.is_list:
        shown = _listed(store, selection, every, order, f"Runs on {words.images_words(mine)}")
    else:
        shown = (_groups if selection.group_by else _best)(store, selection, chosen, order)
        if n := store.runs.count(every) - store.runs.count(chosen):
            every_run = selection.command(best=None, group_by=(), list_all=True)
            hints.append(f"{n} more not ranked, range tests or with quirks of a published report: {every_run}")
    images = {"dataset": mine.dataset, "dataset_sha256": mine.dataset_sha256, "split": mine.split_json}
    is_chosen, is_default = selection.best is not None, not (selection.has_view or selection.is_list)
    return replace(shown, document=images | shown.document, hints=hints, is_chosen=is_chosen, is_default=is_default)


def _groups(store: Store, selection: Selection, chosen: RunFilter, order: Order) -> View:
    from klcli.report.tables.groups import group, group_notes, group_table, settings_named

    by, (results, left_out) = settings_named(selection.group_by), store.runs.results(chosen)
    unread = [f"left out: {reason}" for reason in left_out]
    if not results:
        return View(notes=[NONE_RANKED, *unread], document={"groups": []})
    groups, repeated = group(results, by)
    shown = groups[: selection.limit or DEFAULT_GROUPS]
    table = group_table(groups[: selection.limit] if selection.is_csv else shown, by)
    tested = groups[: max(len(shown), DEFAULT_GROUPS)]  # a shorter table has the same conclusions
    notes = group_notes(tested, by, repeated, len(shown)) + diverged_note(store, chosen)
    notes += unread + _left_out("best", table, len(groups), "groups")
    drawn = {one.id for group in shown for one in group.runs}
    runs = [run for run in store.runs.query(chosen, order) if run.id in drawn] if selection.plot else []
    return View(name="groups", table=table, notes=notes, document={"groups": [*exact_rows(table)]}, runs=runs)


def diverged_note(store: Store, chosen: RunFilter) -> list[str]:
    """Name the diverged runs that the means over `chosen`, all complete, do not contain and so favour."""
    diverged = words.incomplete_words(store.runs.query(replace(chosen, state="diverged"), NEWEST_FIRST))
    return [f"Not included: {diverged}."] * bool(diverged)


def _best(store: Store, selection: Selection, chosen: RunFilter, order: Order) -> View:
    limit, notes = min(selection.best or selection.limit or DEFAULT_BEST, selection.limit or MOST_ROWS), list[str]()
    sound = _readable(store.runs.each(chosen, order, limit), notes)
    runs = [*sound] if selection.plot or not selection.is_csv else []
    table = ranking_table(runs or sound, order.column, order.descending)
    notes = notes if table else [NONE_RANKED, *notes]
    return View(name="best", table=table, notes=notes, document={"runs": [*map(run_document, runs)]}, runs=runs)


def _readable(runs: Iterable[Run], notes: list[str]) -> Iterator[Run]:
    """Yield the runs with readable settings, and append a note for each of the others, which a view leaves out."""
    for run in runs:
        if run.unreadable:
            notes.append(f"left out: {run.unreadable}")
        else:
            yield run


def image_sets(store: Store, chosen: RunFilter) -> list[ImageSet]:
    """Return the sets of images of the runs of a filter, without those whose split cannot be read."""
    found = []
    for one in store.runs.image_sets(chosen):
        with suppress(StoreError):
            _ = one.split
            found.append(one)
    return found


def _images_called(found: Sequence[ImageSet], wanted: str | None) -> list[ImageSet]:
    if called := [one for one in found if one.is_called(wanted)]:
        return called
    known = dict.fromkeys(f"{one.dataset} ({one.dataset_sha256[:8]})" for one in found)
    raise ConfigError(f"--dataset {wanted!r}: no such run on it, there are {', '.join(known)}")


def _others(found: Sequence[ImageSet], mine: ImageSet, selection: Selection) -> list[str]:
    hints, elsewhere = [], Counter[str]()
    for one in found:
        if one.dataset_sha256 != mine.dataset_sha256:
            its = selection.command(dataset=one.dataset_sha256[:8], images_of=None)
            elsewhere[f"{one.dataset}: {its}"] += one.runs
        elif one is not mine:
            its = selection.command(dataset=None, images_of=one.latest)
            hints.append(f"{one.runs} more with {words.split_words(one.split)}: {its}")
    return hints + [f"{n} more on {name}" for name, n in elsewhere.items()]


def states_words(counts: dict[str, int]) -> str:
    """`3 complete, 1 diverged`."""
    return ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))


def _listed(store: Store, selection: Selection, chosen: RunFilter, order: Order, title: str = "") -> View:
    """Return the list of runs in order, by default under a title that counts those in it.

    CSV, for another program, has all of them, other formats DEFAULT_ROWS.
    """
    limit = selection.limit or DEFAULT_ROWS
    runs = store.runs.query(chosen, order, limit) if selection.plot or not selection.is_csv else []
    sound = [*_readable(runs, [])]
    everything = store.runs.each(chosen, order, selection.limit) if selection.is_csv else runs
    states = states_words(Counter(run.state for run in runs))
    counted = f"Runs in {store.path}: {states}{words.subset_words(sound)}"
    table, total = list_table(everything, title or counted), store.runs.count(chosen)
    if not table.rows:
        none_yet = f"{store.path} holds no run yet: begin with `{in_database(FIRST_COMMAND, store.path)}`"
        return View(notes=[NO_MATCH if store.runs.count_by_state() else none_yet], document={"runs": []})
    notes = _left_out("newest" if order == NEWEST_FIRST else "first", table, total, "runs")
    document = {"runs": [*map(run_document, runs)], "total": total}
    return View(name="list", table=table, notes=notes, document=document, runs=sound)


def _left_out(first: str, table: Table, total: int, what: str) -> list[str]:
    n = len(table.rows)
    return [f"Only the {first} {n} of {total} {what}: `--limit {total}` shows all."] * (n < total)


def _limited(table: Table, limit: int | None) -> tuple[Table, list[str]]:
    """Return the first rows of a table, at most `limit`, and a note if there are more."""
    shown = replace(table, rows=table.rows[:limit])
    return shown, _left_out("first", shown, len(table.rows), "rows")


def _side_by_side(store: Store, selection: Selection) -> View:
    runs = chosen_runs(store, selection.runs, "--run")
    require(not selection.diff_only or len(runs) > 1, "--diff-only: compares runs, give at least two with --run")
    epochs = {run.id: store.runs.epochs(run.id) for run in runs}
    evaluations = store.evaluations.of_runs([run.id for run in runs])
    notes = [f"run {run.id}: {run.command}" for run in runs]
    if any(run.config.schedule == "range" for run in runs):
        from klcli.report.tables.studies import range_notes

        notes += range_notes(runs, lambda run: epochs[run.id])
    if len({(run.dataset_sha256, run.split) for run in runs}) > 1:
        notes.append("These runs saw different images: their accuracies cannot be compared.")
    document = {
        "runs": [run_document(run) | {"epochs_measured": [*map(record_document, epochs[run.id])]} for run in runs],
        "evaluations": [*map(record_document, evaluations)],
        "differs": [row["setting"] for row in comparison_table(runs, diff_only=True).rows],
    }
    table, cut = _limited(comparison_table(runs, selection.diff_only, evaluations), selection.limit)
    name = "-".join(["run" if len(runs) == 1 else "runs", *names_of(run.id for run in runs)])
    return View(name=name, table=table, notes=cut + notes, document=document, runs=runs, is_chosen=True)


def gradients_view(
    store: Store, checks: Sequence[GradientCheck], limit: int | None = None, measures: Sequence[str] = MEASURES
) -> View:
    """Return a suite of gradient checks as one table, of at most `limit` rows, and as a table per network."""
    from klcli.report.tables import later_checks

    if not checks:
        note = f"{store.path} holds no gradient check yet: begin with `{in_database('klcli gradcheck', store.path)}`"
        return View(notes=[note], document={"checks": []})
    table, cut = _limited(later_checks.suite_table(checks, measures), limit)
    tables = [later_checks.gradient_check_table(one, measures) for one in later_checks.limited(checks, limit)]
    notes = [*cut, later_checks.gradient_verdict(checks), *later_checks.measure_notes(checks, measures)]
    notes.append(later_checks.gradient_method(checks[0]))
    shown = [*map(check_document, later_checks.limited(checks, limit))]
    document = {"checks": shown, "rows": [*exact_rows(table)], "verdict": later_checks.gradient_verdict(checks)}
    return View(name="gradients", table=table, tables=tables, notes=notes, document=document)


def study_view(store: Store, number: int, limit: int | None = None) -> View:
    """Return the table of a study, of at most `limit` rows; a search includes all its stages up to this one."""
    from klcli.report.tables import studies

    study, members = store.studies.get(number), store.studies.members(number)
    unread: list[str] = []
    stages = [runs := [*_readable(members, unread)]]
    document: dict[str, Any] = {"study": record_document(study), "runs": [*map(run_document, members)]}
    if not runs:
        return View(notes=unread or [f"study {number} has no runs any more"], document=document, study=study)
    if study.kind == "reproduce":
        from klcli.published.reproduction import stored_reproduction
        from klcli.report.tables.reproductions import reproduction_notes, reproduction_table

        found = stored_reproduction(store, study.id)
        table, notes = reproduction_table(found), reproduction_notes(found)
    elif study.kind == "lambda" and study.stage != "final":
        from klcli.procedures.searches import stored_search

        search = stored_search(store, number)
        choice, table, stages = search.choice, studies.search_table(search), [own for _, own in search.stages]
        notes = [studies.choice_sentence(choice) if choice else "every lambda diverged or did not complete"]
        notes.append(studies.stages_note(search))
        document["choice"] = asdict(choice) if choice else None
    elif study.kind == "sigma":
        table, notes = studies.sigma_table(runs), [words.without_note(runs)]
    else:
        what, settings = words.network_name(runs[0].config), words.settings_line(runs[0], together_with=runs)
        title = f"{'Final training' if study.stage == 'final' else 'Repeats'}: {what} on {settings} (study {number})"
        table, notes = studies.repeats_table(title, runs), [words.run_numbers(runs), words.without_note(runs)]
        notes += studies.range_notes(runs, lambda run: store.runs.epochs(run.id))
    if study.kind != "reproduce":
        notes += dict.fromkeys(map(words.repeats_note, stages))
        notes += store.studies.deletions(store.studies.chain(number))
    notes.append("" if study.state == "complete" else f"study {number} is {study.state}")
    table, cut = _limited(table, limit)
    tables = [table]
    if study.kind == "sigma" and words.repeats_note(runs):
        tables.append(_limited(studies.interval_table(runs), limit)[0])
    notes = [*cut, *filter(None, notes), *unread]
    document["rows"] = [*exact_rows(table)]
    name = f"study-{number}"
    return View(name=name, table=table, tables=tables, notes=notes, document=document, runs=runs, study=study)


def latest_study(store: Store, kind: str) -> int:
    """Return the latest search or sweep, with a complete run, on CIFAR-10 and on all images if there is such a one.

    Raises ConfigError if there is none.
    """
    found = [one for one in store.studies.all() if one.kind == kind and one.stage != "final"]
    command = {"lambda": "klcli search-lambda --coarse --fine", "sigma": "klcli sigma-sweep"}[kind]
    first = in_database(command, store.path)
    require(bool(found), f"--plot {kind}: there is no such study yet, begin with `{first}`")

    def preference(study: Study) -> tuple[bool, bool, bool]:
        complete = [run for run in store.studies.members(study.id) if run.state == "complete" and not run.unreadable]
        is_real = any(run.dataset != "synthetic" for run in complete)
        return bool(complete), is_real, is_on_all_images(study)

    return sorted(found, key=preference)[-1].id


def is_on_all_images(study: Study) -> bool:
    """Whether a study trains on all images, not on a part as a quick trial does."""
    [first, *_] = study.settings.get("plan") or [{}]
    split = first.get("split") or {}
    return split.get("subset") is None and not split.get("train_batches")


def conditions(store: Store, selection: Selection) -> RunFilter:
    """Return the filter of runs, without --dataset."""
    state, since = selection.state if selection.is_list else "complete", selection.started_since
    own = RunFilter(state=state, batch_norm=selection.bn, since=since, tag=selection.tagged, where=selection.where)
    if selection.images_of is None:
        return own
    images = images_of_run(store, chosen_run(store, selection.images_of, "--images-of"))
    return own.on_images_of(images, as_configured=None)
