"""CheckSettings: how gradients are checked. Free of NumPy, because the command line reads its defaults."""

from dataclasses import dataclass

from klcli.settings.setting import Role, Settings, setting

PIXELS = 3072  # of an image
# A centred difference errs by h^2 and by rounding, a forward one by h: it cannot meet the same tolerance.
TOLERANCES = {"centred": (1e-8, 1e-6), "forward": (1e-4, 1e-3)}


@dataclass(frozen=True, kw_only=True)
class CheckSettings(Settings):
    """How the gradients are checked. Raises ConfigError where the check could not fail or not run."""

    images: int = setting(10, Role.CHECK, "Use the first N training images.", at_least=1)
    dims: int = setting(30, Role.CHECK, "Use the first N pixels of each.", at_least=1, at_most=PIXELS)
    method: str = setting("centred", Role.CHECK, "Which difference quotient.", choices=tuple(TOLERANCES))
    h: float = setting(1e-5, Role.CHECK, "The step of the difference.", above=0, below=1, example="1e-5")
    atol: float | None = setting(
        None, Role.CHECK, "A tensor passes below this max absolute error (1e-8 if centred),", above=0, below=1
    )
    rtol: float | None = setting(
        None, Role.CHECK, "or below this max relative error (1e-6 if centred).", above=0, below=1
    )

    def __post_init__(self) -> None:
        """Check the values; a tolerance that is not given becomes what the method can meet."""
        super().__post_init__()
        for name, default in zip(("atol", "rtol"), TOLERANCES[self.method], strict=True):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
