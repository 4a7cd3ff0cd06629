"""The records that the store returns, one frozen dataclass per table with a field per column, and filters of runs."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar, cast

from klcli.arguments import checked
from klcli.errors import StoreError
from klcli.settings.columns import stored_value
from klcli.settings.sameness import without_seeds_in_split
from klcli.settings.setting import with_valid
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig

# Published reports are reproduced with the quirks of their code or from the weights of another training, which no
# setting describes. An older klcli stored no names of them.
METHOD = (
    "(SELECT coalesce(json_extract(settings, '$.method'), "
    "iif(json_extract(settings, '$.as_published'), 'as published', NULL)) FROM studies WHERE studies.id = study_id)"
)


class _Measured:
    def measure(self, split: str, name: str) -> float | None:
        """Return one metric, None if it was not measured. Raises AttributeError for an unknown one."""
        return cast(float | None, getattr(self, f"{split}_{name}"))


@dataclass(frozen=True, kw_only=True)
class Run(_Measured):
    """One training: its settings are in `config`, the other fields are its origin and results."""

    EXPRESSIONS: ClassVar = {"method": METHOD}  # of the fields that are no columns

    id: int
    study_id: int | None = None
    member: int | None = None  # position in the plan of the study
    state: str  # running, complete, interrupted, failed or diverged
    started_at: str  # UTC, ISO 8601
    finished_at: str | None = None
    host: str
    pid: int  # on that host, or in its container
    owner: str | None = None  # of the lock that is held while the run is trained
    command: str
    dataset: str
    dataset_sha256: str
    dataset_source: str  # place of the images: a path, or "built in"
    step_size: int  # n_s in updates
    cycles: float
    epochs: float  # planned
    threads: int  # of BLAS
    config_json: str  # of the TrainConfig
    versions_json: str  # of an object
    split_json: str | None = None  # the split of the config as SQLite writes it; an older klcli wrote fewer settings
    epochs_done: float = 0.0
    best_validation_accuracy: float | None = None
    train_loss: float | None = None
    train_cost: float | None = None
    train_accuracy: float | None = None
    validation_loss: float | None = None
    validation_cost: float | None = None
    validation_accuracy: float | None = None
    test_loss: float | None = None
    test_cost: float | None = None
    test_accuracy: float | None = None
    snapshots: int | None = None  # networks in the ensemble, None without one
    ensemble_validation_loss: float | None = None
    ensemble_validation_accuracy: float | None = None
    ensemble_test_loss: float | None = None
    ensemble_test_accuracy: float | None = None
    seconds: float | None = None
    checkpoint: str | None = None  # relative to the folder of the database
    checkpoint_sha256: str | None = None  # of its content
    previous_sha256: str | None = None  # of the checkpoint before it, kept until the run is complete
    error: str | None = None
    note: str | None = None
    tags: str | None = None  # words separated by spaces
    identity: str | None = None  # the same in all copies of the run
    origin: str | None = None  # the database from which it was merged
    origin_run: int | None = None  # its number there
    method: str | None = None  # `random biases`: what sets it apart from a training with the same settings

    @cached_property
    def config(self) -> TrainConfig:
        """The settings. Raises StoreError if this version of klcli cannot parse them."""
        return config_of(self.config_json, f"run {self.id}")

    def require_length(self) -> None:
        """Raise StoreError, which names the value, if no training has the length of this one: the row is damaged."""
        for name in ("step_size", "cycles", "epochs"):
            if (value := getattr(self, name)) and not _SHORTEST < value < _LONGEST:
                raise StoreError(f"run {self.id}: its stored settings are damaged ({name} = {value:g}), restore a copy")

    @cached_property
    def versions(self) -> dict[str, Any]:
        """Those of Python and the libraries; `later`, those with which it was resumed; empty in a foreign row."""
        try:
            found = json.loads(self.versions_json)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def unreadable(self) -> str | None:
        try:
            _ = self.config
        except StoreError as error:
            return str(error)
        return None

    @property
    def split(self) -> SplitConfig:
        return self.config.split


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What the mean over many runs needs of each of them: 100 000 fit into 50 MB."""

    id: int
    state: str
    dataset: str
    step_size: int
    cycles: float
    epochs: float
    repeated: TrainConfig  # the config without its seeds, one object for all repeats
    seed: int
    order_seed: int | None
    validation_accuracy: float | None
    test_accuracy: float | None

    @property
    def config(self) -> TrainConfig:
        return with_valid(self.repeated, seed=self.seed, order_seed=self.order_seed)

    @property
    def split(self) -> SplitConfig:
        return self.repeated.split


