"""Settings of evaluations, gradient checks, searches and reproductions. Without NumPy: the command line imports it."""

from collections.abc import Sequence
from dataclasses import dataclass

from klcli.settings.run_names import parsed_study
from klcli.settings.setting import MAX_INTEGER, Role, Settings, flag, require, setting
from klcli.settings.train_config import BN_STATISTICS, MAX_SHIFT, PIXELS, SAMPLES, check_samples

# A centred difference errs by h^2 and by rounding, a forward one by h: it cannot meet the same tolerance.
TOLERANCES = {"centred": (1e-8, 1e-6), "forward": (1e-4, 1e-3)}
SIGMAS = (1e-1, 1e-3, 1e-4)  # standard deviations of the initial weights in the course
# What differs between repeats: every seed, the weights alone, all but the weights, every seed and the split.
VARY = ("all", "init", "order", "split")
MOST_REPEATS, MOST_THREADS = 1000, 1024  # as many processes as threads
EXPORT_FORMATS = ("npz", "safetensors")  # of a network
MEASURES, ALL = ("errors", "ratios", "decimals", "moments"), "all"  # groups of columns of a gradient check
IN_GRADIENT = (  # the settings that a gradient check has
    "hidden", "activation", "silu_slope", "batch_norm", "bn_position", "bn_eps", "initializer", "sigma", "lam",
    "dropout", "label_smoothing", "standardise",
)  # fmt: skip
EXPORT = "klcli.npz"  # of gradients, for another program
EXPORT_IMAGES = 12  # not as many as classes: shapes and factors then tell mistakes apart
SEARCH, REPRODUCTION = "Search", "Reproduction"  # panels of --help


