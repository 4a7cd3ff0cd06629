"""Evaluate stored networks again, classify pictures with them, and check gradients."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from klcli.compiled import open_team
from klcli.data.augmentation import views
from klcli.data.dataset import Dataset, Inputs, Split, split
from klcli.data.pictures import read_picture
from klcli.evaluation.metrics import log_mean, log_probabilities
from klcli.evaluation.reevaluation import TrainedNetwork, policy_of, reevaluate
from klcli.procedures.run_lookup import chosen_run, chosen_runs, networks_of, trained_networks
from klcli.procedures.setup import Setup
from klcli.settings.procedures import CheckSettings, EvaluationSettings
from klcli.settings.run_command import evaluation_command, in_database
from klcli.settings.run_names import BEST, runs_words
from klcli.settings.setting import require
from klcli.settings.train_config import TrainConfig
from klcli.store.checkpoints import Checkpoint, load_alone
from klcli.store.records import Evaluation, GradientCheck, Run
from klcli.store.store import Store
from klcli.studies.gradient_checks import Stack, check_network, entries, require_images
from klcli.text import path_text
from klcli.training.budget import budget_of
from klcli.training.cores import cores

MOST_SHIFT = 2  # pixels; larger ones move too much of an image out of sight


@dataclass(frozen=True)
class StoredNetwork:
    """A checkpoint, with what its inputs and outputs mean."""

    name: str  # `run 3`, or the path of the checkpoint
    run: Run | None  # None without a database
    config: TrainConfig
    checkpoint: Checkpoint
    networks: list[TrainedNetwork]  # one, or the snapshots
    inputs: Inputs
    dataset: str  # name of the images that it was trained on

    @property
    def has_batch_statistics(self) -> bool:
        """Whether it was evaluated with the statistics of the evaluated images, which a single image has not."""
        return self.config.batch_norm and self.networks[0].config.bn_statistics == "batch"


@dataclass(frozen=True)
class Predictions:
    """The classification of pictures by one run, or by a checkpoint alone."""

    run: Run | None
    config: TrainConfig
    dataset: str  # name of the images that the network was trained on
    pictures: list[tuple[str, dict[str, float]]]  # per picture, the probability of every class
    flips: bool  # whether the probabilities are means over the picture and its mirror image,
    shifts: int  # and over shifts by so many pixels to its four sides


def evaluate(
    setup: Setup, which: Sequence[str], settings: EvaluationSettings, ensemble: bool
) -> tuple[list[Run], list[Evaluation]]:
    """Evaluate stored runs again, individually or as an ensemble, and record it; return runs and evaluations.

    Before the first evaluation, raises ConfigError if a setting does not apply to a network, StoreError without one.
    """
    store = setup.store()
    runs = chosen_runs(store, which)
    keys = [(run.dataset_sha256, run.config.split) for run in runs]
    if ensemble:
        require(len(runs) > 1, f"--ensemble: averages several runs, give at least two, others besides {runs[0].id}")
        other = next((run.id for run, key in zip(runs, keys, strict=True) if key != keys[0]), None)
        ranking = in_database("klcli report", setup.db)
        mixed = (
            f"--ensemble: runs {runs[0].id} and {other} were trained on different images or splits, the training "
            f"images of one may be test images of the other: choose runs that `{ranking}` ranks together"
        )
        require(other is None, mixed)
    without = [run.id for run in runs if not run.config.batch_norm]
    lack = f"{runs_words(without)} {'has' if len(without) == 1 else 'have'} no batch normalisation"
    cure = "omit the option" + " or name others" * (len(without) < len(runs))
    require(not (settings.bn_statistics and without), f"--bn-statistics {settings.bn_statistics}: {lack}, {cure}")
    with setup.observer.step("reading the networks", len(runs)) as advance:
        for run in runs:
            for one in trained_networks(store, run, settings.snapshots):
                policy_of(one.name, one.config, settings)
            advance(1)
    setup.prepare_engine()
    first = {run.dataset_sha256: run for run in reversed(runs)}  # on each set of images
    datasets = {sha256: setup.images(run, f"run {run.id}") for sha256, run in first.items()}
    divided = {(sha256, how): split(datasets[sha256], how) for sha256, how in set(keys)}
    for dataset in datasets.values():
        setup.warn_of(dataset)
    setup.why_no_engine()
    parts, evaluations, threads = [runs] if ensemble else [[run] for run in runs], [], max(run.threads for run in runs)
    with setup.pinned(threads), setup.observer.step("evaluating", len(parts)) as advance:
        for part, key in zip(parts, keys, strict=False):  # an ensemble has one key
            part[:] = [store.runs.get(run.id) for run in part]  # their training can have gone on since
            networks = [one for run in part for one in trained_networks(store, run, settings.snapshots)]
            for run in part:
                setup.warn_of_state(run)
                if run.study_id and (quirks := store.studies.get(run.study_id).settings.get("quirks")):
                    left_out = "the quirks of a published report, which an evaluation leaves out"
                    setup.observer.warn(f"run {run.id} was trained with {left_out}: {'; '.join(quirks)}")
            with ExitStack() as stack:  # a team for each precision of an ensemble
                helper, precisions = threads == 1 and cores() > 1, {run.config.dtype for run in part}
                teams = {dtype: stack.enter_context(open_team(dtype, helper=helper)) for dtype in precisions}
                fast = [replace(one, network=teams[one.config.dtype].accelerated(one.network)) for one in networks]
                found = reevaluate(fast, divided[key], settings)
            values = asdict(settings) | {"bn_samples": settings.samples}
            command = evaluation_command([run.id for run in part], values, data=setup.data, db=setup.db)
            evaluations.append(store.evaluations.record(part, settings, found, command))
            advance(1)
    return [run for part in parts for run in part], evaluations


def stored_network(setup: Setup, which: str | Path, snapshots: bool = False) -> StoredNetwork:
    """Return the network of a run, or in a checkpoint file, which needs no database and no images.

    The images of a run are opened only if `--data` names some or an older klcli trained the run. Raises ConfigError or
    StoreError for the run or the file, DataError for the images.
    """
    run, inputs = None, None
    if isinstance(which, Path):
        checkpoint, config, inputs = load_alone(which)
        name, dataset = path_text(which), checkpoint.origin.get("dataset", "unknown images")
    else:
        store = setup.store()
        run = chosen_run(store, which)
        checkpoint, config, name, dataset = store.runs.checkpoint(run), run.config, f"run {run.id}", run.dataset
        inputs = checkpoint.inputs if setup.data is None else None
    networks = networks_of(name, config, checkpoint, snapshots)
    if inputs is None:
        images = setup.images(run, name)
        setup.warn_of(images)
        inputs = split(images, config.split).inputs
    else:
        setup.warn_of_synthetic(dataset)
    return StoredNetwork(name, run, config, checkpoint, networks, inputs, dataset)


def predict(
    setup: Setup, pictures: Sequence[Path], which: str | None, checkpoint: Path | None, *, flips: bool | None,
    shifts: int | None, snapshots: bool,
) -> Predictions:  # fmt: skip
    """Return the class probabilities of a stored run, or of a checkpoint alone, for pictures.

    If not given, `flips` and `shifts` are those of the training, shifts of at most MOST_SHIFT pixels. Raises DataError
    for a file that is no picture.
    """
    both = f"--run {which} and --checkpoint {checkpoint}: give one of them"
    require(which is None or checkpoint is None, both)
    require(bool(pictures), "predict: name at least one picture")
    pixels = []
    with setup.observer.step("reading pictures", len(pictures)) as advance:
        for picture in pictures:
            pixels.append(read_picture(picture))
            advance(1)
    by = stored_network(setup, checkpoint or (BEST if which is None else which), snapshots)
    if by.run:
        setup.warn_of_state(by.run)
    elif (done := by.checkpoint.step) < (total := budget_of(by.config).total_updates):
        setup.observer.warn(f"{by.name} is not complete: this is its network after {done} of {total} updates")
    config = by.config
    if by.has_batch_statistics:
        setup.observer.warn(f"{by.name} was evaluated with batch statistics, pictures get its running averages")
    usual = min(config.shift, MOST_SHIFT)
    how = EvaluationSettings(flips=config.flip if flips is None else flips, shifts=usual if shifts is None else shifts)
    with setup.pinned(by.run.threads if by.run else None), setup.observer.step("classifying"):
        seen = views(by.inputs.split(pixels, config.standardise), flips=how.flips, shifts=how.shifts)
        log_P = [log_probabilities(one.network, view, config.dtype) for view in seen for one in by.networks]
    classes = by.inputs.class_names
    named = [dict(zip(classes, map(float, row), strict=True)) for row in np.exp(log_mean(log_P))]
    found = list(zip(map(path_text, pictures), named, strict=True))
    return Predictions(by.run, config, by.dataset, found, how.flips, how.shifts)


def check_gradients(setup: Setup, networks: Sequence[Stack], settings: CheckSettings) -> list[GradientCheck]:
    """Compare the gradients of networks with numerical differences, and record it as one suite."""
    for configs in networks:
        require_images(configs[0], configs[0].split.sizes()[0], settings.images)
    setup.prepare_engine()
    dataset = setup.images()
    setup.warn_of(dataset)
    train, store = split(dataset, networks[0][0].split).train, Store(setup.db)
    setup.why_no_engine()  # else the first step of the check would be the compilation
    with setup.pinned():
        suite = record_checks(setup, store, dataset, [(stack, train, settings) for stack in networks])
    return store.gradient_checks.suite(suite)


def record_checks(
    setup: Setup, store: Store, dataset: Dataset, wanted: Sequence[tuple[Stack, Split, CheckSettings]]
) -> int:
    """Check networks on training images of the data set, record it as one suite, and return the number of that."""
    total = sum(entries(stack, how.dims) for stack, _, how in wanted)
    with setup.observer.step("checking entries", total) as advance:
        checks = [check_network(stack, train, how, advance) for stack, train, how in wanted]
    return store.gradient_checks.record(checks, dataset, setup.command)
