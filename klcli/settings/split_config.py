"""SplitConfig: which images train, validate and test. Free of NumPy, because the command line reads its defaults."""

from dataclasses import dataclass

from klcli.errors import ConfigError

FILES = 6  # five training batches and the test batch, all of one length
PER_FILE = 10_000  # images in each of them, in CIFAR-10 and in the synthetic set


@dataclass(frozen=True)
class SplitConfig:
    """Which images train, validate and test. Raises ConfigError where the settings contradict each other."""

    validation: int = 5000  # the last N training images; not used where validation_batches says which
    train_batches: tuple[int, ...] = ()  # batch files 1 to 5; empty: all that do not validate
    validation_batches: tuple[int, ...] = ()  # batch files that validate as a whole
    subset: int | None = None  # the first N training images, the other splits scaled alike: for quick looks

    def __post_init__(self) -> None:
        # A config that comes from JSON brings lists.
        for name in ("train_batches", "validation_batches"):
            batches = tuple(getattr(self, name))
            object.__setattr__(self, name, batches)
            for batch in batches:
                if not _is_integer(batch) or not 1 <= batch < FILES:
                    raise ConfigError(f"{name} names batch {batch!r}: the training batches are 1 to {FILES - 1}")
            if len(set(batches)) < len(batches):
                raise ConfigError(f"{name} {listed(batches)} names a batch twice: name each once")
        if not _is_integer(self.validation) or self.validation < 1:
            raise ConfigError(
                f"validation {self.validation!r} leaves no image to compare networks on: give at least 1, or name "
                "validation batches"
            )
        if self.subset is not None and (not _is_integer(self.subset) or self.subset < 1):
            raise ConfigError(f"subset {self.subset!r} leaves no image to train on: give at least 1, or leave it out")
        both = sorted(set(self.train_batches) & set(self.validation_batches))
        if both:
            raise ConfigError(f"batch {listed(both)} both trains and validates: name it for one of the two")
        if len(self.validation_batches) == FILES - 1:
            raise ConfigError(
                f"validation_batches {listed(self.validation_batches)} leaves no batch to train on: leave one out"
            )

    def sizes(self, per_file: int = PER_FILE) -> tuple[int, int, int]:
        """Return the numbers of images that train, validate and test."""
        batches = len(self.train_batches) or FILES - 1 - len(self.validation_batches)
        train, validation, test = batches * per_file, len(self.validation_batches) * per_file, per_file
        if not validation:
            validation = self.validation
            train -= validation
        if self.subset is None:
            return train, validation, test
        return self.subset, max(1, validation * self.subset // train), max(1, test * self.subset // train)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def listed(batches: tuple[int, ...] | list[int]) -> str:
    """The batch numbers as a message shows them: `1, 2`."""
    return ", ".join(str(batch) for batch in batches)
