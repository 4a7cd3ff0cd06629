"""Pictures of what `klcli report` shows, each kind from its own module of report/plots."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from klcli.errors import ConfigError
from klcli.report.views import View, latest_study
from klcli.store.records import Epoch, Run
from klcli.store.store import Store

if TYPE_CHECKING:
    from klcli.data.dataset import Dataset

Drawn = tuple[str, bytes]  # the stem of its file, and the picture
SUFFIXES = ("png", "svg", "pdf")
SHOWN_RUNS = 4  # in the name of a file


def draw(store: Store, view: View, kinds: Sequence[str], to: Path | None, data: str | None) -> list[tuple[Path, bytes]]:
    """Return the pictures of these kinds with the paths of their files."""
    suffix = "png" if to is None else to.suffix.removeprefix(".").lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"--to {to}: the name must end in {', '.join('.' + one for one in SUFFIXES)}")
    painter = Painter(store, data)
    drawn = [picture for kind in kinds for picture in painter.draw(view, kind, suffix)]
    if to is not None and len(drawn) > 1:
        raise ConfigError(f"--to {to}: {len(drawn)} pictures cannot have one name, choose one kind and one run")
    return [(to or store.folder("plots") / f"{stem}.{suffix}", content) for stem, content in drawn]


class Painter:
    """Draws what a view shows, and keeps the images that it has opened."""

    def __init__(self, store: Store, data: str | None) -> None:
        """`data` names the images, where they are not where a run found them."""
        self._store = store
        self._data = data
        self._datasets: dict[str, Dataset] = {}

    def draw(self, view: View, kind: str, suffix: str) -> Iterator[Drawn]:
        """Draw one kind of picture; those of single runs once per run that was asked for by number.

        Raises ConfigError for an unknown kind and where there is nothing to draw, DataError for missing images.
        """
        of_runs: dict[str, Callable[[list[Run], str], Drawn]] = {"curves": self._curves, "bn": self._bn}
        of_one_run: dict[str, Callable[[Run, str], Drawn]] = {
            "rate": self._rate,
            "weights": self._weights,
            "confusion": self._confusion,
        }
        of_studies: dict[str, Callable[[int, str], Drawn]] = {"lambda": self._lambda, "sigma": self._sigma}
        if kind in of_studies:
            yield of_studies[kind](self._study(view, kind), suffix)
        elif kind == "gradients":
            yield self._gradients(suffix)
        elif kind not in of_runs and kind not in of_one_run:
            known = (*of_runs, *of_one_run, *of_studies, "gradients")
            raise ConfigError(f"--plot {kind}: choose from {', '.join(known)}")
        elif not view.runs:
            raise ConfigError(f"--plot {kind}: there is no run to draw, `klcli report --list` shows all")
        elif kind in of_runs:
            yield of_runs[kind](list(view.runs), suffix)
        else:
            for run in view.runs if view.is_chosen else view.runs[:1]:
                yield of_one_run[kind](run, suffix)

    def _epochs(self, runs: Sequence[Run]) -> dict[int, list[Epoch]]:
        return {run.id: self._store.runs.epochs(run.id) for run in runs}

    def _curves(self, runs: list[Run], suffix: str) -> Drawn:
        from klcli.report.plots.comparison import draw_validation_overlay, validation_overlay
        from klcli.report.plots.range_test import draw_range_test, range_curves
        from klcli.report.plots.training import draw_training, training_curves

        epochs, first = self._epochs(runs), runs[0]
        if len(runs) > 1:
            content = draw_validation_overlay(validation_overlay(runs, epochs), suffix)
        elif first.config.schedule == "range":
            content = draw_range_test(range_curves(first, epochs[first.id]), suffix)
        else:
            content = draw_training(training_curves(first, epochs[first.id]), suffix)
        return f"{stem(runs)}-curves", content

    def _bn(self, runs: list[Run], suffix: str) -> Drawn:
        from klcli.report.plots.comparison import bn_overlay, bn_pair, draw_bn_overlay

        pair = bn_pair([run for run in runs if run.epochs_done])
        if pair is None:
            raise ConfigError(
                "--plot bn: needs one run without and one with BN of the same widths on the same images, "
                "name them with --run"
            )
        return f"{stem(pair)}-bn", draw_bn_overlay(bn_overlay(*pair, self._epochs(pair)), suffix)

    def _rate(self, run: Run, suffix: str) -> Drawn:
        from klcli.report.plots.training import draw_learning_rate, training_curves

        curves = training_curves(run, self._store.runs.epochs(run.id))
        return f"{stem([run])}-rate", draw_learning_rate(curves, suffix)

    def _weights(self, run: Run, suffix: str) -> Drawn:
        from klcli.report.plots.weights import draw_weights, weight_images
        from klcli.training.networks import WHITENING

        state = self._store.runs.checkpoint(run).state
        W = state["linear1.W"]
        picture = weight_images(run, state[WHITENING] @ W if WHITENING in state else W)
        return f"{stem([run])}-weights", draw_weights(picture, suffix)

    def _confusion(self, run: Run, suffix: str) -> Drawn:
        from klcli.data.dataset import split
        from klcli.evaluation.confusion import confusion, predict
        from klcli.procedures.run_lookup import images_of, trained_networks
        from klcli.report.plots.confusion import confusion_picture, draw_confusion
        from klcli.training.environment import pin_threads

        [trained] = trained_networks(self._store, run)
        if run.dataset_sha256 not in self._datasets:
            data = None if run.dataset == "synthetic" else self._data  # --data names others, beside the built-in set
            self._datasets[run.dataset_sha256] = images_of(run, data, f"run {run.id}")
        dataset = self._datasets[run.dataset_sha256]
        with pin_threads(run.threads):
            test = split(dataset, run.split).test.standardised(run.config.standardise)
            counts = confusion(test.labels, predict(trained.network, test, run.config.dtype))
        picture = confusion_picture(run, counts, dataset.class_names)
        return f"{stem([run])}-confusion", draw_confusion(picture, suffix)

    def _lambda(self, number: int, suffix: str) -> Drawn:
        from klcli.procedures.searches import stored_search
        from klcli.report.plots.lambda_search import draw_lambda_search, lambda_search

        found = stored_search(self._store, number)
        if found.choice is None:
            raise ConfigError(f"--plot lambda: no run of study {number} is complete")
        picture = lambda_search(found.stages, found.choice)
        return f"study-{number:06d}-lambda", draw_lambda_search(picture, suffix)

    def _sigma(self, number: int, suffix: str) -> Drawn:
        from klcli.report.plots.sigma_sweep import draw_sigma_sweep, sigma_curves

        runs = self._store.studies.members(number)
        return f"study-{number:06d}-sigma", draw_sigma_sweep(sigma_curves(runs, self._epochs(runs)), suffix)

    def _gradients(self, suffix: str) -> Drawn:
        from klcli.report.plots.gradient_checks import draw_gradient_checks, gradient_errors

        checks = self._store.gradient_checks.suite()
        if not checks:
            raise ConfigError("--plot gradients: there is no gradient check yet, begin with `klcli gradcheck`")
        return f"gradcheck-{checks[0].suite:06d}", draw_gradient_checks(gradient_errors(checks), suffix)

    def _study(self, view: View, kind: str) -> int:
        """The study that was asked for, or the latest one of this kind."""
        study = view.study
        if study is None:
            return latest_study(self._store, kind)
        if study.kind != kind or study.stage == "final":
            raise ConfigError(f"--plot {kind}: study {study.id} is another one, {study.kind} {study.stage}")
        return study.id


def stem(runs: Sequence[Run]) -> str:
    """`run-000007`, `runs-000007-000009`, or for many `runs-000007-to-000030-n12`: names that sort."""
    numbers = [f"{run.id:06d}" for run in runs]
    if len(numbers) == 1:
        return f"run-{numbers[0]}"
    if len(numbers) <= SHOWN_RUNS:
        return f"runs-{'-'.join(numbers)}"
    return f"runs-{min(numbers)}-to-{max(numbers)}-n{len(numbers)}"
