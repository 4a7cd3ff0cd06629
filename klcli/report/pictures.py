"""The pictures of `klcli report`, each kind from its own module in report/plots."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from klcli.data.dataset import Dataset, split
from klcli.errors import ConfigError
from klcli.evaluation.bn_statistics import for_split
from klcli.evaluation.metrics import confusion, predict
from klcli.files import followed
from klcli.procedures.run_lookup import images_of, trained_networks
from klcli.procedures.searches import stored_search
from klcli.published.quirks import OWN_STATISTICS, by_itself
from klcli.published.reproduction import KIND, stored_reproduction
from klcli.report.plots import curves
from klcli.report.plots.chart import COLOURS, SCREEN, Chart, Look
from klcli.report.plots.reproductions import pictures as figures
from klcli.report.plots.studies import gradient_errors, lambda_search, sigma_curves
from klcli.report.views import View
from klcli.settings.run_command import in_database
from klcli.settings.selection import OF_GRADIENTS, SINGLE, Selection
from klcli.settings.setting import require
from klcli.store.records import Run, Study
from klcli.store.store import Store
from klcli.training.environment import pin_threads
from klcli.training.networks import WHITENING

Drawing = Callable[[str, Look], bytes]  # returns a file with this suffix
Named = tuple[str, Callable[[], Chart]]  # the stem of a file, and the function that gathers its chart
NAMED_RUNS = 20  # in the name of a file, which may have 255 characters, with its folder on Windows 259
MOST_CURVES = 100  # in one picture, each of a setting; of several splits, a setting has nothing but its colour


def planned(store: Store, view: View, selection: Selection, data: str | None) -> list[tuple[Path, Callable[[], bytes]]]:
    """Return the paths of the selected pictures and what draws them. Raises ConfigError if the view has no such.

    `--to` is the path of one picture; of several, each gets its own name after it: `figure-run-000007-rate.png`.
    """
    painter, look = Painter(store, data, selection.split), Look(selection.width, title=not selection.no_title)
    found = [named for kind in dict.fromkeys(selection.plot) for named in painter.planned(view, kind)]
    paths = [store.folder("plots") / f"{stem}.png" for stem, _ in found]
    if (to := selection.to) is not None:
        paths = [followed(to) if len(found) == 1 else to.with_stem(f"{to.stem}-{stem}") for stem, _ in found]
    pairs = zip(paths, found, strict=True)
    return [(path, partial(drawing, path.suffix[1:].lower(), look)) for path, (_, drawing) in pairs]


def draw(chart: Callable[[], Chart], suffix: str, look: Look = SCREEN) -> bytes:
    """Gather a chart and draw it, which is when matplotlib is imported."""
    from klcli.report.plots import figure

    return figure.draw(chart(), suffix, look)


class Painter:
    """Draws pictures of a view, and caches opened images: `data` names images that a run had in another place."""

    def __init__(self, store: Store, data: str | None, splits: Sequence[str] = ()) -> None:
        self._store, self._data, self._splits = store, data, splits
        self._datasets: dict[str, Dataset] = {}
        self._most = MOST_CURVES if len(splits) < 2 else len(COLOURS)

    def planned(self, view: View, kind: str) -> list[tuple[str, Drawing]]:
        """Return pictures of one kind with the stems of their files. Raises ConfigError if the view has none."""
        end = "".join(f"-{split}" for split in self._splits)
        if kind == OF_GRADIENTS:
            checks = self._store.gradient_checks.suite()
            first = in_database("klcli gradcheck", self._store.path)
            require(bool(checks), f"--plot {kind}: there is no gradient check yet, begin with `{first}`")
            return [(f"gradcheck-{checks[0].suite:06d}", partial(draw, lambda: gradient_errors(checks)))]
        every = in_database("klcli report --list", self._store.path)
        require(bool(view.runs), f"--plot {kind}: there is no run to draw, `{every}` shows all")
        if kind in SINGLE:
            return [(f"{_stem([run])}-{kind}{end}", self._of_run(run, kind)) for run in _single(view, kind)]
        runs = [*view.runs, *(self._final(view.study) if view.study and kind == "training" else ())]
        is_measured = "test" not in self._splits or any(run.test_accuracy is not None for run in runs)
        require(is_measured, f"--plot {kind} --split test: none of these runs was evaluated on the test set")
        found = self._of_study(view, view.study, kind) if view.study else self._of_runs(view, kind)
        return [(f"{stem}{end}", partial(draw, gather)) for stem, gather in found]

    def _of_runs(self, view: View, kind: str) -> list[Named]:
        runs = view.runs
        if kind == "training":
            return self._training(_single(view, kind))
        if kind == "curves":
            n = len(curves.repeats(runs))
            cure = "give --limit or --run" + ", or one --split" * (len(self._splits) > 1)
            require(n <= self._most, f"--plot curves: {n} settings do not fit into one picture, {cure}")
            return self._curves(runs)
        found: list[Sequence[Sequence[Run]]] = []
        if view.is_chosen and len(runs) > 2:
            both = [[run for run in runs if run.config.batch_norm is is_bn] for is_bn in (False, True)]
            found = [both] if len(curves.repeats(runs)) == 2 and curves.bn_pairs(runs) else []
        elif pair := curves.bn_pair([run for run in runs if run.epochs_done]):
            found = [(pair[:1], pair[1:])]
        what = "one run without and one with BN of the same widths on the same images, name exactly two with --run"
        require(bool(found), f"--plot bn: needs {what}, or the repeats of both, whose other settings are equal")
        return [self._bn(*found[0])]

    def _of_study(self, view: View, study: Study, kind: str) -> list[Named]:
        """Return the pictures of a study. Raises ConfigError, which names the kinds that it has."""
        of_kind = self._kinds(study, view.runs)
        if found := of_kind[kind]():
            return found
        others = ", ".join(other for other, gather in of_kind.items() if gather())
        unfinished = "" if any(run.state == "complete" for run in view.runs) else ", without a complete run"
        each = " of each split" * (len(self._splits) > 1)
        many = f", with more than {self._most} curves{each}" if kind == "curves" and not unfinished else ""
        wait = "wait for its end or, if its process has ended, " * (study.state == "running")
        cure = f"choose one of {others}" if others else f"{wait}repeat its command with --resume"
        stage = f" ({study.stage})" if study.stage else ""
        words = {
            "lambda": f"a lambda search{stage}",
            "sigma": "a sigma sweep",
            KIND: f"a reproduction of {study.stage}",
        }
        what = words.get(study.kind, study.kind)
        raise ConfigError(f"--plot {kind}: study {study.id} is {what}{unfinished}{many}; {cure}")

    def _kinds(self, study: Study, runs: Sequence[Run]) -> dict[str, Callable[[], list[Named]]]:
        """Return the kinds of pictures of a study, each with a function that finds those that it has."""
        found = stored_reproduction(self._store, study.id) if study.kind == KIND else None
        if found is not None:
            every = (run for many in found.evidence.runs.values() for run in many)
            runs = sorted((run for run in every if run.state == "complete"), key=lambda run: run.id)
        evaluated = [run for run in runs if run.config.evaluations_per_cycle != 0]

        def published(kind: str) -> list[Named]:
            if found is None:
                return []
            own = figures(found, self._store.runs.epochs, kind, self._splits)
            return [(f"study-{max(found.studies):06d}-{name}", chart) for name, _, chart in own]

        sweep: list[Named] = [(f"study-{study.id:06d}-sigma", partial(self._gathered, sigma_curves, runs))]
        return {
            "curves": lambda: self._curves(runs) if 0 < len(curves.repeats(runs)) <= self._most else [],
            "training": lambda: published("training") or self._training(self._final(study) or evaluated),
            "bn": lambda: published("bn") or [self._bn(*pair) for pair in curves.bn_pairs(evaluated)],
            "lambda": lambda: published("lambda") or self._search(study),
            "sigma": lambda: published("sigma") or sweep * (study.kind == "sigma"),
        }

    def _final(self, study: Study) -> list[Run]:
        """Return the runs of the latest final training with the lambda that a search has chosen."""
        finals = [one for one in self._store.studies.all() if (one.kind, one.stage) == ("lambda", "final")]
        own = [one for one in finals if study.id in (step.id for step in self._store.studies.chain(one.id))]
        return [run for one in own[-1:] for run in self._store.studies.members(one.id) if not run.unreadable]

    def _search(self, study: Study) -> list[Named]:
        number = study.parent if study.stage == "final" and study.parent is not None else study.id
        found = stored_search(self._store, number) if study.kind == "lambda" else None
        if found is None or (choice := found.choice) is None:
            return []
        return [(f"study-{number:06d}-lambda", lambda: lambda_search(found.stages, choice, *self._splits[:1]))]

    def _gathered(self, gather: Callable[..., Chart], *groups: Sequence[Run]) -> Chart:
        return gather(*groups, {run.id: self._store.runs.epochs(run.id) for own in groups for run in own}, self._splits)

    def _training(self, runs: Sequence[Run]) -> list[Named]:
        """Return a picture of each setting, with a band over its repeats; each range test has one of its own."""
        groups = list[Sequence[Run]]()
        for own in curves.repeats(runs):
            groups += [[run] for run in own] if own[0].config.schedule == "range" else [own]
        return [(f"{_stem(own)}-training", partial(self._gathered, curves.training_curves, own)) for own in groups]

    def _curves(self, runs: Sequence[Run]) -> list[Named]:
        gather = curves.overlay if len(runs) > 1 else curves.training_curves
        return [(f"{_stem(runs)}-curves", partial(self._gathered, gather, runs))]

    def _bn(self, without: Sequence[Run], with_bn: Sequence[Run]) -> Named:
        return f"{_stem([*without, *with_bn])}-bn", partial(self._gathered, curves.bn_overlay, without, with_bn)

    def _of_run(self, run: Run, kind: str) -> Drawing:
        if kind == "rate":
            return partial(draw, lambda: curves.learning_rate_curve(run, self._store.runs.epochs(run.id)))
        if run.checkpoint is None:
            self._store.runs.checkpoint(run)  # raises the message with the cure
        return partial(self._weights if kind == "weights" else self._confusion, run)

    def _weights(self, run: Run, suffix: str, look: Look) -> bytes:
        from klcli.report.plots.networks import draw_weights

        state = self._store.runs.checkpoint(run).state
        W = state["linear1.W"]
        return draw_weights(run, state[WHITENING] @ W if WHITENING in state else W, suffix, look)

    def _confusion(self, run: Run, suffix: str, look: Look) -> bytes:
        from klcli.report.plots.networks import draw_confusion

        [on, *_] = self._splits or ("test",)
        [trained] = trained_networks(self._store, run)
        if (dataset := self._datasets.get(run.dataset_sha256)) is None:
            dataset = self._datasets[run.dataset_sha256] = images_of(run, self._data, f"run {run.id}")
        with pin_threads(run.threads):
            images = getattr(split(dataset, run.split).standardised(run.config.standardise), on)
            if run.study_id and OWN_STATISTICS in self._store.studies.get(run.study_id).settings.get("quirks", ()):
                images = by_itself(images)
            network = for_split(trained.network, images, trained.config.bn_statistics, run.config.dtype)
            counts = confusion(images.labels, predict(network, images, run.config.dtype))
        evaluated = replace(run, config_json=trained.config.to_json())  # before the last update, with running averages
        return draw_confusion(evaluated, counts, dataset.class_names, suffix, look, on)


def _single(view: View, kind: str) -> Sequence[Run]:
    runs = view.runs[: 1 if view.is_default else None]
    several = f"--plot {kind}: draws one run and there are {len(runs)} here, name some with --run"
    is_one = len(curves.repeats(runs) if kind == "training" else runs) == 1
    require(is_one or view.is_chosen, several)
    return runs


def _stem(runs: Sequence[Run]) -> str:
    """`run-000007`, `run-000007-000009`, or for very many `run-000007-to-000930-n120`, in the order of the runs."""
    numbers = [f"{run.id:06d}" for run in runs]
    many = f"{min(numbers)}-to-{max(numbers)}-n{len(numbers)}"
    return f"run-{many if len(numbers) > NAMED_RUNS else '-'.join(numbers)}"
