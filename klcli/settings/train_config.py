"""TrainConfig: everything that decides how a network is trained, except the images themselves."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from klcli.errors import ConfigError
from klcli.settings.split_config import SplitConfig

INITIALIZERS = ("he", "xavier", "normal")
SCHEDULES = ("cyclical", "one-cycle", "cosine", "constant", "range")
CYCLIC = ("cyclical", "cosine")  # the schedules that begin again after 2 n_s updates
OPTIMIZERS = ("sgd", "adam")
BN_POSITIONS = ("before", "after")
BN_STATISTICS = ("ema", "precise", "adaptive", "batch")
SAMPLES = {"precise": 10_000, "adaptive": 1_000}  # images of a policy that draws some
TRANSDUCTIVE = ("adaptive", "batch")  # test images have a part in their own classification
STANDARDISATIONS = ("pixel", "image")
DTYPES = ("float32", "float64")
MAX_SHIFT = 31  # pixels: with 32 nothing would be left of an image
MAX_SEED = 2**63 - 1  # the largest integer of the database
MAX_COMPONENTS = 3072  # an image has so many pixels
MAX_WIDTH = 65_536  # the first layer alone would take 0.8 GB


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training, validated when it is made: a wrong value raises ConfigError, one line with the cure."""

    preset: str | None = None  # the name of the settings it began with; all of them stand here

    # the network
    hidden: tuple[int, ...] = (50, 50)  # widths of the hidden layers; k = len(hidden) + 1 layers
    batch_norm: bool = False
    bn_position: str = "before"  # the activation: Linear -> BN -> ReLU, as in the BN paper
    bn_momentum: float = 0.9  # alpha of the running averages
    bn_eps: float = 1e-8  # small, because sigma = 1e-4 feeds BN variances near 1e-7
    bn_statistics: str = "ema"  # with which the trained network is evaluated
    bn_samples: int | None = None  # images of precise and adaptive; None: SAMPLES
    whitening: int | None = None  # the first layer sees so many principal components of the images, whitened
    whitening_eps: float = 10.0  # added to their variances, that of a pixel being 1
    initializer: str = "he"
    sigma: float | None = None  # standard deviation, for initializer "normal" only

    # the cost and the updates
    lam: float = 0.005  # lambda, the L2 coefficient
    optimizer: str = "sgd"
    momentum: float = 0.0  # of sgd, Nesterov's; adam has its own
    weight_decay: float = 0.0  # decoupled, beside the L2 term: W <- (1 - eta * weight_decay) W
    schedule: str = "cyclical"
    eta_min: float = 1e-5
    eta_max: float = 1e-1  # also the rate of the constant schedule
    eta_decay: float = 1.0  # eta_max is multiplied by it from one cycle to the next
    batch_size: int = 100
    step_epochs: float = 5  # n_s = step_epochs * floor(n / n_batch) updates, half a cycle
    step_size: int | None = None  # n_s itself; overrides step_epochs
    cycles: int = 2
    epochs: int | None = None  # overrides cycles; may end in the middle of one

    # what makes the training images harder than those of the evaluation
    flip: bool = False  # each mirrored with probability 1/2
    shift: int = 0  # each moved by up to so many pixels in both directions
    mixup: float = 0.0  # alpha of the Beta distribution from which the shares of two mixed images are drawn
    dropout: float = 0.0  # the probability with which a hidden unit is left out
    label_smoothing: float = 0.0  # the share of each label that all classes have in equal parts

    # what is evaluated, beside or in place of the last weights
    weight_average: float = 0.0  # decay of their exponential average, which takes their place; 0: none
    snapshots: bool = False  # also the mean of the networks at the ends of the cycles

    # the data, the randomness, the arithmetic
    split: SplitConfig = field(default_factory=SplitConfig)
    standardise: str = "pixel"  # each pixel over the training images, or each image by itself
    seed: int = 0
    shuffle: bool = True  # every epoch has an order of its own; without, all have that of the files
    order_seed: int | None = None  # the order of the images; None: the seed's. Members of a group share one
    dtype: str = "float32"
    evaluations_per_cycle: int | None = None  # None: once per epoch; 0: only at the end

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        self._check_types()
        if not self.hidden:
            raise ConfigError("hidden is empty: give at least one width, for example --hidden 50 50")
        for width in self.hidden:
            _require(1 <= width <= MAX_WIDTH, f"hidden width {width}: must be from 1 to {MAX_WIDTH}")
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            _require(value in allowed, f"{name} {value!r}: choose one of {', '.join(allowed)}")
        _require(_finite(self.lam) and self.lam >= 0, f"lambda {self.lam}: must be a finite number of at least 0")
        _require(0 <= self.bn_momentum < 1, f"BN momentum {self.bn_momentum}: must be at least 0 and below 1")
        _require(_finite(self.bn_eps) and self.bn_eps > 0, f"BN eps {self.bn_eps}: must be above 0, for example 1e-8")
        check_samples(self.bn_statistics, self.bn_samples)
        self._check_rates()
        self._check_optimizer()
        self._check_initializer()
        self._check_counts()
        self._check_whitening()
        self._check_options()

    def _check_types(self) -> None:
        """Refuse what a stored JSON may hold and the type checker cannot see."""
        _require(isinstance(self.hidden, list | tuple), f"hidden {self.hidden!r}: must be a list of widths")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        values = {f"hidden width {index}": width for index, width in enumerate(self.hidden, start=1)}
        values |= {name: getattr(self, name) for name in _INTEGERS}
        for name, value in values.items():
            whole = isinstance(value, int) and not isinstance(value, bool)
            _require(whole or (value is None and name in _OPTIONAL), f"{name} {value!r}: must be a whole number")
        _require(self.preset is None or isinstance(self.preset, str), f"preset {self.preset!r}: must be a name")
        for name in _NUMBERS:
            value = getattr(self, name)
            real = isinstance(value, int | float) and not isinstance(value, bool)
            _require(real or (value is None and name in _OPTIONAL), f"{name} {value!r}: must be a number")
            if isinstance(value, int) and abs(value) < MAX_SEED:  # 5 and 5.0 are one setting, and one text in JSON
                object.__setattr__(self, name, float(value))

    def _check_rates(self) -> None:
        for name in ("eta_min", "eta_max"):
            value = getattr(self, name)
            _require(_finite(value) and value >= 0, f"{name} {value}: must be a finite number of at least 0")
        _require(
            self.eta_min <= self.eta_max, f"eta_min {self.eta_min} is above eta_max {self.eta_max}: exchange the two"
        )

        _require(self.schedule != "range" or self.eta_min > 0, f"eta_min {self.eta_min}: a range must begin above 0")
        decay = self.eta_decay
        _require(0 < decay <= 1, f"eta decay {decay}: must be above 0 and at most 1, for example 0.6")
        _require(
            decay == 1 or self.schedule in CYCLIC,
            f"eta decay {decay}: per cycle, and schedule {self.schedule} has no cycles, choose {' or '.join(CYCLIC)}",
        )

    def _check_optimizer(self) -> None:
        _require(0 <= self.momentum < 1, f"momentum {self.momentum}: must be at least 0 and below 1")
        _require(
            self.optimizer == "sgd" or self.momentum == 0,
            f"momentum {self.momentum}: belongs to --optimizer sgd, {self.optimizer} has its own, leave it away",
        )
        decay = self.weight_decay
        _require(_finite(decay) and decay >= 0, f"weight decay {decay}: must be a finite number of at least 0")

    def _check_initializer(self) -> None:
        if self.initializer != "normal":
            _require(self.sigma is None, f"sigma {self.sigma}: only --init normal has one, not {self.initializer}")
            return
        _require(
            self.sigma is not None and _finite(self.sigma) and self.sigma > 0,
            f"sigma {self.sigma}: --init normal needs a standard deviation above 0, for example --sigma 0.01",
        )

    def _check_counts(self) -> None:
        minimum = 2 if self.batch_norm else 1
        why = "batch normalisation of a single image leaves nothing of it, " if self.batch_norm else ""
        _require(self.batch_size >= minimum, f"batch size {self.batch_size}: {why}must be at least {minimum}")
        _require(self.cycles >= 1, f"cycles {self.cycles}: must be at least 1")
        _require(self.epochs is None or self.epochs >= 0, f"epochs {self.epochs}: must be at least 0")
        _require(
            self.step_size is None or self.step_size >= 1, f"step size {self.step_size}: must be at least 1 update"
        )
        _require(_finite(self.step_epochs) and self.step_epochs > 0, f"step epochs {self.step_epochs}: must be above 0")
        per_cycle = self.evaluations_per_cycle
        _require(per_cycle is None or per_cycle >= 0, f"evaluations per cycle {per_cycle}: must be at least 0")
        for name in ("seed", "order_seed"):
            value = getattr(self, name)
            _require(value is None or 0 <= value <= MAX_SEED, f"{name} {value}: must be from 0 to {MAX_SEED}")

    @property
    def statistics_samples(self) -> int | None:
        """How many images give the statistics of evaluation; None where the policy draws none."""
        return SAMPLES.get(self.bn_statistics) if self.bn_samples is None else self.bn_samples

    def _check_whitening(self) -> None:
        k, eps = self.whitening, self.whitening_eps
        _require(k is None or 1 <= k <= MAX_COMPONENTS, f"whitening {k}: must be from 1 to {MAX_COMPONENTS} components")
        _require(_finite(eps) and eps > 0, f"whitening eps {eps}: must be above 0, for example 10")

    def _check_options(self) -> None:
        for name in ("flip", "shuffle"):
            _require(isinstance(getattr(self, name), bool), f"{name} {getattr(self, name)!r}: must be true or false")
        _require(0 <= self.shift <= MAX_SHIFT, f"shift {self.shift}: must be from 0 to {MAX_SHIFT} pixels")
        _require(_finite(self.mixup) and self.mixup >= 0, f"mixup {self.mixup}: must be a finite number of at least 0")
        for name in ("dropout", "label_smoothing", "weight_average"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"{name.replace('_', ' ')} {value}: must be at least 0 and below 1")
        _require(isinstance(self.snapshots, bool), f"snapshots {self.snapshots!r}: must be true or false")
        _require(
            not self.snapshots or self.schedule in CYCLIC,
            f"snapshots: of the ends of cycles, and schedule {self.schedule} has none, choose {' or '.join(CYCLIC)}",
        )

    @property
    def shared_seed(self) -> int:
        """The seed of all that the members of a group share: order, augmentation, dropout."""
        return self.seed if self.order_seed is None else self.order_seed

    def to_json(self) -> str:
        """Return the config as a JSON object with one key per field."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """Return the config that `to_json` wrote. Raises ConfigError for an unknown key or a wrong value."""
        try:
            values: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"config {text[:40]!r}: this is no JSON ({error})") from None
        _require(
            isinstance(values, dict) and isinstance(values.get("split", {}), dict), "config: must be a JSON object"
        )
        split = values.get("split", {})
        for part, owner in ((values, cls), (split, SplitConfig)):
            unknown = sorted(set(part) - {field.name for field in fields(owner)})
            _require(not unknown, f"config key {unknown}: unknown to this version of klcli, a newer one wrote it")
        return cls(**values | {"split": SplitConfig(**split)})


_INTEGERS = (
    "bn_samples", "batch_size", "step_size", "cycles", "epochs", "shift", "seed", "order_seed", "evaluations_per_cycle",
    "whitening",
)  # fmt: skip
_NUMBERS = (
    "bn_momentum", "bn_eps", "sigma", "lam", "momentum", "weight_decay", "eta_min", "eta_max", "eta_decay",
    "step_epochs", "mixup", "dropout", "label_smoothing", "weight_average", "whitening_eps",
)  # fmt: skip
_OPTIONAL = ("bn_samples", "step_size", "epochs", "order_seed", "evaluations_per_cycle", "sigma", "whitening")
_CHOICES = {
    "initializer": INITIALIZERS,
    "schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
    "bn_position": BN_POSITIONS,
    "bn_statistics": BN_STATISTICS,
    "standardise": STANDARDISATIONS,
    "dtype": DTYPES,
}


def check_samples(policy: str, samples: int | None) -> None:
    """Refuse a number of images that gives no statistics. Raises ConfigError."""
    if samples is None:
        return
    _require(policy in SAMPLES, f"BN samples {samples}: {policy} statistics draw no images, {_DRAWING} do")
    _require(samples >= 2, f"BN samples {samples}: must be at least 2, one image has no variance")


_DRAWING = " and ".join(SAMPLES)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _finite(value: float) -> bool:
    return math.isfinite(value)
