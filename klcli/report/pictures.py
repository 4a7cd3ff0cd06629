"""Pictures of what `klcli report` shows, each kind from its own module of report/plots."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klcli.cli.invocation import Invocation
from klcli.errors import ConfigError, DataError

if TYPE_CHECKING:
    from klcli.data.dataset import Dataset
    from klcli.report.views import View
    from klcli.store.store import Store

    Drawn = tuple[str, bytes]  # the stem of its file, and the picture

KINDS_HELP = (
    "curves of one run, or of several over one another with a band for seeds; bn, one network with and without it; "
    "rate; weights of the first layer; confusion; lambda and sigma of a study; gradients"
)
KINDS = ("curves", "bn", "rate", "weights", "confusion", "lambda", "sigma", "gradients")
SUFFIXES = ("png", "svg", "pdf")
SHOWN_RUNS = 4  # in the name of a file


def draw(
    session: Invocation, store: "Store", view: "View", kinds: Sequence[str], to: Path | None, data: str | None
) -> list[Path]:
    """Draw the pictures of these kinds and return where they are."""
    from klcli.store.checkpoints import write_atomically

    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"--plot {kind}: choose from {', '.join(KINDS)}")
    suffix = "png" if to is None else to.suffix.removeprefix(".").lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"--to {to}: the name must end in {', '.join('.' + one for one in SUFFIXES)}")
    painter = Painter(store, view, data, suffix)
    drawn = [picture for kind in kinds for picture in painter.draw(kind)]
    if to is not None and len(drawn) > 1:
        raise ConfigError(f"--to {to}: {len(drawn)} pictures cannot have one name, choose one kind and one run")
    paths = [to or store.folder("plots") / f"{stem}.{suffix}" for stem, _ in drawn]
    for path, (_, content) in zip(paths, drawn, strict=True):
        write_atomically(path, content)
    return paths


class Painter:
    """Draws what a view shows."""

    def __init__(self, store: "Store", view: "View", data: str | None, suffix: str) -> None:
        """Images are opened when the first picture needs them."""
        self._store = store
        self._view = view
        self._data = data
        self._suffix = suffix
        self._datasets: dict[str, Dataset] = {}

    def draw(self, kind: str) -> "Iterator[Drawn]":
        """Draw one kind of picture; those of single runs once per run that was asked for by number."""
        kinds: dict[str, Callable[[], Iterator[Drawn]]] = {
            "curves": self._curves,
            "bn": self._bn,
            "rate": self._rate,
            "weights": self._weights,
            "confusion": self._confusion,
            "lambda": self._lambda,
            "sigma": self._sigma,
            "gradients": self._gradients,
        }
        return kinds[kind]()

    def _runs(self, kind: str) -> list[Any]:
        if not self._view.runs:
            raise ConfigError(f"--plot {kind}: there is no run to draw, `klcli report --list` shows all")
        return self._view.runs

    def _each(self, kind: str) -> list[Any]:
        """The runs of pictures that show one run: those asked for by number, otherwise the first of the table."""
        runs = self._runs(kind)
        return runs if self._view.is_chosen else runs[:1]

    def _epochs(self, runs: Sequence[Any]) -> dict[int, list[Any]]:
        return {run["id"]: self._store.runs.epochs(run["id"]) for run in runs}

    def _curves(self) -> "Iterator[Drawn]":
        from klcli.report.plots.comparison import draw_validation_overlay, validation_overlay
        from klcli.report.plots.range_test import draw_range_test, range_curves
        from klcli.report.plots.training import draw_training, training_curves

        runs = self._runs("curves")
        if len(runs) == 1 and runs[0]["schedule"] == "range":
            yield (
                f"{stem(runs)}-curves",
                draw_range_test(range_curves(runs[0], self._epochs(runs)[runs[0]["id"]]), self._suffix),
            )
        elif len(runs) == 1:
            curves = training_curves(runs[0], self._store.runs.epochs(runs[0]["id"]))
            yield f"{stem(runs)}-curves", draw_training(curves, self._suffix)
        else:
            overlay = validation_overlay(runs, self._epochs(runs))
            yield f"{stem(runs)}-curves", draw_validation_overlay(overlay, self._suffix)

    def _bn(self) -> "Iterator[Drawn]":
        from klcli.report.plots.comparison import bn_overlay, bn_pair, draw_bn_overlay

        pair = bn_pair([run for run in self._runs("bn") if run["epochs_done"]])
        if pair is None:
            raise ConfigError(
                "--plot bn: needs one run without and one with BN of the same widths on the same images, "
                "name them with --run"
            )
        yield f"{stem(pair)}-bn", draw_bn_overlay(bn_overlay(*pair, self._epochs(pair)), self._suffix)

    def _rate(self) -> "Iterator[Drawn]":
        from klcli.report.plots.learning_rate import draw_learning_rate
        from klcli.report.plots.training import training_curves

        for run in self._each("rate"):
            curves = training_curves(run, self._store.runs.epochs(run["id"]))
            yield f"{stem([run])}-rate", draw_learning_rate(curves, self._suffix)

    def _weights(self) -> "Iterator[Drawn]":
        from klcli.report.plots.weights import draw_weights, weight_images
        from klcli.training.networks import WHITENING

        for run in self._each("weights"):
            state = self._checkpoint(run)
            W = state["linear1.W"]
            picture = weight_images(run, state[WHITENING] @ W if WHITENING in state else W)
            yield f"{stem([run])}-weights", draw_weights(picture, self._suffix)

    def _confusion(self) -> "Iterator[Drawn]":
        from klcli.data.dataset import split
        from klcli.evaluation.confusion import confusion, predict
        from klcli.report.plots.confusion import confusion_picture, draw_confusion
        from klcli.settings.train_config import TrainConfig
        from klcli.training.environment import pin_threads
        from klcli.training.networks import restore

        for run in self._each("confusion"):
            config = TrainConfig.from_json(run["config"])
            network = restore(config, self._checkpoint(run))
            dataset = self._dataset(run)
            pin_threads(run["threads"])
            test = split(dataset, config.split).test.standardised(config.standardise)
            counts = confusion(test.labels, predict(network, test, config.dtype))
            picture = confusion_picture(run, counts, dataset.class_names)
            yield f"{stem([run])}-confusion", draw_confusion(picture, self._suffix)

    def _lambda(self) -> "Iterator[Drawn]":
        from klcli.report.plots.lambda_search import draw_lambda_search, lambda_search
        from klcli.report.views import search_of

        number = self._study("lambda")
        stages, choice = search_of(self._store, number)
        if choice is None:
            raise ConfigError(f"--plot lambda: no run of study {number} is complete")
        yield f"study-{number:06d}-lambda", draw_lambda_search(lambda_search(stages, choice), self._suffix)

    def _sigma(self) -> "Iterator[Drawn]":
        from klcli.report.plots.sigma_sweep import draw_sigma_sweep, sigma_curves

        number = self._study("sigma")
        runs = self._store.studies.members(number)
        yield f"study-{number:06d}-sigma", draw_sigma_sweep(sigma_curves(runs, self._epochs(runs)), self._suffix)

    def _gradients(self) -> "Iterator[Drawn]":
        from klcli.report.plots.gradient_checks import draw_gradient_checks, gradient_errors

        checks = self._store.gradient_checks.suite()
        if not checks:
            raise ConfigError("--plot gradients: there is no gradient check yet, begin with `klcli gradcheck`")
        yield f"gradcheck-{checks[0]['suite']:06d}", draw_gradient_checks(gradient_errors(checks), self._suffix)

    def _study(self, kind: str) -> int:
        """The study that was asked for, or the latest one of this kind."""
        from klcli.report.views import latest_study

        study = self._view.study
        if study is None:
            return latest_study(self._store, kind)
        if study["kind"] != kind or study["stage"] == "final":
            raise ConfigError(f"--plot {kind}: study {study['id']} is another one, {study['kind']} {study['stage']}")
        return int(study["id"])

    def _checkpoint(self, run: Any) -> Any:
        return self._store.runs.checkpoint(run).state

    def _dataset(self, run: Any) -> "Dataset":
        """The images of a run. Raises DataError where they are not on this machine."""
        from klcli.data.sources import open_dataset

        if run["dataset_sha256"] not in self._datasets:
            dataset = open_dataset("synthetic" if run["dataset"] == "synthetic" else self._data)
            self._datasets[dataset.sha256] = dataset
            if dataset.sha256 != run["dataset_sha256"]:
                raise DataError(
                    f"run {run['id']} was trained on other images than these ({run['dataset']} "
                    f"{run['dataset_sha256'][:12]}, not {dataset.name}), name them with --data"
                )
        return self._datasets[run["dataset_sha256"]]


def stem(runs: Sequence[Any]) -> str:
    """`run-000007`, `runs-000007-000009`, or for many `runs-000007-to-000030-n12`: names that sort."""
    numbers = [f"{run['id']:06d}" for run in runs]
    if len(numbers) == 1:
        return f"run-{numbers[0]}"
    if len(numbers) <= SHOWN_RUNS:
        return f"runs-{'-'.join(numbers)}"
    return f"runs-{min(numbers)}-to-{max(numbers)}-n{len(numbers)}"
