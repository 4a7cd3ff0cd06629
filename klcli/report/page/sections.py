"""`klcli report --html`: everything that the database knows, as one page."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from klcli.cli.invocation import Invocation
from klcli.errors import ConfigError, KlcliError
from klcli.report.selection import Selection

if TYPE_CHECKING:
    from klcli.report.page.page import Part, Picture, Section
    from klcli.report.views import View
    from klcli.store.store import Store

BEST = 10  # rows of a ranking
CURVES = 4  # runs of each set of images whose curves are drawn
TOGETHER = 6  # settings over one another in one picture,
SEEDS = 20  # each with a band over its seeds
LISTED = 200  # runs that are listed with their settings; a page of thousands opens on no phone


def write(session: Invocation, db: Path, selection: Selection, path: Path, data: str | None) -> None:
    """Write the page; where there is no run yet, say what to run first instead."""
    from klcli.report.page.page import render
    from klcli.report.views import FIRST_COMMAND
    from klcli.store.checkpoints import write_atomically
    from klcli.store.store import Store

    if selection.has_view:
        raise ConfigError(f"--html {path}: shows everything, filters like --bn or --since go with it, views do not")
    store = Store.existing(db)
    counts = store.runs.count_by_state()
    if not counts and not store.gradient_checks.suites():
        session.result(f"{db} holds no run yet: begin with `{FIRST_COMMAND}`")
        session.document("report", {"page": None})
        return
    with session.progress(
        "drawing", len(store.studies.all()) + len(store.runs.image_sets(selection.filter())) + 2
    ) as advance:
        sections = []
        for section in _sections(session, store, selection, data):
            sections.append(section)
            advance(1)
    states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    page = render("klcli report", f"{db}: {states or 'no runs'}", sections)
    write_atomically(path, page.encode())
    session.result(f"page        {path} ({len(page) / 1e6:.1f} MB)")
    session.document("report", {"page": str(path), "sections": [section.title for section in sections]})


def _sections(session: Invocation, store: "Store", selection: Selection, data: str | None) -> "Iterator[Section]":
    from klcli.published.reproduction import KIND, reproductions
    from klcli.report.page.page import Section
    from klcli.report.tables.runs import summary_table
    from klcli.report.views import view

    found = store.runs.image_sets(selection.filter())
    best = [
        view(store, replace(selection, best=1, images_of=images["latest"], dataset=None)).runs[0] for images in found
    ]
    if found:
        yield Section("Summary", [summary_table(found, best)])
    for images in found:
        yield _images_section(session, store, selection, images["latest"], data)
    for number in reproductions(store):
        yield _reproduction(session, store, number)
    studies = [study for study in store.studies.all() if study["kind"] != KIND]
    refined = {study["parent"] for study in studies if study["stage"] != "final"}
    for study in (study for study in studies if study["id"] not in refined):  # a fine stage shows its coarse one too
        parts = list(_study(session, store, study["id"], data))
        yield Section(f"Study {study['id']}: {study['kind']} {study['stage'] or ''}".rstrip(), parts)
    if store.gradient_checks.suites():
        yield _gradients(session, store)
    yield _runs(store, selection)


def _images_section(
    session: Invocation, store: "Store", selection: Selection, like: int, data: str | None
) -> "Section":
    """The ranking, groups and pictures of the runs that may be compared with run `like`."""
    from klcli.report.page.page import Notes, Section
    from klcli.report.tables.evaluations import evaluations_table
    from klcli.report.tables.groups import SETTINGS, group, group_notes, group_table
    from klcli.report.views import View, view
    from klcli.report.words import images_words

    chosen = replace(selection, images_of=like, dataset=None)
    ranking = view(store, replace(chosen, best=BEST))
    everything = view(store, replace(chosen, best=10**9))
    parts: list[Part] = []
    first = everything.runs[0]
    if first["dataset"] == "synthetic":
        parts.append(Notes(["Synthetic images: these results say nothing about CIFAR-10."], is_warning=True))
    assert ranking.table is not None  # there is a run like this one
    parts.append(ranking.table)
    varying = [name for name in SETTINGS if len({run[name] for run in everything.runs} - {None}) > 1]
    groups, repeated = group(everything.runs, varying)
    several = [one for one in groups if len(one.runs) > 1]  # a single seed is in the ranking already
    if several:
        parts += [group_table(several, varying), Notes(group_notes(several, varying, repeated))]
    evaluations = store.evaluations.of_runs([run["id"] for run in everything.runs])
    if evaluations:
        parts.append(evaluations_table("Stored networks, evaluated again", evaluations))
    if len(everything.runs) > 1:
        top = View(None, [], {}, runs=[run for one in groups[:TOGETHER] for run in one.runs[:SEEDS]])
        parts += _pictures(session, store, top, ("curves", "bn"), data)
    for run in everything.runs[:CURVES]:
        parts += _pictures(session, store, View(None, [], {}, runs=[run]), ("curves",), data)
    parts += _pictures(session, store, View(None, [], {}, runs=[first]), ("confusion", "weights"), data)
    return Section(images_words(first), parts)


def _study(session: Invocation, store: "Store", number: int, data: str | None) -> "Iterator[Part]":
    from klcli.report.page.page import Notes
    from klcli.report.views import study_view

    shown = study_view(store, number)
    if shown.table is not None:
        yield shown.table
    yield Notes(shown.notes)
    if shown.study is not None and shown.runs and shown.study["stage"] != "final":
        kinds = [kind for kind in ("lambda", "sigma") if kind == shown.study["kind"]]
        yield from _pictures(session, store, shown, kinds or ["curves"], data)


def _reproduction(session: Invocation, store: "Store", number: int) -> "Section":
    """A published report beside ours, with its figures."""
    from klcli.published.reproduction import stored_reproduction
    from klcli.report.page.page import Notes, Picture, Section
    from klcli.report.plots.reproductions import pictures
    from klcli.report.tables.reproductions import reproduction_notes, reproduction_table

    try:
        found = stored_reproduction(store, number)
    except KlcliError as error:
        return Section(f"Reproduction, study {number}", [Notes([str(error)], is_warning=True)])
    marks = found.terms.marks
    drawn = [Picture(words, "svg", content) for _, words, content in pictures(found, store.runs.epochs, "svg")]
    notes = reproduction_notes(found.report, found.comparisons, found.terms)[len(marks) :]
    table = reproduction_table(found.report, found.comparisons, found.terms)
    warnings = [Notes(marks, is_warning=True)] if marks else []
    title = f"Reproduction of {found.report.name}, study {', '.join(map(str, found.studies))}"
    return Section(title, [*warnings, table, Notes(notes), *drawn])


def _gradients(session: Invocation, store: "Store") -> "Section":
    """The latest gradient check, all of its tensors in one table."""
    from klcli.report.page.page import Notes, Section
    from klcli.report.tables.gradient_checks import suite_table
    from klcli.report.tables.table import gradient_method, gradient_verdict
    from klcli.report.views import View

    checks = store.gradient_checks.suite()
    pictures = _pictures(session, store, View(None, [], {}), ("gradients",), None)
    words = Notes(
        [gradient_verdict(checks), gradient_method(checks[0])], is_warning=not all(c["passed"] for c in checks)
    )
    return Section("Gradient check", [words, *pictures, suite_table(checks)])


def _runs(store: "Store", selection: Selection) -> "Section":
    """All runs in all states, and each with its settings and the command that repeats it."""
    from klcli.report.page.page import Details, Notes, Section
    from klcli.report.tables.runs import comparison_table
    from klcli.report.tables.table import network_name
    from klcli.report.views import view

    limit = min(selection.limit or LISTED, LISTED)
    listed = view(store, replace(selection, list_all=True, limit=limit, images_of=None, sort=None))
    parts: list[Part] = [listed.table] if listed.table is not None else []
    total = sum(store.runs.count_by_state().values())
    if total > len(listed.runs):
        parts.append(Notes([f"{len(listed.runs)} of {total} runs are listed: `klcli report --list` shows all."]))
    for run in listed.runs:
        accuracy = f", validation {run['validation_accuracy']:.4f}" if run["validation_accuracy"] is not None else ""
        summary = f"Run {run['id']}: {network_name(run)} on {run['dataset']}, {run['state']}{accuracy}"
        table = comparison_table([run], diff_only=False, evaluations=store.evaluations.of_runs([run["id"]]))
        parts.append(Details(summary, run["command"], table))
    return Section("Runs", parts)


def _pictures(
    session: Invocation, store: "Store", view: "View", kinds: "list[str] | tuple[str, ...]", data: str | None
) -> "list[Picture]":
    """The pictures that can be drawn; for one that cannot, a word on stderr why."""
    from klcli.report.page.page import Picture
    from klcli.report.pictures import Painter

    drawn = []
    for kind in kinds:
        suffix = "png" if kind in ("weights", "confusion") else "svg"
        try:
            drawn += [
                Picture(stem.replace("-", " "), suffix, content)
                for stem, content in Painter(store, view, data, suffix).draw(kind)
            ]
        except KlcliError as error:
            if kind != "bn":  # most sets of runs have no such pair
                session.say(f"no picture of {kind}: {error}")
    return drawn
