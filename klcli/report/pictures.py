"""The pictures of `klcli report`, each kind from its own module in report/plots."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from klcli.data.dataset import Dataset, split
from klcli.errors import ConfigError
from klcli.evaluation.confusion import confusion, predict
from klcli.procedures.run_lookup import images_of, trained_networks
from klcli.procedures.searches import stored_search
from klcli.report.plots.chart import Chart
from klcli.report.plots.comparison import bn_overlay, bn_pair, validation_overlay
from klcli.report.plots.studies import gradient_errors, lambda_search, sigma_curves
from klcli.report.plots.training import learning_rate_curve, training_curves
from klcli.report.views import View, latest_study
from klcli.settings.selection import OF_GRADIENTS, OF_STUDIES, SINGLE
from klcli.settings.setting import require
from klcli.store.records import Epoch, Run
from klcli.store.store import Store
from klcli.training.environment import pin_threads
from klcli.training.networks import WHITENING

Picture = Callable[[], bytes]  # draws the file
Named = tuple[str, Callable[[], Chart]]  # the stem of a file, and the function that gathers its chart
NAMED_RUNS = 30  # in the name of a file, which may have 255 characters
MOST_CURVES = 100  # runs in one picture


def planned(
    store: Store, view: View, kinds: Sequence[str], to: Path | None, data: str | None
) -> list[tuple[Path, Picture]]:
    """Return the paths of these kinds of pictures and what draws them. Raises ConfigError if the view has no such."""
    suffix = "png" if to is None else to.suffix.removeprefix(".").lower()
    painter = Painter(store, data)
    found = [picture for kind in dict.fromkeys(kinds) for picture in painter.planned(view, kind, suffix)]
    if to is not None and len(found) > 1:
        raise ConfigError(f"--to {to}: {len(found)} pictures cannot have one name, choose one kind and one run")
    return [(to or store.folder("plots") / f"{stem}.{suffix}", picture) for stem, picture in found]


class Painter:
    """Draws pictures of a view, and caches opened images: `data` names images that a run had in another place."""

    def __init__(self, store: Store, data: str | None) -> None:
        self._store, self._data = store, data
        self._datasets: dict[str, Dataset] = {}

    def planned(self, view: View, kind: str, suffix: str) -> list[tuple[str, Picture]]:
        """Return pictures of one kind with the stems of their files. Raises ConfigError if the view has none."""
        if kind in SINGLE:
            return [(f"{_stem([run])}-{kind}", self._of_run(run, kind, suffix)) for run in _single(view, kind)]
        gather = self._study if kind in OF_STUDIES else self._gradients if kind == OF_GRADIENTS else self._together
        name, chart = gather(view, kind)
        return [(name, partial(draw, chart, suffix))]

    def _gradients(self, view: View, kind: str) -> Named:
        checks = self._store.gradient_checks.suite()
        require(bool(checks), f"--plot {kind}: there is no gradient check yet, begin with `klcli gradcheck`")
        return f"gradcheck-{checks[0].suite:06d}", partial(gradient_errors, checks)

    def _epochs(self, runs: Sequence[Run]) -> dict[int, list[Epoch]]:
        return {run.id: self._store.runs.epochs(run.id) for run in runs}

    def _together(self, view: View, kind: str) -> Named:
        runs = _drawn(view, kind)
        if kind == "bn":
            is_named = view.is_chosen or view.study is not None
            pair = bn_pair([run for run in runs if run.epochs_done]) if len(runs) == 2 or not is_named else None
            if pair is None:
                what = "one run without and one with BN of the same widths on the same images"
                raise ConfigError(f"--plot bn: needs {what}, name exactly two with --run")
            return f"{_stem(pair)}-{kind}", lambda: bn_overlay(*pair, self._epochs(pair))
        too_many = f"--plot {kind}: {len(runs)} runs do not fit into one picture, give --limit or --run"
        require(len(runs) <= MOST_CURVES, too_many)
        if len(runs) > 1:
            return f"{_stem(runs)}-{kind}", lambda: validation_overlay(runs, self._epochs(runs))
        return f"{_stem(runs)}-{kind}", lambda: training_curves(runs[0], self._store.runs.epochs(runs[0].id))

    def _of_run(self, run: Run, kind: str, suffix: str) -> Picture:
        if kind == "rate":
            return partial(draw, lambda: learning_rate_curve(run, self._store.runs.epochs(run.id)), suffix)
        if run.checkpoint is None:
            self._store.runs.checkpoint(run)  # raises the message with the cure
        return partial(self._weights if kind == "weights" else self._confusion, run, suffix)

    def _weights(self, run: Run, suffix: str) -> bytes:
        from klcli.report.plots.networks import draw_weights

        state = self._store.runs.checkpoint(run).state
        W = state["linear1.W"]
        return draw_weights(run, state[WHITENING] @ W if WHITENING in state else W, suffix)

    def _confusion(self, run: Run, suffix: str) -> bytes:
        from klcli.report.plots.networks import draw_confusion

        [trained] = trained_networks(self._store, run)
        if (dataset := self._datasets.get(run.dataset_sha256)) is None:
            data = None if run.dataset == "synthetic" else self._data  # else --data names its images
            dataset = self._datasets[run.dataset_sha256] = images_of(run, data, f"run {run.id}")
        with pin_threads(run.threads):
            test = split(dataset, run.split).test.standardised(run.config.standardise)
            counts = confusion(test.labels, predict(trained.network, test, run.config.dtype))
        return draw_confusion(run, counts, dataset.class_names, suffix)

    def _study(self, view: View, kind: str) -> Named:
        if (study := view.study) is not None:
            other = f"--plot {kind}: study {study.id} is of another kind, {study.kind} {study.stage}"
            require(study.kind == kind and study.stage != "final", other)
        number = study.id if study else latest_study(self._store, kind)
        name = f"study-{number:06d}-{kind}"
        if kind == "sigma":
            runs = _drawn(view, kind)
            return name, lambda: sigma_curves(runs, self._epochs(runs))
        found = stored_search(self._store, number)
        if (choice := found.choice) is None:
            raise ConfigError(f"--plot lambda: no run of study {number} is complete")
        return name, lambda: lambda_search(found.stages, choice)


def draw(chart: Callable[[], Chart], suffix: str) -> bytes:
    """Gather a chart and draw it, which is when matplotlib is imported."""
    from klcli.report.plots import figure

    return figure.draw(chart(), suffix)


def _drawn(view: View, kind: str) -> Sequence[Run]:
    require(bool(view.runs), f"--plot {kind}: there is no run to draw, `klcli report --list` shows all")
    return view.runs


def _single(view: View, kind: str) -> Sequence[Run]:
    runs = _drawn(view, kind)[: 1 if view.is_default else None]
    several = f"--plot {kind}: draws one run and there are {len(runs)} here, name some with --run"
    require(len(runs) == 1 or view.is_chosen, several)
    return runs


def _stem(runs: Sequence[Run]) -> str:
    """`run-000007`, `run-000007-000009`, or for very many `run-000007-to-000930-n120`, in the order of the runs."""
    numbers = [f"{run.id:06d}" for run in runs]
    many = f"{min(numbers)}-to-{max(numbers)}-n{len(numbers)}"
    return f"run-{many if len(numbers) > NAMED_RUNS else '-'.join(numbers)}"
