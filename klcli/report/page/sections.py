"""`klcli report --html`: the content of the database as the sections of one page."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from klcli.errors import KlcliError
from klcli.procedures.searches import stored_search
from klcli.published.reproduction import KIND, reproductions, stored_reproduction
from klcli.report import views
from klcli.report.page import page
from klcli.report.page.page import Markup, Section
from klcli.report.pictures import Painter, draw
from klcli.report.plots.chart import SCREEN
from klcli.report.plots.reproductions import pictures as reproduction_pictures
from klcli.report.tables.groups import group, group_notes, group_table, varying
from klcli.report.tables.later_checks import evaluations_table
from klcli.report.tables.reproductions import reproduction_notes, reproduction_table
from klcli.report.tables.runs import comparison_table, summary_table
from klcli.report.views import View, view
from klcli.report.words import counted, image_sets_words, images_words, numbered, run_title
from klcli.settings.run_command import in_database
from klcli.settings.selection import OF_STUDIES, Selection
from klcli.store.records import NEWEST_FIRST, ImageSet, Run, RunFilter, RunResult, Study
from klcli.store.store import Store

BEST = 10  # rows of a ranking
DRAWN = 3  # sets of images with pictures, those of all images before those of quick trials
TOGETHER = 6  # settings in one picture,
SEEDS = 20  # each with a band over its seeds
GROUPS = 100  # rows of means over seeds
LISTED = 200  # runs listed with their settings; a phone cannot open a page with thousands
PIXELS = ("confusion", "weights")  # kinds of pictures that are large as SVG


class Sections:
    """The sections of a page about the runs of a selection; with --run, about these runs alone."""

    def __init__(self, store: Store, selection: Selection, data: str | None, say: Callable[[str], None]) -> None:
        """`data` names the images for confusion matrices; `say` is called with the reason for each missing picture."""
        self._chosen = view(store, replace(selection, html=None)) if selection.runs else None
        if self._chosen is not None:
            own = f"id IN ({', '.join(str(run.id) for run in self._chosen.runs)})"
            selection = replace(selection, runs=(), diff_only=False, where=own)
        self._store, self._selection, self._say = store, selection, say
        self._painter = Painter(store, data)
        self._conditions = views.conditions(store, selection)
        found = views.image_sets(store, self._conditions)
        self._image_sets = [one for one in found if one.is_called(selection.dataset)]
        self._said: set[str] = set()  # reasons for missing pictures
        self._studies = self._studies_of(selection) if self._chosen is None else []

    def __len__(self) -> int:
        """The approximate number of sections."""
        return len(self._image_sets) + len(self._studies) + 2

    def __iter__(self) -> Iterator[Section]:
        if best := {images: run for images in self._image_sets for run in self._of_images(images, best=1).runs}:
            yield Section("Summary", [page.table(summary_table(list(best), list(best.values())))])
        if self._chosen is not None:
            yield Section("Side by side", list(_shown(self._chosen)))
        for number, name in enumerate(image_sets_words(self._image_sets)):
            yield Section(name, list(self._images(self._image_sets[number], is_drawn=number < DRAWN)))
        every = {one.id for one in self._studies}
        yield from map(self._reproduction, [number for number in reproductions(self._store) if number in every])
        studies = sorted((one for one in self._studies if one.kind != KIND), key=views.is_on_all_images, reverse=True)
        stages = [one.id for one in studies if one.kind == "lambda" and one.stage != "final"]
        # A fine stage shows its coarse one, if both are on the same validation images.
        shown = {number for stage in stages for number in stored_search(self._store, stage).studies[:-1]}
        for study in (study for study in studies if study.id not in shown):
            yield Section(f"Study {study.id}: {study.kind} {study.stage or ''}".rstrip(), list(self._study(study)))
        if self._chosen is None and self._store.gradient_checks.suite():
            yield Section("Gradient check", list(self._gradients()))
        yield Section("Runs", list(self._runs()))

    def _studies_of(self, selection: Selection) -> list[Study]:
        """Return all studies, or under a filter those with a run that it keeps, in any state."""
        every, asked = self._store.studies.all(), replace(self._conditions, state=None)
        if asked == RunFilter() and selection.dataset is None:
            return every
        images = {one.dataset_sha256 for one in self._image_sets}
        runs = self._store.runs.each(asked, NEWEST_FIRST)
        kept = {run.study_id for run in runs if selection.dataset is None or run.dataset_sha256 in images}
        return [one for one in every if one.id in kept]

    def _of_images(self, images: ImageSet, best: int) -> View:
        own = replace(self._selection, images_of=str(images.latest), dataset=None, html=None, best=best)
        return view(self._store, own)

    def _images(self, images: ImageSet, is_drawn: bool) -> Iterator[Markup]:
        everything, _ = self._store.runs.results(own := self._conditions.on_images_of(images))
        if images.dataset == "synthetic":
            yield page.notes(["Synthetic images: these results say nothing about CIFAR-10."], is_warning=True)
        yield from _shown(ranking := self._of_images(images, best=BEST))
        if not everything:
            return
        groups, repeated = group(everything, by := varying(everything))
        # A single seed is already in the ranking.
        if several := [one for one in groups if len(one.runs) > 1][:GROUPS]:
            yield page.table(group_table(several, by))
            yield page.notes(group_notes(several, by, repeated) + views.diverged_note(self._store, own))
        if evaluations := self._store.evaluations.of_runs([run.id for run in everything]):
            title = f"Stored networks, evaluated again, on {images_words(images)}"
            yield page.table(evaluations_table(title, evaluations))
        if not is_drawn:
            its = self._selection.command(best=TOGETHER, dataset=None, images_of=images.latest)
            which = in_database(f"{its} --plot curves", self._store.path)
            yield page.notes([f"The page has pictures of {DRAWN} sets of images; `{which}` draws these."])
            return
        evaluated = [one for one in groups if _has_curves(one.runs[0])]
        top = [self._store.runs.get(run.id) for one in evaluated[:TOGETHER] for run in one.runs[:SEEDS]]
        if len(top) > 1:
            yield from self._pictures(View(runs=top), "curves", "bn")
        for run in [run for run in [*ranking.runs, *top] if _has_curves(run)][:1]:
            yield from self._pictures(View(runs=[run]), "curves")
        yield from self._pictures(View(runs=ranking.runs[:1]), *PIXELS)

    def _study(self, study: Study) -> Iterator[Markup]:
        yield from _shown(found := views.study_view(self._store, study.id))
        if found.runs:
            is_own = study.kind in OF_STUDIES and study.stage != "final"
            yield from self._pictures(found, study.kind if is_own else "training")

    def _reproduction(self, number: int) -> Section:
        try:
            found = stored_reproduction(self._store, number)
        except KlcliError as error:
            return Section(f"Reproduction, study {number}", [page.notes([str(error)], is_warning=True)])
        marks, table = found.terms.marks, page.table(reproduction_table(found))
        parts = [page.notes(marks, is_warning=True), table, page.notes(reproduction_notes(found)[len(marks) :])]
        for name, words, chart in reproduction_pictures(found, self._store.runs.epochs):
            with self._missing(name):
                parts.append(page.picture(words, "svg", draw(chart, "svg")))
        return Section(f"Reproduction of {found.report.name}, {numbered('study', found.studies)}", parts)

    def _gradients(self) -> Iterator[Markup]:
        found = views.gradients_view(self._store, self._store.gradient_checks.suite())
        yield page.notes(found.notes, is_warning=not all(check["passed"] for check in found.document["checks"]))
        yield from self._pictures(found, "gradients")
        yield from _shown(replace(found, tables=(), notes=()))  # the whole one fits

    def _runs(self) -> Iterator[Markup]:
        limit = min(self._selection.limit or LISTED, LISTED)
        listed = view(self._store, replace(self._selection, list_all=True, limit=limit, html=None))
        partial = {run.id for run in listed.runs if run.split.is_trial}
        runs = sorted(listed.runs, key=lambda run: run.id in partial)  # those on all images before quick trials
        n, total = len(runs), sum(self._store.runs.count_by_state().values())
        command = in_database(f"klcli report --list --limit {total}", self._store.path)
        more = f"{n} of {total} runs are listed: `{command}` shows all."
        if (table := listed.table) is not None:
            table = replace(table, rows=sorted(table.rows, key=lambda row: row["id"] in partial))
        yield from _shown(replace(listed, table=table, notes=[more] * (total > n)))
        every = []
        for run in runs:
            accuracy = f", validation {run.validation_accuracy:.4f}" if run.validation_accuracy is not None else ""
            summary = f"{run_title('Run', run, f' on {run.dataset}')}, {run.state}{accuracy}"
            evaluations = self._store.evaluations.of_runs([run.id])
            whole = comparison_table([run], diff_only=False, evaluations=evaluations)
            every.append(page.folded(summary, page.element("pre", run.command), page.table(whole, folds=False)))
        if every:
            yield page.folded(f"Settings and command of each of {n} {counted(n, 'run')}", *every)

    def _pictures(self, shown: View, *kinds: str) -> Iterator[Markup]:
        for kind in kinds:
            suffix, planned = "png" if kind in PIXELS else "svg", []
            with self._missing(kind, silent=kind == "bn"):  # most sets of runs have no such pair of runs
                planned = self._painter.planned(shown, kind)
            for stem, drawing in planned:
                with self._missing(kind):
                    yield page.picture(re.sub("-0*", " ", stem), suffix, drawing(suffix, SCREEN))

    @contextmanager
    def _missing(self, kind: str, silent: bool = False) -> Iterator[None]:
        """Say once why a picture is missing and go on: the tables are there."""
        try:
            yield
        except Exception as error:  # a broken matplotlib can raise anything
            known = isinstance(error, KlcliError)
            reason = f"no picture of {kind}: {error}" if known else f"no pictures: {type(error).__name__}: {error}"
            if not (silent and known) and reason not in self._said:
                self._said.add(reason)
                self._say(reason)


def _has_curves(run: Run | RunResult) -> bool:
    """Whether a run is evaluated not only at its end."""
    return run.config.evaluations_per_cycle != 0


def _shown(found: View) -> Iterator[Markup]:
    yield from map(page.table, found.tables or filter(None, [found.table]))
    yield page.notes(found.notes)
