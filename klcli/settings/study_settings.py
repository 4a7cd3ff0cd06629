"""What the search of lambda and the reproduction of reports try; the settings of their trainings are a TrainConfig."""

from dataclasses import dataclass

from klcli.errors import ConfigError
from klcli.settings.setting import Role, Settings, flag, require, setting

SEARCH, REPRODUCTION = "Search", "Reproduction"  # panels of --help


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Settings):
    """What a search of lambda tries. Raises ConfigError where its parts exclude each other."""

    coarse: bool = flag(SEARCH, "Draw lambda from the whole range; the default.")
    fine: int = setting(
        0, SEARCH, "Then draw from a range that brackets the three best; twice: again.", at_least=0, is_counted=True
    )
    rounds: int = setting(0, SEARCH, "Narrow the range this many times, as so many --fine do.", at_least=0)
    from_study: int | None = setting(None, SEARCH, "Begin --fine at this study, not at the latest.", option="--from")
    values: tuple[float, ...] = setting((), SEARCH, "Try these lambdas instead of drawing any.", at_least=0)
    between: tuple[float, ...] = setting(
        (1e-5, 1e-1), SEARCH, "Draw the values of --coarse from this range.", option="--range", metavar="LOW HIGH"
    )
    scale: str = setting("log", SEARCH, "Draw uniformly in log lambda, or in lambda.", choices=("log", "linear"))
    trials: int = setting(8, SEARCH, "Try so many values per stage.", at_least=1, at_most=1000)
    final: bool = flag(SEARCH, "Train the chosen one for 3 cycles and evaluate it on the test split.")

    def __post_init__(self) -> None:
        super().__post_init__()
        ends = " ".join(f"{value:g}" for value in self.between)
        require(len(self.between) == 2, f"--range {ends}: give two numbers, for example --range 1e-5 1e-1")
        if self.values and (self.coarse or self.fine_stages):
            listed = " ".join(f"{value:g}" for value in self.values)
            raise ConfigError(f"--values {listed}: a list needs no --coarse and no --fine, omit one of them")
        if self.from_study is not None and (self.coarse or self.values or not self.fine_stages):
            raise ConfigError(f"--from {self.from_study}: this is where --fine begins, give --fine and no other stage")

    @property
    def fine_stages(self) -> int:
        """How many times the range is narrowed."""
        return max(self.fine, self.rounds)


@dataclass(frozen=True, kw_only=True)
class ReproductionSettings(Settings):
    """What of published reports is reproduced."""

    only: tuple[str, ...] = setting((), REPRODUCTION, "Take these rows alone, as T2a or 003-T2.", metavar="ROW...")
    quick: bool = flag(REPRODUCTION, "Train at most 2 seeds, and 1 cycle each: a look, marked as such.")
    as_published: bool = flag(
        REPRODUCTION, "Take the rows that a mistake has made, with it: a search that never begins anew, a check of one "
        "image.",
    )  # fmt: skip
    subset: int | None = setting(None, Role.DATA, "Use the first N training images: compares nothing.", at_least=1)
    note: str | None = setting(
        None, Role.OUTPUT, "Say at the head of the page what its reader must know.", metavar="TEXT"
    )
