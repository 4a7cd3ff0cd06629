"""SplitConfig: the training, validation and test images. Without NumPy, because the command line imports it."""

from collections.abc import Sequence
from dataclasses import dataclass

from klcli.settings.setting import Role, Settings, require, setting

FILES = 6  # five training batch files and the test batch file, all of one length
PER_FILE = 10_000  # images per file, in CIFAR-10 and in the synthetic set


@dataclass(frozen=True)
class SplitConfig(Settings):
    """The training, validation and test images. Raises ConfigError if the settings contradict each other."""

    # fmt: off
    validation: int = setting(5000, Role.DATA, "Use the last N training images for validation.",
        label="validation images", at_least=1)
    train_batches: tuple[int, ...] = setting(
        (), Role.DATA, "Training batch files, 1 to 5; if omitted, all that are not for validation.",
        label="training batch files", at_least=1, at_most=FILES - 1)
    validation_batches: tuple[int, ...] = setting(
        (), Role.DATA, "Use these whole batch files for validation, instead of the last N images.",
        label="validation batch files", at_least=1, at_most=FILES - 1)
    split_seed: int | None = setting(
        None, Role.DATA, "Draw the validation images at random with this seed, instead of the last N.",
        at_least=0, at_most=2**32 - 1, is_seed=True)
    subset: int | None = setting(
        None, Role.DATA, "Use the first N training images; validation and test shrink in proportion.", at_least=1)
    # fmt: on

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_batches", "validation_batches"):
            object.__setattr__(self, name, tuple(sorted({*getattr(self, name)})))  # equal divisions are equal settings
        both = sorted(set(self.train_batches) & set(self.validation_batches))
        require(not both, f"--validation-batches {listed(both)}: these are also training batches, name each once")
        unused = f"--validation-batches {listed(self.validation_batches)}: no batch file is left to train on, omit one"
        require(len(self.validation_batches) < FILES - 1, unused)
        whole = "--validation-batches takes whole batch files, nothing is drawn, omit one"
        is_drawn = self.split_seed is not None and bool(self.validation_batches)
        require(not is_drawn, f"--split-seed {self.split_seed}: {whole}")
        if len(self.train_batches) == FILES - 1 - len(self.validation_batches):
            object.__setattr__(self, "train_batches", ())  # all that are left, the default

    @property
    def is_trial(self) -> bool:
        """Whether only a part of the images that are left to train on is used."""
        return self.subset is not None or bool(self.train_batches)

    @property
    def batches(self) -> list[int]:
        """The training batch files, in ascending order."""
        return [*self.train_batches] or sorted({*range(1, FILES)} - {*self.validation_batches})

    def sizes(self, per_file: int = PER_FILE) -> tuple[int, int, int]:
        """Return the numbers of training, validation and test images, with `per_file` images in a batch file.

        Raises ConfigError if the training batches have too few images for `validation` or `subset`.
        """
        train, validation, test = len(self.batches) * per_file, len(self.validation_batches) * per_file, per_file
        if not validation:
            validation = self.validation
            left = f"leaves none of the {train} images of training batch {listed(self.batches)} to train on"
            require(validation < train, f"--validation {validation} {left}: give less than {train}, or more batches")
            train -= validation
        if self.subset is None:
            return train, validation, test
        too_many = f"--subset {self.subset} is more than the {train} training images: give at most that"
        require(self.subset <= train, too_many)
        return self.subset, max(1, validation * self.subset // train), max(1, test * self.subset // train)


def listed(batches: Sequence[int]) -> str:
    """Return the numbers of batch files for a message: `1, 2`."""
    return ", ".join(map(str, batches))
