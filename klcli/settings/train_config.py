"""TrainConfig: every setting of a training, except the images themselves.

A new setting is one field here, and the code that uses it.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from klcli.errors import ConfigError
from klcli.settings.setting import MAX_INTEGER, Role, Settings, require, setting, settings_of
from klcli.settings.split_config import SplitConfig, listed

NETWORK, OPTIMISATION, REGULARISATION = Role.NETWORK, Role.OPTIMISATION, Role.REGULARISATION
DATA, EVALUATION, RANDOMNESS = Role.DATA, Role.EVALUATION, Role.RANDOMNESS
CYCLIC = ("cyclical", "cosine")  # the schedules that repeat after 2 n_s updates
BN_STATISTICS = ("ema", "precise", "adaptive", "batch")
SAMPLES = {"precise": 10_000, "adaptive": 1_000}  # number of images of each policy that draws some
TRANSDUCTIVE = ("adaptive", "batch")  # with these policies, test images affect their own classification
# A setting, and the values of another one without which it has no effect.
NEEDED: dict[str, tuple[str, Collection[str]]] = {
    "bn_samples": ("bn_statistics", SAMPLES), "silu_slope": ("activation", ("silu",)),
    "sigma": ("initializer", ("normal",)), "momentum": ("optimizer", ("sgd",)), "eta_decay": ("schedule", CYCLIC),
}  # fmt: skip
WEAK_SHIFT, WEAK_CONTRAST = 1, 0.1  # maxima in the last updates with weak augmentation
MAX_SHIFT = 31  # pixels: a shift by 32 would leave no pixel of an image
PIXELS = 3072  # of an image, in three colours
HUGE = 1e30  # float32 can overflow in products with larger values, and underflow with values below 1 / HUGE
SMALLEST32, LARGEST32 = 2.0**-150, 2.0**128 - 2.0**103  # rounded to 0 and to infinity by float32
IN_ARITHMETIC = ("bn_eps", "silu_slope", "whitening_eps", "sigma", "lam", "weight_decay", "eta_min", "eta_max")
MAX_WIDTH = 65_536  # the first layer alone would take 0.8 GB


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """The settings of one training. An invalid value raises ConfigError, one line with the cure."""

    # fmt: off
    preset: str | None = setting(None, NETWORK,
        "Start from this preset; other options replace its settings. `klcli train --list-presets` shows all.",
        is_name=True)
    hidden: tuple[int, ...] = setting(
        (50, 50), NETWORK, "Widths of the hidden layers, any number of them: `--hidden 50 30 20`, or 50,30,20.",
        short="-H", at_least=1, at_most=MAX_WIDTH, example="50 50")
    batch_norm: bool = setting(False, NETWORK, "Batch normalisation in every hidden layer.", option="--bn", label="BN")
    bn_position: str = setting("before", NETWORK, "BN before or after the activation.",
        label="BN position", choices=("before", "after"))
    bn_momentum: float = setting(0.9, NETWORK, "Alpha of the running averages: the weight of the past.",
        label="BN momentum", at_least=0, below=1)
    # Small, because with sigma = 1e-4 the variances in BN are near 1e-7.
    bn_eps: float = setting(1e-8, NETWORK, "Added to the variance. 1e-5 exceeds it if sigma is 1e-4.",
        label="BN eps", above=0, example="1e-8")
    bn_statistics: str = setting("ema", NETWORK, "Statistics that BN uses in evaluation: running averages, those of "
        "training images under the final weights, of unlabelled test images (transductive), of the evaluated images "
        "(transductive).", label="BN statistics", choices=BN_STATISTICS)
    bn_samples: int | None = setting(None, NETWORK, "Maximum number of images for precise (10000) and adaptive (1000).",
        label="BN samples", at_least=2)
    activation: str = setting("relu", NETWORK, "Activation: max(x, 0), or x * sigmoid(slope * x).",
        choices=("relu", "silu"))
    silu_slope: float = setting(1.0, NETWORK, "Slope of silu; with 1.702, it is nearly GELU.",
        label="SiLU slope", above=0, example="1.702")
    whitening: int | None = setting(None, NETWORK,
        "Number of whitened principal components that replace the pixels as input.", at_least=1, at_most=PIXELS)
    whitening_eps: float = setting(10.0, NETWORK, "Added to the variance of each component; a pixel's is 1.",
        above=0, example="10")
    initializer: str = setting("he", NETWORK, "Initial weights: he N(0, 2/d_in), xavier "
        "N(0, 1/d_in), normal N(0, sigma^2), which needs --sigma.",
        option="--init", label="init", choices=("he", "xavier", "normal"))
    sigma: float | None = setting(None, NETWORK, "Standard deviation of --init normal, in every layer.",
        above=0, example="0.01", differs_in_stack=True)

    lam: float = setting(0.005, OPTIMISATION, "The L2 coefficient: J = loss + lambda * sum of W squared.",
        option="--lambda", label="lambda", column="lambda", at_least=0, differs_in_stack=True)
    optimizer: str = setting("sgd", OPTIMISATION, "How W, b, gamma and beta are updated.", choices=("sgd", "adam"))
    momentum: float = setting(0.0, OPTIMISATION, "Nesterov momentum of sgd.", at_least=0, below=1, example="0.9")
    weight_decay: float = setting(
        0.0, OPTIMISATION, "Decoupled, besides the L2 cost: each update subtracts eta * X * W from W.", at_least=0)
    schedule: str = setting("cyclical", OPTIMISATION, "Learning rate eta: up and down in every cycle (cyclical), or "
        "once in the training (one-cycle); down along a cosine in every cycle; always eta_max (constant); "
        "rising, as of --lr-range-test (range).",
        choices=("cyclical", "one-cycle", "cosine", "constant", "range"))
    eta_min: float = setting(1e-5, OPTIMISATION, "The lowest eta, where a cycle ends.",
        at_least=0, differs_in_stack=True)
    eta_max: float = setting(1e-1, OPTIMISATION, "The highest eta of a cycle; the rate of the constant schedule.",
        at_least=0, differs_in_stack=True)
    eta_decay: float = setting(1.0, OPTIMISATION, "Factor of eta_max from one cycle to the next, for example 0.6.",
        above=0, at_most=1, example="0.6")
    step_epochs: float = setting(5.0, OPTIMISATION, "Half a cycle in epochs: n_s = X * floor(n / n_batch).", above=0)
    step_size: int | None = setting(None, OPTIMISATION, "Half a cycle in updates, n_s; overrides --step-epochs.",
        label="n_s", at_least=1, is_resolved=True)
    cycles: int = setting(2, OPTIMISATION, "Number of cycles; the epochs follow from it.", at_least=1, is_resolved=True)
    epochs: int | None = setting(None, OPTIMISATION,
        "Overrides --cycles, may end within a cycle. 0 evaluates the untrained network.", at_least=0, is_resolved=True)
    batch_size: int = setting(100, OPTIMISATION, "Images per update, n_batch.", label="n_batch", at_least=1)

    flip: bool = setting(False, REGULARISATION, "Mirror each training image with probability 1/2.", label="flips")
    shift: int = setting(0, REGULARISATION, "Shift each training image by up to N pixels in both directions.",
        at_least=0, at_most=MAX_SHIFT)
    contrast: float = setting(0.0, REGULARISATION, "Multiply each standardised image by a factor from 1 - X to 1 + X.",
        at_least=0, at_most=1, example="0.3")
    weak_augmentation: float = setting(0.0, REGULARISATION, "In this last share of the updates, for example 0.1, shift "
        "by at most 1 pixel, with a contrast of at most 0.1.", at_least=0, at_most=1)
    mixup: float = setting(
        0.0, REGULARISATION, "Mix pairs of images; alpha of the Beta distribution, for example 0.2.", at_least=0)
    dropout: float = setting(0.0, REGULARISATION, "Drop each hidden unit with this probability.", at_least=0, below=1)
    label_smoothing: float = setting(
        0.0, REGULARISATION, "Share of each label spread over all classes, for example 0.1.", at_least=0, below=1)
    weight_average: float = setting(0.0, REGULARISATION,
        "Evaluate the exponential average of the weights, with this decay, for example 0.999.", at_least=0, below=1)
    snapshots: bool = setting(False, EVALUATION,
        "Also average the probabilities of the networks at the ends of the cycles.", column="keeps_snapshots")
    evaluations_per_cycle: int | None = setting(
        None, EVALUATION, "Evaluations per cycle, instead of one per epoch; 0: only at the end.", at_least=0)

    split: SplitConfig = field(default_factory=SplitConfig)
    standardise: str = setting(
        "pixel", DATA, "Set mean 0 and deviation 1: of each pixel over the training images, or of each image.",
        label="standardised by", choices=("pixel", "image"))
    shuffle: bool = setting(True, DATA, "Shuffle the images in every epoch, or keep the order of the files.",
        label="shuffled")
    seed: int = setting(
        0, RANDOMNESS, "Seed of weights, order, dropout and augmentation; repeats add 1, 2, 3 and so on.",
        at_least=0, at_most=MAX_INTEGER, is_seed=True, differs_in_stack=True)
    order_seed: int | None = setting(
        None, RANDOMNESS, "A seed of its own for order, dropout and augmentation; if omitted, --seed.",
        at_least=0, at_most=MAX_INTEGER, is_seed=True)
    dtype: str = setting("float32", RANDOMNESS, "Precision of the arithmetic.", choices=("float32", "float64"))
    # fmt: on

    def __post_init__(self) -> None:
        super().__post_init__()
        divided = f"split {self.split!r}: must be a SplitConfig, for example SplitConfig(subset=1000)"
        require(isinstance(self.split, SplitConfig), divided)
        require(bool(self.hidden), "--hidden: give at least one width, for example --hidden 50 50")
        check_samples(self.bn_statistics, self.bn_samples)
        limits = f"--eta-min {self.eta_min} is above --eta-max {self.eta_max}: lower the first or raise the second"
        require(self.schedule == "constant" or self.eta_min <= self.eta_max, limits)
        rising = f"--eta-min {self.eta_min}: a range test rises from above 0 to a larger --eta-max"
        require(self.schedule != "range" or 0 < self.eta_min < self.eta_max, rising)
        if self.schedule not in CYCLIC:
            why = f"schedule {self.schedule} has no cycles, choose {' or '.join(CYCLIC)}"
            require(self.eta_decay == 1, f"--eta-decay {self.eta_decay}: {why}")
            require(not self.snapshots, f"--snapshots: {why}")
        own = f"--momentum {self.momentum}: belongs to --optimizer sgd, {self.optimizer} has its own, omit it"
        require(self.optimizer == "sgd" or self.momentum == 0, own)
        slope = f"--silu-slope {self.silu_slope}: belongs to --activation silu, relu has none, omit it"
        require(self.activation == "silu" or self.silu_slope == 1, slope)
        weak = f"--weak-augmentation {self.weak_augmentation}: limits --shift and --contrast, which are 0, give one"
        require(not self.weak_augmentation or bool(self.shift or self.contrast), weak)
        if self.initializer == "normal":
            require(self.sigma is not None, "--init normal needs --sigma, for example --sigma 0.01")
        else:
            require(self.sigma is None, f"--sigma {self.sigma}: only --init normal uses it, not {self.initializer}")
        single = f"--batch-size {self.batch_size}: batch normalisation maps a single image to beta, give at least 2"
        require(self.batch_size > 1 or not self.batch_norm, single)

    def unused(self) -> dict[str, tuple[str, str]]:
        """Return the settings without an effect on this training, by key: the setting at fault and the reason."""
        found: dict[str, tuple[str, str]] = {}
        if not self.batch_norm:
            own = ("bn_position", "bn_momentum", "bn_eps", "bn_statistics", "bn_samples")
            found |= dict.fromkeys(own, ("batch_norm", "the network has no batch normalisation, add --bn"))
        elif self.statistics_samples and self.evaluations_per_cycle == 0:
            own_images = f"{self.bn_statistics} statistics replace the running averages in the only evaluation, omit it"
            found["bn_momentum"] = "bn_statistics", own_images
        if self.whitening is None:
            found["whitening_eps"] = "whitening", "nothing is whitened, give --whitening N"
        if self.schedule == "constant":
            found["eta_min"] = "schedule", "the constant schedule has one rate, --eta-max: omit it"
        if self.mixup and self.batch_size == 1:
            found["mixup"] = "batch_size", "a single image has no partner, omit it"
        if self.dropout and not round(65536 * self.dropout):  # probabilities have 16 bits
            found["dropout"] = "dropout", "it is rounded to 0, omit it or give at least 1e-5"
        if self.shift <= WEAK_SHIFT and self.contrast <= WEAK_CONTRAST:
            weak = f"--shift and --contrast are not above its limits, {WEAK_SHIFT} and {WEAK_CONTRAST}, omit it"
            found["weak_augmentation"] = "shift", weak
        if not self.draws:
            found["order_seed"] = "shuffle", "without shuffling, augmentation and dropout nothing is drawn, omit it"
        if self.split.validation_batches:
            whole = f"--validation-batches {listed(self.split.validation_batches)} names the images: omit one"
            found["split.validation"] = "split.validation_batches", whole
        return found

    @property
    def draws(self) -> bool:
        """Whether a training draws more than its initial weights."""
        augments = self.flip or self.shift or self.contrast or self.mixup
        return bool(self.shuffle or augments or self.dropout or self.statistics_samples)

    @property
    def without_effect(self) -> set[str]:
        """The keys of all settings without an effect on this training; those not in `unused` are no mistake."""
        has_cycles = self.schedule in CYCLIC
        is_divided = self.schedule == "constant" and bool(self.evaluations_per_cycle)
        has_length = has_cycles or self.epochs is None or is_divided
        has_effect = {key: getattr(self, other) in values for key, (other, values) in NEEDED.items()} | {
            "eta_decay": has_cycles and (self.cycles > 1 or self.epochs is not None),
            "step_epochs": has_length and self.step_size is None,
            "step_size": has_length,
            "cycles": has_length,
        }
        return {*self.unused(), *(key for key, is_true in has_effect.items() if not is_true)}

    @property
    def statistics_samples(self) -> int | None:
        """The number of images for the BN statistics of evaluation; None if the policy draws none."""
        return SAMPLES.get(self.bn_statistics) if self.bn_samples is None else self.bn_samples

    @property
    def cure_of_divergence(self) -> str:
        """What to try if this training diverges: `try a smaller --eta-max than 0.1`, or the cause at any usual eta.

        An update of SGD multiplies W by 1 - eta (2 lambda + weight decay): below -1, W grows whatever the images are.
        """
        eta, is_sgd = min(self.eta_max, type(self).eta_max), self.optimizer == "sgd"
        causes = (
            ("smaller lambda", self.lam, (is_sgd and eta * self.lam > 1) or self.lam > HUGE),
            ("smaller --weight-decay", self.weight_decay, eta * self.weight_decay > 2),
            ("smaller --sigma", self.sigma or 0.0, (self.sigma or 0.0) > 1),
            ("smaller --silu-slope", self.silu_slope, self.silu_slope > HUGE),
            ("larger --bn-eps", self.bn_eps, self.batch_norm and self.bn_eps < 1 / HUGE),
            ("smaller --eta-max", self.eta_max, True),
        )
        return next(f"try a {cure} than {value:g}" for cure, value, is_cause in causes if is_cause)

    @property
    def lost_in_float32(self) -> dict[str, str]:
        """What float32 makes of settings that it cannot represent, by key: `0` or `infinite`."""
        keys = IN_ARITHMETIC if self.dtype == "float32" else ()
        values = {key: getattr(self, key) for key in keys if key not in self.without_effect}
        lost = {key: "infinite" for key, value in values.items() if value >= LARGEST32}
        return lost | {key: "0" for key, value in values.items() if 0 < value <= SMALLEST32}

    @property
    def shared_seed(self) -> int:
        """The seed of order, augmentation and dropout, which the replicas of a stack share."""
        return self.seed if self.order_seed is None else self.order_seed

    def to_json(self) -> str:
        """Return the config as a JSON object with one key per field."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """Return a config from `to_json`, also of an older version with fewer settings. Raises ConfigError."""
        try:
            return cls.from_values(json.loads(text))
        except (json.JSONDecodeError, TypeError) as error:
            raise ConfigError(f"config {str(text)[:40]!r}: not JSON ({error})") from None

    @classmethod
    def from_values(cls, values: Any) -> "TrainConfig":
        """Return the config of nested dictionaries, as parsed from JSON or TOML. Raises ConfigError."""
        require(isinstance(values, dict) and isinstance(values.get("split", {}), dict), "config: must be an object")
        split = values.get("split", {})
        flat = {key for key in values if key != "split"} | {f"split.{key}" for key in split}
        unknown = ", ".join(sorted(flat - set(settings_of(cls))))
        require(not unknown, f"config: unknown setting {unknown}, a newer klcli may have written it")
        return cls(**values | {"split": SplitConfig(**split)})


def check_statistics(policy: str | None, validation: int, test: int) -> None:
    """Raise ConfigError if a policy takes BN statistics of a single image: their variance is 0."""
    n = {"batch": min(validation, test), "adaptive": test}.get(policy or "", 2)
    require(n > 1, f"--bn-statistics {policy}: takes those of a single image, use more images or another policy")


def check_samples(policy: str, samples: int | None) -> None:
    """Raise ConfigError for a number of images with a policy that draws none."""
    allowed = samples is None or policy in SAMPLES
    require(allowed, f"--bn-samples {samples}: {policy} statistics draw no images, {' and '.join(SAMPLES)} do")
