"""Images: in words, which ones a run has seen. Only runs on the same ones are ranked together."""

import json
from typing import Any

from klcli.errors import ConfigError, StoreError
from klcli.settings.split_config import SplitConfig, listed


def split_of(run: Any) -> SplitConfig:
    """Return how a stored run divides its images. Raises StoreError where what is stored cannot be."""
    try:
        return SplitConfig(**json.loads(run["split"]))
    except (TypeError, ConfigError) as error:
        raise StoreError(
            f"a run's split {run['split']} is none ({error}): this database is damaged, restore a copy"
        ) from error


def split_words(split: SplitConfig) -> str:
    """`45000 images train, 5000 validate`, and which, where the command line said so."""
    train, validation, _ = split.sizes()
    words = f"{train} images train, {validation} validate"
    which = [f"train batch {listed(split.train_batches)}"] if split.train_batches else []
    if split.validation_batches:
        which.append(f"validation batch {listed(split.validation_batches)}")
    return f"{words} ({', '.join(which)})" if which else words


def images_words(run: Any) -> str:
    """`cifar10, 45000 images train, 5000 validate`."""
    return f"{run['dataset']}, {split_words(split_of(run))}"
