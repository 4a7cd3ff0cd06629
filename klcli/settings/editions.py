"""Editions: what the assignments of the course ask, and what the published reports of them did."""

from dataclasses import dataclass, replace

from klcli.settings.setting import MAX_INTEGER, Role, Settings, setting
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig

ASSIGNMENT = "Assignment"  # panel of --help
THREE_LAYERS, NINE_LAYERS = (50, 50), (50, 30, 20, 20, 10, 10, 10, 10)
CHECK_LAMBDAS = (0.0, 0.01)


@dataclass(frozen=True, kw_only=True)
class Edition:
    """The experiments of one assignment."""

    name: str
    course: str
    date: str
    report: str = "-"  # the number of the published report, if it is not the text of the course
    checked: tuple[TrainConfig, ...]  # the networks whose gradients are checked
    curves: tuple[tuple[TrainConfig, ...], ...]  # a figure each, of one network or of one without and with BN
    search: TrainConfig  # of the lambda search
    trials: int  # lambdas per stage
    fine: int = 1  # times that the range is narrowed
    final: TrainConfig  # trained with the chosen lambda
    sweep: TrainConfig | None = None  # trained with every sigma, without and with BN


def _both(*hidden: int) -> tuple[TrainConfig, ...]:
    return tuple(TrainConfig(hidden=hidden, batch_norm=bn) for bn in (False, True))


_A3 = Edition(
    name="a3", course="KTH DD2424, Assignment 3", date="2021 to 2024",
    checked=tuple(TrainConfig(hidden=(50,) * n, batch_norm=bn) for bn in (False, True) for n in (1, 2, 3)),
    curves=(_both(*THREE_LAYERS), _both(*NINE_LAYERS)),
    search=TrainConfig(batch_norm=True, step_epochs=2), trials=8,
    final=TrainConfig(batch_norm=True, cycles=3), sweep=TrainConfig(),
)  # fmt: skip
_ONE_FILE = TrainConfig(hidden=(50,), lam=0.01, split=SplitConfig(train_batches=(1,), validation_batches=(2,)))
_A2 = Edition(
    name="a2-2019", report="002", course="KTH DD2424, Assignment 2", date="October 2019",
    checked=_A3.checked[:1],
    curves=((replace(_ONE_FILE, step_size=500, cycles=1),), (replace(_ONE_FILE, step_size=800, cycles=3),)),
    search=TrainConfig(hidden=(50,), step_epochs=2), trials=10,
    final=TrainConfig(hidden=(50,), step_epochs=2, cycles=3, split=SplitConfig(validation=1000)),
)  # fmt: skip
_SHORT_SWEEP = TrainConfig(step_epochs=2, cycles=5)
_LONG_SWEEP = replace(_SHORT_SWEEP, hidden=NINE_LAYERS)
_WITH_BN = replace(_A3, search=TrainConfig(batch_norm=True), final=TrainConfig(batch_norm=True))
_EDITIONS = (
    _A3, _A2,
    replace(_A3, name="a3-2021", report="000", date="July 2021", trials=20, fine=2, sweep=_LONG_SWEEP),
    replace(_WITH_BN, name="a3-2022", report="001", date="May 2022", trials=10, sweep=_SHORT_SWEEP),
    replace(_WITH_BN, name="a3-2024", report="003", date="May 2024"),
)  # fmt: skip
EDITIONS = {one.name: one for one in _EDITIONS}


@dataclass(frozen=True, kw_only=True)
class AssignmentSettings(Settings):
    """Which assignment to train, and how its trainings are shortened."""

    # fmt: off
    edition: str = setting(_A3.name, ASSIGNMENT, "What to train; --editions shows what each one asks.",
        choices=tuple(EDITIONS))
    trials: int | None = setting(None, ASSIGNMENT, "Try N lambdas per stage.", at_least=1, at_most=1000)
    epochs: float | None = setting(None, ASSIGNMENT,
        "Train every network for N epochs, with as many cycles as asked; for a rehearsal.", above=0, metavar="N")
    subset: int | None = setting(None, Role.DATA,
        "Use the first N training images; validation and test shrink in proportion.", at_least=100)
    repeats: int = setting(1, Role.RANDOMNESS,
        "Train with this many seeds per setting, from --seed on; figures and tables show means.",
        at_least=1, at_most=100, metavar="N")
    seed: int = setting(0, Role.RANDOMNESS, "Seed of weights, order and lambdas.", at_least=0, at_most=MAX_INTEGER)
    # fmt: on

    @property
    def chosen(self) -> Edition:
        """The edition, with these trainings."""
        one = EDITIONS[self.edition]
        return replace(
            one, checked=tuple(replace(config, seed=self.seed) for config in one.checked),
            curves=tuple(tuple(map(self._changed, configs)) for configs in one.curves),
            search=self._changed(one.search), trials=self.trials or one.trials,
            final=self._changed(one.final), sweep=one.sweep and self._changed(one.sweep),
        )  # fmt: skip

    def _changed(self, config: TrainConfig) -> TrainConfig:
        config = replace(config, seed=self.seed, split=replace(config.split, subset=self.subset))
        if self.epochs is None:
            return config
        return replace(config, step_epochs=self.epochs / (2 * config.cycles), step_size=None)
