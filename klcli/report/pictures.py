"""The pictures of `klcli report`, each kind from its own module in report/plots."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from klcli.data.dataset import Dataset, split
from klcli.errors import ConfigError
from klcli.evaluation.confusion import confusion, predict
from klcli.procedures.run_lookup import images_of, trained_networks
from klcli.procedures.searches import stored_search
from klcli.report.plots import figure
from klcli.report.plots.comparison import bn_overlay, bn_pair, validation_overlay
from klcli.report.plots.confusion import draw_confusion
from klcli.report.plots.gradient_checks import gradient_errors
from klcli.report.plots.studies import lambda_search, sigma_curves
from klcli.report.plots.training import learning_rate_curve, training_curves
from klcli.report.plots.weights import draw_weights
from klcli.report.views import View, latest_study
from klcli.store.records import Epoch, Run
from klcli.store.store import Store
from klcli.training.environment import pin_threads
from klcli.training.networks import WHITENING

Named = tuple[str, figure.Chart]  # the stem of the file, and the chart or picture file
SUFFIXES = ("png", "svg", "pdf")
SHOWN_RUNS = 4  # in the name of a file
KINDS = ("curves", "bn", "rate", "weights", "confusion", "lambda", "sigma", "gradients")


def draw(store: Store, view: View, kinds: Sequence[str], to: Path | None, data: str | None) -> list[tuple[Path, bytes]]:
    """Return the pictures of these kinds with their paths."""
    suffix = "png" if to is None else to.suffix.removeprefix(".").lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"--to {to}: the name must end in {', '.join('.' + one for one in SUFFIXES)}")
    painter = Painter(store, data)
    drawn = [picture for kind in kinds for picture in painter.draw(view, kind, suffix)]
    if to is not None and len(drawn) > 1:
        raise ConfigError(f"--to {to}: {len(drawn)} pictures cannot have one name, choose one kind and one run")
    return [(to or store.folder("plots") / f"{stem}.{suffix}", content) for stem, content in drawn]


class Painter:
    """Draws pictures of a view, and caches opened images: `data` names images that a run had in another place."""

    def __init__(self, store: Store, data: str | None) -> None:
        self._store, self._data = store, data
        self._datasets: dict[str, Dataset] = {}

    def draw(self, view: View, kind: str, suffix: str) -> Iterator[tuple[str, bytes]]:
        """Yield pictures of one kind with the stems of their files, or one per run chosen by number.

        Raises ConfigError for an unknown kind or a view without such data, DataError for missing images.
        """
        if kind not in KINDS:
            raise ConfigError(f"--plot {kind}: choose from {', '.join(KINDS)}")
        if kind in ("lambda", "sigma"):
            name, chart = self._study(view, kind)
        elif kind == "gradients":
            checks = self._store.gradient_checks.suite()
            if not checks:
                raise ConfigError("--plot gradients: there is no gradient check yet, begin with `klcli gradcheck`")
            name, chart = f"gradcheck-{checks[0].suite:06d}", gradient_errors(checks)
        elif not view.runs:
            raise ConfigError(f"--plot {kind}: there is no run to draw, `klcli report --list` shows all")
        elif kind in ("curves", "bn"):
            name, chart = self._together(view.runs, kind)
        else:
            for run in view.runs if view.is_chosen else view.runs[:1]:
                yield f"{stem([run])}-{kind}", self._of_run(run, kind, suffix)
            return
        yield name, figure.draw(chart, suffix)

    def _epochs(self, runs: Sequence[Run]) -> dict[int, list[Epoch]]:
        return {run.id: self._store.runs.epochs(run.id) for run in runs}

    def _together(self, runs: Sequence[Run], kind: str) -> Named:
        if kind == "bn":
            pair = bn_pair([run for run in runs if run.epochs_done])
            if pair is None:
                what = "one run without and one with BN of the same widths on the same images"
                raise ConfigError(f"--plot bn: needs {what}, name them with --run")
            runs, chart = pair, bn_overlay(*pair, self._epochs(pair))
        elif len(runs) > 1:
            chart = validation_overlay(runs, self._epochs(runs))
        else:
            chart = training_curves(runs[0], self._store.runs.epochs(runs[0].id))
        return f"{stem(runs)}-{kind}", chart

    def _of_run(self, run: Run, kind: str, suffix: str) -> bytes:
        if kind == "rate":
            return figure.draw(learning_rate_curve(run, self._store.runs.epochs(run.id)), suffix)
        if kind == "weights":
            state = self._store.runs.checkpoint(run).state
            W = state["linear1.W"]
            return draw_weights(run, state[WHITENING] @ W if WHITENING in state else W, suffix)
        [trained] = trained_networks(self._store, run)
        if run.dataset_sha256 not in self._datasets:
            data = None if run.dataset == "synthetic" else self._data  # else --data names its images
            self._datasets[run.dataset_sha256] = images_of(run, data, f"run {run.id}")
        dataset = self._datasets[run.dataset_sha256]
        with pin_threads(run.threads):
            test = split(dataset, run.split).test.standardised(run.config.standardise)
            counts = confusion(test.labels, predict(trained.network, test, run.config.dtype))
        return draw_confusion(run, counts, dataset.class_names, suffix)

    def _study(self, view: View, kind: str) -> Named:
        study = view.study
        if study is not None and (study.kind != kind or study.stage == "final"):
            raise ConfigError(f"--plot {kind}: study {study.id} is of another kind, {study.kind} {study.stage}")
        number = study.id if study else latest_study(self._store, kind)
        name = f"study-{number:06d}-{kind}"
        if kind == "sigma":
            runs = self._store.studies.members(number)
            return name, sigma_curves(runs, self._epochs(runs))
        found = stored_search(self._store, number)
        if found.choice is None:
            raise ConfigError(f"--plot lambda: no run of study {number} is complete")
        return name, lambda_search(found.stages, found.choice)


def stem(runs: Sequence[Run]) -> str:
    """`run-000007`, `runs-000007-000009`, or for many `runs-000007-to-000030-n12`: names in the order of the runs."""
    numbers = [f"{run.id:06d}" for run in runs]
    if len(numbers) > SHOWN_RUNS:
        return f"runs-{min(numbers)}-to-{max(numbers)}-n{len(numbers)}"
    return f"run{'s' if len(numbers) > 1 else ''}-{'-'.join(numbers)}"
