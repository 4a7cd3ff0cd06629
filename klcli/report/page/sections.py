"""`klcli report --html`: the content of the database as the sections of one page."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from klcli.errors import ConfigError, KlcliError
from klcli.published.reproduction import KIND, reproductions, stored_reproduction
from klcli.report.page import page
from klcli.report.page.page import Markup, Section
from klcli.report.pictures import Painter
from klcli.report.plots.reproductions import pictures as reproduction_pictures
from klcli.report.tables.evaluations import evaluations_table
from klcli.report.tables.groups import group, group_notes, group_table, varying
from klcli.report.tables.reproductions import reproduction_notes, reproduction_table
from klcli.report.tables.runs import comparison_table, summary_table
from klcli.report.views import View, conditions, gradients_view, study_view, view
from klcli.report.words import images_words, network_name
from klcli.settings.selection import Selection
from klcli.store.records import ImageSet, Study
from klcli.store.store import Store

BEST = 10  # rows of a ranking
CURVES = 4  # runs of each set of images whose curves are drawn
TOGETHER = 6  # settings in one picture,
SEEDS = 20  # each with a band over its seeds
LISTED = 200  # runs listed with their settings; a phone cannot open a page with thousands
PIXELS = ("confusion", "weights")  # kinds of pictures that are large as SVG


class Sections:
    """The sections of a page about the runs of a selection."""

    def __init__(self, store: Store, selection: Selection, data: str | None, say: Callable[[str], None]) -> None:
        """`data` names the images for confusion matrices; `say` is called with the reason for each missing picture.

        Raises ConfigError for a selection of a single view.
        """
        if selection.has_view:
            raise ConfigError("--html: shows all views, it takes filters like --bn or --since but no view")
        self._store, self._selection, self._say = store, selection, say
        self._painter = Painter(store, data)
        self._image_sets = store.runs.image_sets(conditions(selection))
        self._studies = store.studies.all()

    def __len__(self) -> int:
        """The approximate number of sections, for the progress bar."""
        return len(self._image_sets) + len(self._studies) + 2

    def __iter__(self) -> Iterator[Section]:
        """Yield the sections in order; each may take seconds."""
        if self._image_sets:
            best = [self._of_images(images, best=1).runs[0] for images in self._image_sets]
            yield Section("Summary", [page.table(summary_table(self._image_sets, best))])
        for images in self._image_sets:
            yield Section(images_words(images), list(self._images(images)))
        for number in reproductions(self._store):
            yield self._reproduction(number)
        studies = [study for study in self._studies if study.kind != KIND]
        refined = {study.parent for study in studies if study.stage != "final"}
        for study in (study for study in studies if study.id not in refined):  # a fine stage includes its coarse stage
            yield Section(f"Study {study.id}: {study.kind} {study.stage or ''}".rstrip(), list(self._study(study)))
        if self._store.gradient_checks.suites():
            yield Section("Gradient check", list(self._gradients()))
        yield Section("Runs", list(self._runs()))

    def _of_images(self, images: ImageSet, best: int) -> View:
        return view(self._store, replace(self._selection, best=best, images_of=images.latest, dataset=None))

    def _images(self, images: ImageSet) -> Iterator[Markup]:
        everything = self._of_images(images, best=10**9).runs
        if images.dataset == "synthetic":
            yield page.notes(["Synthetic images: these results say nothing about CIFAR-10."], is_warning=True)
        yield from _shown(self._of_images(images, best=BEST))
        columns = varying(everything)
        groups, repeated = group(everything, columns)
        several = [one for one in groups if len(one.runs) > 1]  # a single seed is already in the ranking
        if several:
            yield page.table(group_table(several, columns))
            yield page.notes(group_notes(several, columns, repeated))
        evaluations = self._store.evaluations.of_runs([run.id for run in everything])
        if evaluations:
            yield page.table(evaluations_table("Stored networks, evaluated again", evaluations))
        if len(everything) > 1:
            top = View(runs=[run for one in groups[:TOGETHER] for run in one.runs[:SEEDS]])
            yield from self._pictures(top, "curves", "bn")
        for run in everything[:CURVES]:
            yield from self._pictures(View(runs=[run]), "curves")
        yield from self._pictures(View(runs=everything[:1]), *PIXELS)

    def _study(self, study: Study) -> Iterator[Markup]:
        yield from _shown(found := study_view(self._store, study.id))
        if found.runs and study.stage != "final":
            yield from self._pictures(found, study.kind if study.kind in ("lambda", "sigma") else "curves")

    def _reproduction(self, number: int) -> Section:
        try:
            found = stored_reproduction(self._store, number)
        except KlcliError as error:
            return Section(f"Reproduction, study {number}", [page.notes([str(error)], is_warning=True)])
        compared, marks = (found.report, found.comparisons, found.terms), found.terms.marks
        parts: list[Markup] = [page.notes(marks, is_warning=True)] if marks else []
        parts += [page.table(reproduction_table(*compared)), page.notes(reproduction_notes(*compared)[len(marks) :])]
        drawn = reproduction_pictures(found, self._store.runs.epochs, "svg")
        parts += [page.picture(words, "svg", content) for _, words, content in drawn]
        return Section(f"Reproduction of {found.report.name}, study {', '.join(map(str, found.studies))}", parts)

    def _gradients(self) -> Iterator[Markup]:
        found = gradients_view(self._store)
        yield page.notes(found.notes, is_warning=not all(check["passed"] for check in found.document["checks"]))
        yield from self._pictures(found, "gradients")
        yield from _shown(replace(found, notes=()))

    def _runs(self) -> Iterator[Markup]:
        limit = min(self._selection.limit or LISTED, LISTED)
        listed = view(self._store, replace(self._selection, list_all=True, limit=limit, images_of=None, sort=None))
        total = sum(self._store.runs.count_by_state().values())
        more = f"{len(listed.runs)} of {total} runs are listed: `klcli report --list` shows all."
        yield from _shown(replace(listed, notes=[more] if total > len(listed.runs) else []))
        for run in listed.runs:
            accuracy = f", validation {run.validation_accuracy:.4f}" if run.validation_accuracy is not None else ""
            summary = f"Run {run.id}: {network_name(run.config)} on {run.dataset}, {run.state}{accuracy}"
            evaluations = self._store.evaluations.of_runs([run.id])
            yield page.details(summary, run.command, comparison_table([run], diff_only=False, evaluations=evaluations))

    def _pictures(self, shown: View, *kinds: str) -> Iterator[Markup]:
        for kind in kinds:
            suffix = "png" if kind in PIXELS else "svg"
            try:
                for stem, content in self._painter.draw(shown, kind, suffix):
                    yield page.picture(stem.replace("-", " "), suffix, content)
            except KlcliError as error:
                if kind != "bn":  # most sets of runs have no such pair of runs
                    self._say(f"no picture of {kind}: {error}")


def _shown(found: View) -> Iterator[Markup]:
    if found.table is not None:
        yield page.table(found.table)
    yield page.notes(found.notes)