@dataclass(frozen=True, kw_only=True)
class CheckSettings(Settings):
    """The settings of a gradient check. Raises ConfigError if the check could not run or could not fail."""

    # fmt: off
    images: int = setting(10, Role.CHECK, "Use the first N training images; --export uses 12 if omitted.",
        at_least=1)
    dims: int = setting(30, Role.CHECK, "Use the first N pixels of each.", at_least=1, at_most=PIXELS)
    method: str = setting("centred", Role.CHECK, "Difference quotient.", choices=tuple(TOLERANCES))
    h: float = setting(1e-5, Role.CHECK, "The step of the difference.", above=0, below=1, example="1e-5")
    atol: float | None = setting(None, Role.CHECK, "A tensor passes below this max absolute error, which is also a "
        "fraction of its largest |ga| + |gn| (1e-8 if centred),", above=0, below=1)
    rtol: float | None = setting(
        None, Role.CHECK, "or below this max relative error (1e-6 if centred).", above=0, below=1)
    decimals: int = setting(6, Role.CHECK, "Measure the share of entries that differ at N decimals, as numpy's "
        "assert_almost_equal finds it.", at_least=0, at_most=16)
    threshold: float = setting(1e-5, Role.CHECK, "Count the tensors whose sum |ga - gn| is below this part of "
        "sum |ga + gn|.", above=0)
    # fmt: on

    def __post_init__(self) -> None:
        """Check the values; a missing tolerance becomes one that the method can meet."""
        super().__post_init__()
        for name, default in zip(("atol", "rtol"), TOLERANCES[self.method], strict=True):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Settings):
    """The settings of a later evaluation of trained networks. Raises ConfigError if they contradict each other."""

    # fmt: off
    snapshots: bool = setting(False, Role.EVALUATION,
        "Average the probabilities of the networks at the ends of the cycles of a run.")
    bn_statistics: str | None = setting(None, Role.EVALUATION,
        "Statistics of batch normalisation, as for train; those of the run if omitted.", choices=BN_STATISTICS)
    bn_samples: int | None = setting(
        None, Role.EVALUATION, "Maximum number of images for precise (10000) and adaptive (1000).", at_least=2)
    flips: bool = setting(False, Role.EVALUATION, "Average the probabilities of an image and its mirror image.")
    shifts: int = setting(0, Role.EVALUATION,
        "Also average over the image shifted by N pixels to its four sides; 0: none.", at_least=0, at_most=MAX_SHIFT)
    seed: int | None = setting(None, Role.RANDOMNESS,
        "Seed of the images for precise and adaptive; the order seed of the run if omitted.",
        at_least=0, at_most=MAX_INTEGER)
    # fmt: on

    def __post_init__(self) -> None:
        super().__post_init__()
        policy, without = self.bn_statistics, self.bn_statistics is None and self.bn_samples is not None
        require(not without, f"--bn-samples {self.bn_samples}: needs --bn-statistics precise or adaptive")
        check_samples(policy or "", self.bn_samples)
        draws = policy in SAMPLES
        require(self.seed is None or draws, f"--seed {self.seed}: only precise and adaptive statistics draw images")

    @property
    def samples(self) -> int | None:
        """The number of images to draw, None if none are drawn."""
        return self.bn_samples or SAMPLES.get(self.bn_statistics or "")


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Settings):
    """The settings of a lambda search. Raises ConfigError if they exclude each other."""

    # fmt: off
    coarse: bool = flag(SEARCH, "Draw lambda from the whole range; the default.")
    fine: int = setting(0, SEARCH, "Then draw from a range that brackets the three best; twice narrows it again.",
        at_least=0, at_most=20, is_counted=True)
    rounds: int = setting(0, SEARCH, "Narrow the range N times, like N times --fine.", at_least=0, at_most=20)
    from_study: str | int | None = setting(None, SEARCH,
        "Start --fine from this coarse or fine study, not from the latest coarse one of these settings.",
        option="--from", metavar="STUDY|last")
    values: tuple[float, ...] = setting((), SEARCH, "Try these lambdas instead of drawing any.", at_least=0)
    between: tuple[float, ...] = setting((1e-5, 1e-1), SEARCH, "Draw the values of --coarse from this range.",
        option="--range", metavar="LOW HIGH")
    scale: str = setting("log", SEARCH, "Draw uniformly in log lambda, or in lambda.", choices=("log", "linear"))
    trials: int = setting(8, SEARCH, "Try N values per stage.", at_least=1, at_most=1000)
    final: bool = flag(SEARCH, "Train the chosen lambda for 3 cycles of 10 epochs and evaluate it on the test set.")
    # fmt: on

    def __post_init__(self) -> None:
        if self.from_study is not None:
            object.__setattr__(self, "from_study", str(self.from_study))
            parsed_study(str(self.from_study), "--from")
        super().__post_init__()
        ends = " ".join(f"{value:g}" for value in self.between)
        require(len(self.between) == 2, f"--range {ends}: give two numbers, for example --range 1e-5 1e-1")
        listed = " ".join(f"{value:g}" for value in self.values)
        alone = not (self.values and (self.coarse or self.fine_stages))
        require(alone, f"--values {listed}: a list needs no --coarse and no --fine, omit one of them")
        only_fine = self.fine_stages > 0 and not (self.coarse or self.values)
        require(self.from_study is None or only_fine, f"--from {self.from_study}: needs --fine and no other stage")

    def unused(self) -> dict[str, tuple[str, str]]:
        if self.values:
            return dict.fromkeys(("between", "scale", "trials"), ("values", "--values are all that is tried, omit one"))
        if self.fine_stages and not self.coarse:
            why = "--fine narrows the range of an earlier study, add --coarse to draw from this one"
            return dict.fromkeys(("between", "scale"), ("coarse", why))
        return {}

    @property
    def fine_stages(self) -> int:
        """The number of times that the range is narrowed."""
        return max(self.fine, self.rounds)


@dataclass(frozen=True, kw_only=True)
class ReproductionSettings(Settings):
    """The settings of a reproduction of published reports."""

    # fmt: off
    only: tuple[str, ...] = setting((), REPRODUCTION, "Use only these rows, such as T2a or 003-T2.", metavar="ROW...")
    quick: bool = flag(REPRODUCTION, "Train at most 2 seeds and 1 cycle of each; the results are marked as quick.")
    subset: int | None = setting(None, Role.DATA, "Use the first N training images; for tests only.", at_least=1)
    note: str | None = setting(None, Role.OUTPUT, "Add this text at the head of the page.", metavar="TEXT")
    # fmt: on


def measures_of(given: Sequence[str]) -> tuple[str, ...]:
    """Return each given group of measures once, and every one for `all`."""
    return MEASURES if ALL in given else tuple(dict.fromkeys(given))
