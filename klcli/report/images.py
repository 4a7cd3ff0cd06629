"""Images: in words, which ones a run has seen. Only runs on the same ones are ranked together."""

import json
from typing import Any

from klcli.data.split_config import FILES, SplitConfig, listed
from klcli.errors import ConfigError, StoreError

PER_FILE = 10_000  # images in each of the six files of CIFAR-10, and of the synthetic set


def split_of(run: dict[str, Any]) -> SplitConfig:
    """Return how a stored run divides its images. Raises StoreError where what is stored cannot be."""
    try:
        return SplitConfig(**json.loads(run["split"]))
    except (TypeError, ConfigError) as error:
        raise StoreError(
            f"a run's split {run['split']} is none ({error}): this database is damaged, restore a copy"
        ) from error


def sizes(split: SplitConfig, per_file: int = PER_FILE) -> tuple[int, int, int]:
    """Return the numbers of images that train, validate and test."""
    batches = len(split.train_batches) or FILES - 1 - len(split.validation_batches)
    train, test = batches * per_file, per_file
    if split.validation_batches:
        validation = len(split.validation_batches) * per_file
    else:
        validation = split.validation
        train -= validation
    if split.subset is None:
        return train, validation, test
    return split.subset, max(1, validation * split.subset // train), max(1, test * split.subset // train)


def split_words(split: SplitConfig) -> str:
    """`45000 images train, 5000 validate`, and which, where the command line said so."""
    train, validation, _ = sizes(split)
    words = f"{train} images train, {validation} validate"
    which = [f"train batch {listed(split.train_batches)}"] if split.train_batches else []
    if split.validation_batches:
        which.append(f"validation batch {listed(split.validation_batches)}")
    return f"{words} ({', '.join(which)})" if which else words


def images_words(run: dict[str, Any]) -> str:
    """`cifar10, 45000 images train, 5000 validate`."""
    return f"{run['dataset']}, {split_words(split_of(run))}"
