"""EvaluationSettings: how trained networks are evaluated again. Free of NumPy: the command line reads its defaults."""

from dataclasses import dataclass

from klcli.errors import ConfigError
from klcli.settings.setting import MAX_INTEGER, Role, Settings, setting
from klcli.settings.train_config import BN_STATISTICS, MAX_SHIFT, SAMPLES, check_samples


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Settings):
    """How trained networks are evaluated again. Raises ConfigError for what cannot be."""

    snapshots: bool = setting(
        False, Role.EVALUATION, "Average the networks at the ends of the cycles of a run, in place of its last network."
    )
    bn_statistics: str | None = setting(
        None, Role.EVALUATION, "Statistics of batch normalisation, as for train; those that the run ended with if "
        "omitted.", choices=BN_STATISTICS,
    )  # fmt: skip
    bn_samples: int | None = setting(
        None, Role.EVALUATION, "Images of precise (10000) and adaptive (1000), at most.", at_least=2
    )
    flips: bool = setting(False, Role.EVALUATION, "Average the probabilities of an image and its mirror image.")
    shifts: int = setting(
        0, Role.EVALUATION, "And of the image moved by so many pixels to its four sides; 0: none.", at_least=0,
        at_most=MAX_SHIFT,
    )  # fmt: skip
    seed: int | None = setting(
        None, Role.RANDOMNESS, "Seed of the images that precise and adaptive draw; the run's own if omitted.",
        at_least=0, at_most=MAX_INTEGER,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        policy = self.bn_statistics
        if policy is None and self.bn_samples is not None:
            raise ConfigError(f"--bn-samples {self.bn_samples}: say of which with --bn-statistics precise or adaptive")
        check_samples(policy or "", self.bn_samples)
        if self.seed is not None and policy not in SAMPLES:
            raise ConfigError(f"--seed {self.seed}: only precise and adaptive statistics draw images")

    @property
    def samples(self) -> int | None:
        """How many images are drawn, None where none are."""
        return self.bn_samples or SAMPLES.get(self.bn_statistics or "")