@dataclass(frozen=True, kw_only=True)
class Epoch(_Measured):
    """One evaluation of a run, by default at the end of an epoch."""

    run_id: int
    epoch: float  # updates done / updates per epoch
    step: int  # updates done
    learning_rate: float  # of the last update
    train_loss: float
    train_cost: float
    train_accuracy: float
    validation_loss: float
    validation_cost: float
    validation_accuracy: float
    seconds: float  # since the evaluation before


@dataclass(frozen=True, kw_only=True)
class Study:
    """A plan of many runs."""

    id: int
    kind: str  # lambda, sigma, repeats or reproduce
    stage: str | None
    settings: dict[str, Any]
    parent: int | None = None  # the study that it refines
    state: str  # running, complete, interrupted or failed
    created_at: str  # UTC, ISO 8601
    command: str | None = None  # None if an older klcli stored the study


@dataclass(frozen=True, kw_only=True)
class Evaluation(_Measured):
    """A later evaluation of one run, or of an ensemble of several."""

    id: int
    created_at: str  # UTC, ISO 8601
    command: str
    bn_statistics: str | None  # None without batch normalisation
    bn_samples: int | None  # number of images for the statistics, if some were drawn
    snapshots: bool
    flips: bool
    shifts: int
    seed: int | None  # of the images drawn, None if none were
    transductive: bool
    validation_loss: float
    validation_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    runs: list[int]  # the numbers of its runs, ascending


@dataclass(frozen=True, kw_only=True)
class GradientError:
    """The errors of the gradient with respect to one tensor."""

    check_id: int
    position: int  # in the order of the layers
    tensor: str
    entries: int
    kinks: int  # entries whose difference quotient crosses the kink of a ReLU
    max_absolute: float
    relative_to_sum: float
    relative_to_maximum: float
    ratio_of_maxima: float
    gradient_mean: float
    gradient_std: float
    equal_decimals: int | None = None  # as the next ones, None in a check of a klcli that did not measure it
    mismatches: float | None = None  # share of the entries that differ at `decimals` of the check
    ratio_of_sums: float | None = None
    numerical_mean: float | None = None
    numerical_std: float | None = None
    difference_mean: float | None = None
    difference_std: float | None = None
    difference_max: float | None = None
    passed: bool


