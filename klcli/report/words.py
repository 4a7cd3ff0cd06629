"""Words: the names of networks, settings and images in tables, captions and titles, derived from settings/."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from klcli.settings.run_names import ranges_words, runs_words
from klcli.settings.sameness import SETTINGS, not_default, settings_and_seeds
from klcli.settings.setting import value_of
from klcli.settings.split_config import SplitConfig, listed
from klcli.settings.train_config import CYCLIC, TRANSDUCTIVE, TrainConfig
from klcli.store.records import ImageSet, Run, RunResult

IN_BN_WORDS = ("batch_norm", "bn_position", "bn_statistics")  # settings that `bn_words` states
IN_NAME = ("hidden", "activation", *IN_BN_WORDS)  # those that are part of the name of a network
ACTIVATIONS = {"relu": "ReLU", "silu": "SiLU"}
IN_CAPTION = (
    *IN_NAME, "lam", "eta_min", "eta_max", "schedule", "step_size", "step_epochs", "cycles", "epochs", "batch_size",
    "initializer", "sigma", "seed", "order_seed",
)  # fmt: skip


def layers_name(config: TrainConfig) -> str:
    """`3-layer 50-50`, `3-layer 50-50 SiLU`; k counts the linear layers."""
    activation = "" if config.activation == "relu" else f" {ACTIVATIONS[config.activation]}"
    return f"{len(config.hidden) + 1}-layer {'-'.join(map(str, config.hidden))}{activation}"


def network_name(config: TrainConfig) -> str:
    """`3-layer 50-50 with BN after ReLU (adaptive statistics, transductive)`."""
    return f"{layers_name(config)} {bn_words(config)}" if config.batch_norm else layers_name(config)


def bn_words(config: TrainConfig) -> str:
    """`with BN after ReLU (adaptive statistics, transductive)`; defaults are omitted."""
    words = "with BN" + (f" after {ACTIVATIONS[config.activation]}" if config.bn_position == "after" else "")
    policy = config.bn_statistics
    return words if policy == "ema" else f"{words} ({policy} statistics{transductive_words(policy)})"


def sweep_name(runs: Sequence[Run]) -> str:
    """`3-layer 50-50 without and with BN after ReLU`, or the name of the one network that there is."""
    configs = {run.config.batch_norm: run.config for run in runs}
    config = configs.get(True, runs[0].config)
    return f"{layers_name(config)} without and {bn_words(config)}" if len(configs) > 1 else network_name(config)


def transductive_words(policy: str | None) -> str:
    """`, transductive` if the statistics of test images affect their own classification."""
    return ", transductive" if policy in TRANSDUCTIVE else ""


def split_words(split: SplitConfig, *others: SplitConfig) -> str:
    """`45000 images train, 5000 validate`; of a subset also the test images, whose number sets the sampling error.

    The `others` may differ in the seed that draws the validation images.
    """
    train, validation, test = split.sizes()
    is_subset, batches = split.subset is not None, (split.train_batches, split.validation_batches)
    which = [f"{name} batch {listed(own)}" for name, own in zip(("train", "validation"), batches, strict=True) if own]
    seeds = {one.split_seed for one in (split, *others) if one.split_seed is not None}
    drawn = [f"drawn with {_seeds_words('split seed', seeds)}"] * bool(seeds)
    chosen = ", ".join([f"subset of {train}"] * is_subset + which + drawn)
    words = f"{train} images train, {validation} validate" + f", {test} test" * is_subset
    return f"{words} ({chosen})" if chosen else words


def subset_words(runs: Sequence[Run]) -> str:
    """`, subset of 5000 with 1111 test images`, `, 5000 images of batch file 1`, `, runs 3-4 on subsets of the images`.

    For a title; empty if all train on all images.
    """
    if not (partial := [run for run in runs if run.split.is_trial]):
        return ""
    sizes = {(run.split.sizes(), run.split.subset, run.split.train_batches) for run in partial}
    if len(sizes) == 1 and len(partial) == len(runs):
        (train, _, test), subset, batches = sizes.pop()
        if subset is None:
            return f", {train} images of {numbered('batch file', batches)}"
        return f", subset of {train} with {test} test {counted(test, 'image')}"
    return f", {run_numbers(partial)} on {'a subset' if len(partial) == 1 else 'subsets'} of the images"


def images_words(images: Run | RunResult | ImageSet, *repeats: Run) -> str:
    """`cifar10, 45000 images train, 5000 validate`, with the split seeds of the repeats."""
    return f"{images.dataset}, {split_words(images.split, *(run.split for run in repeats))}"


def image_sets_words(image_sets: Sequence[ImageSet]) -> list[str]:
    """Return the words of sets of images, with the sha256 where two of them have the same."""
    words = [images_words(one) for one in image_sets]
    hashes = [f", sha256 {one.dataset_sha256[:8]}" for one in image_sets]
    return [own + more * (words.count(own) > 1) for own, more in zip(words, hashes, strict=True)]


def setting_value(run: Run | RunResult, key: str) -> Any:
    """Return a setting of a run, n_s, cycles and epochs resolved; None without effect, as that of BN without BN."""
    if SETTINGS[key].is_resolved:
        return getattr(run, key)
    return None if key in run.config.without_effect else value_of(run.config, key)


def value_words(key: str, value: Any) -> str:
    """Return the value of a setting as tables show it: `512 256`, `yes`, `adaptive, transductive`, `-` for None."""
    return SETTINGS[key].words(value) + (transductive_words(value) if key == "bn_statistics" else "")


def run_title(what: str, run: Run, more: str = "") -> str:
    """`Run 3: 3-layer 50-50, subset of 5000 with 1111 test images`; `more` comes after the network."""
    return f"{what} {run.id}: {network_name(run.config)}{more}{subset_words([run])}"


def method_words(run: Run) -> str:
    """`decay of W1 halved`: what sets a run of a reproduction apart from one with the same settings."""
    return run.method or "as configured"


def methods_words(runs: Sequence[Run]) -> str:
    """`decay of W1 halved`, or `decay of W1 halved in runs 3-5` if others are without it; empty without any."""
    methods = {run.method: run_numbers([one for one in runs if one.method == run.method]) for run in runs}
    is_one = len(methods) == 1
    return "; ".join(method if is_one else f"{method} in {own}" for method, own in methods.items() if method)


def options_words(
    config: TrainConfig, omit: Sequence[str] = IN_CAPTION, together_with: Sequence[TrainConfig] = ()
) -> str:
    """`momentum 0.9, flips, not shuffled`: the settings that are not the default and not shown elsewhere.

    Those without an effect on this training and on the others in the same picture are omitted.
    """
    without_effect = config.without_effect.intersection(*(one.without_effect for one in together_with))
    omit = (*omit, *without_effect, *["order_seed"] * (config.shared_seed == config.seed))
    shown = {key: value for key, value in not_default(config).items() if key not in omit and "split." not in key}
    return ", ".join(SETTINGS[key].phrase(value) for key, value in shown.items())


def settings_words(run: Run, together_with: Sequence[Run] = ()) -> dict[str, str]:
    """Return the parts of a caption by name; the picture may also show runs with other seeds."""
    config, configs = run.config, [one.config for one in (run, *together_with)]
    epochs = f"{config.schedule} over {run.epochs:g} {counted(run.epochs, 'epoch')}"
    cycles = f"{run.cycles:g} {counted(run.cycles, 'cycle')} of 2 n_s"
    rising = "" if config.schedule == "constant" else f"{config.eta_min:g} to "
    has_orders = any(one.draws and one.shared_seed != one.seed for one in configs)
    return {
        "images": images_words(run, *together_with),
        "lambda": f"lambda {config.lam:g}",
        "eta": f"eta {rising}{config.eta_max:g}",
        "cycles": cycles if config.schedule in CYCLIC else epochs,
        "schedule": "cosine" if config.schedule == "cosine" else "",
        "n_s": f"n_s {run.step_size}" if config.schedule in CYCLIC else "",
        "n_batch": f"n_batch {config.batch_size}",
        "options": options_words(config, together_with=configs),
        "method": methods_words(together_with or [run]),
        "initializer": config.initializer if config.sigma is None else f"sigma {config.sigma:g}",
        "seed": _seeds_words("seed", {one.seed for one in configs}),
        "order": _seeds_words("order seed", {one.shared_seed for one in configs}) if has_orders else "",
    }


def settings_line(run: Run, omit: Sequence[str] = (), together_with: Sequence[Run] = ()) -> str:
    """The settings of a run for the caption of a picture, except those on its axes."""
    words = settings_words(run, together_with)
    return ", ".join(word for key, word in words.items() if word and key not in omit)


def repeats_note(runs: Sequence[Run]) -> str:
    """Say what the deviation and the interval over repeats contain; empty if no setting has two complete ones."""
    runs = [run for run in runs if run.state == "complete"]
    trainings = {settings_and_seeds(run.config) for run in runs}  # one that was trained twice is no second seed
    if max(Counter(settings for settings, _ in trainings).values(), default=0) < 2:
        return ""
    weights, order, _ = map(set, zip(*(seeds for _, seeds in trainings), strict=True))
    varied = {
        (False, True): "the weights alone, order of the images, dropout and augmentation being the same",
        (True, False): "the order of the images, dropout and augmentation, the initial weights being the same",
        (False, False): "everything: weights, order of the images, dropout and augmentation",
    }[len(weights) == 1, len(order) == 1]
    one = "All are on one split and one test set: the sampling error of its images is not included."
    own = "Each has validation images of its own; the test images are the same: their sampling error is not included."
    rest = own if len({run.split for run in runs}) > 1 else one
    n = max(len(weights), len(order))
    return f"Standard deviations (std, or ± after a mean) and intervals are over {n} seeds of {varied}. {rest}"


def incomplete_words(runs: Sequence[Run]) -> str:
    """`run 3 (diverged)`; empty if every run is complete."""
    states = dict.fromkeys(run.state for run in runs if run.state != "complete")
    return ", ".join(f"{run_numbers([run for run in runs if run.state == state])} ({state})" for state in states)


def not_complete(runs: Sequence[Run]) -> str:
    """`; not complete: run 3 (diverged)` for the end of a caption; empty if every run is complete."""
    left = incomplete_words(runs)
    return f"; not complete: {left}" if left else ""


def without_note(runs: Sequence[Run]) -> str:
    """`Not included: run 3 (diverged).` for means over seeds; empty if every run is complete, or has a seed alone."""
    left, seeds = incomplete_words(runs), {(run.config.seed, run.config.shared_seed) for run in runs}
    return f"Not included: {left}." if left and len(seeds) > 1 else ""


def version_words(run: Run, name: str) -> str | None:
    """`openblas 0.3.31 Haswell, after epoch 3 openblas 0.3.31 SkylakeX` for a run that was resumed under another."""
    if name not in run.versions:
        return None
    words = now = run.versions[name]
    for one in run.versions.get("later", []):  # each has all versions, changed or not
        if one.get(name, now) != now:
            now = one[name]
            words += f", after epoch {one['epoch']:g} {now}"
    return str(words)


def run_numbers(runs: Sequence[Run]) -> str:
    """`run 3`, `runs 3-5, 8`; empty for none."""
    return runs_words(run.id for run in runs)


def numbered(noun: str, numbers: Sequence[int]) -> str:
    """`Row 3`, `Rows 3, 4`."""
    return f"{counted(len(numbers), noun)} {', '.join(map(str, numbers))}"


def counted(number: float, noun: str) -> str:
    """`cycle` for one, `cycles` for any other number; `study` and `studies`."""
    return noun if number == 1 else f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def not_counted(repeated: Iterable[int]) -> str:
    """Return the note on runs that have the numbers of another one: they are no second seed."""
    return f"Not counted, because each repeats the training of another run: {ranges_words(repeated)}."


def _seeds_words(noun: str, seeds: set[int]) -> str:
    """`seed 0`, `seeds 0 to 2`, `seeds 1, 5`."""
    ordered = sorted(seeds)
    if len(seeds) > 2 and ordered[-1] - ordered[0] == len(seeds) - 1:
        return f"{noun}s {ordered[0]} to {ordered[-1]}"
    return numbered(noun, ordered)