@dataclass(frozen=True, kw_only=True)
class GradientCheck:
    """One network, or a stack of them, whose gradients were compared with finite differences."""

    id: int
    suite: int  # id of the first check of the same call
    created_at: str  # UTC, ISO 8601
    command: str
    dataset: str
    dataset_sha256: str
    images: int
    dims: int
    method: str
    h: float
    atol: float
    rtol: float
    decimals: int | None = None  # None as in the errors
    threshold: float | None = None  # of the ratio of sums
    passed: bool
    seconds: float
    configs_json: str  # of a list, one TrainConfig per network
    errors: tuple[GradientError, ...] = ()

    @cached_property
    def configs(self) -> tuple[TrainConfig, ...]:
        return tuple(config_of(json.dumps(one), f"gradient check {self.id}") for one in json.loads(self.configs_json))


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Runs that can be ranked together, because they have the same images and the same split."""

    dataset: str
    dataset_sha256: str
    split_json: str | None  # as in the latest Run
    splits_json: str = "[]"  # the texts of this split: those of an older klcli have fewer settings
    runs: int  # number of runs
    latest: int  # the id of the latest run

    def is_called(self, wanted: str | None) -> bool:
        """Whether this is the name of the images or the start of their sha256; None stands for any images."""
        return wanted in (None, self.dataset) or (wanted != "" and self.dataset_sha256.startswith(str(wanted)))

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(text for text in json.loads(self.splits_json) if text is not None)

    @property
    def split(self) -> SplitConfig:
        return config_of(f'{{"split": {self.split_json or "{}"}}}', f"the split {self.split_json!r} of a run").split


@checked
@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Conditions on runs; None is no condition. Raises ConfigError for a value of another type."""

    dataset_sha256: str | None = None
    images: tuple[str, ...] = ()  # several dataset_sha256
    splits: tuple[str, ...] = ()  # JSON, as in the column
    state: str | None = None
    batch_norm: bool | None = None
    since: str | None = None  # UTC, ISO 8601, as in the column
    tag: str | None = None
    where: str | None = None  # an SQL condition of the user on the columns of runs
    as_configured: bool | None = None  # only runs with a result of their config: no warm start, quirk or range test
    hidden: Iterable[int] | None = None  # the widths, as in a TrainConfig
    lam: float | None = None
    seed: int | None = None

    def on_images_of(self, one: ImageSet, *, as_configured: bool | None = True) -> "RunFilter":
        """Return the filter of the runs with these images, by default of those that can be ranked together."""
        return replace(self, dataset_sha256=one.dataset_sha256, splits=one.splits, as_configured=as_configured)

    def conditions(self) -> tuple[str, list[Any]]:
        names = ("dataset_sha256", "state", "batch_norm", "hidden", "seed")
        terms = {f"{name} = ?": stored_value(getattr(self, name)) for name in names} | {'"lambda" = ?': self.lam}
        terms |= {"started_at >= ?": self.since, "instr(' ' || tags || ' ', ' ' || ? || ' ') > 0": self.tag}
        for name, values in {"dataset_sha256": self.images, "split": self.splits}.items():
            several = {f"{name} IN (SELECT value FROM json_each(?))": json.dumps(values)} if values else {}
            terms |= {f"{name} = ?": values[0]} if len(values) == 1 else several  # one: in the order of the index
        given = {term: value for term, value in terms.items() if value is not None}
        own = [f"({self.where}\n)"] * (self.where is not None)  # the new line ends a comment in the condition
        return " AND ".join([*given, *own, *[AS_CONFIGURED] * bool(self.as_configured)]) or "1", [*given.values()]


@dataclass(frozen=True)
class Order:
    """A column of runs to sort by; runs without a value come last, as SQLite has them in descending order."""

    column: str
    descending: bool

    def sql(self) -> str:
        newest = ", id DESC" * (self.column == "started_at")  # times are stored to the second
        return f'"{self.column}" ' + (f"DESC{newest}" if self.descending else "ASC NULLS LAST")


# A range test ends where eta is too large on purpose: its last accuracy is no result.
AS_CONFIGURED = f"schedule IS NOT 'range' AND {METHOD} IS NULL"
# Equal for equal splits: an older klcli wrote fewer settings of them. json_patch drops those that are null.
_DEFAULTS = json.dumps({name: value for name, value in asdict(SplitConfig()).items() if value is not None})
ONE_SPLIT = f"CASE WHEN json_valid(split) THEN json_patch('{_DEFAULTS}', split) ELSE split END"
BEST_FIRST, NEWEST_FIRST = Order("validation_accuracy", descending=True), Order("started_at", descending=True)


def config_of(text: str, owner: str) -> TrainConfig:
    """Parse stored settings, those without seeds once (50 us). Raises StoreError, which names the owner."""
    config, *seeds = repeated_of(text, owner)
    return with_valid(config, **dict(zip(("seed", "order_seed"), seeds, strict=True)))


def repeated_of(text: str, owner: str) -> tuple[TrainConfig, int, int | None]:
    """Return stored settings with seed and order seed at their defaults, and these two. Raises StoreError."""
    try:
        if (seeds := _SEEDS.search(text)) is None:
            config = _cached(text)
            return without_seeds_in_split(config), config.seed, config.order_seed
        seed, order = seeds.groups()
        config = _cached(f'{text[: seeds.start()]}"seed": 0, "order_seed": null{text[seeds.end() :]}')
        return config, int(seed), None if order == "null" else int(order)
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"{owner}: settings that cannot be read ({error}), update klcli or restore a copy") from error


_SEEDS = re.compile(r'"seed": ?(\d{1,18}), ?"order_seed": ?(\d{1,18}|null)(?=[,}])')  # valid ones: below 2**63
_SHORTEST, _LONGEST = 1e-12, 1e15  # updates, cycles and epochs of a training other than 0: products stay finite
_cached = lru_cache(maxsize=1024)(TrainConfig.from_json)
