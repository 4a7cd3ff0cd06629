"""Images: the sizes in words are those that the data module really makes."""

import numpy as np
import pytest

from klcli.data.dataset import Dataset, split
from klcli.errors import StoreError
from klcli.report.words import split_of, split_words
from klcli.settings.split_config import SplitConfig


@pytest.mark.parametrize(
    "config",
    [
        SplitConfig(validation=50),
        SplitConfig(validation=50, subset=95),
        SplitConfig(validation=100, subset=1),
        SplitConfig(train_batches=(1,), validation_batches=(2,)),
        SplitConfig(validation_batches=(2, 5), subset=77),
        SplitConfig(validation=30, train_batches=(3, 4)),
    ],
)
def test_sizes(config: SplitConfig, small_dataset: Dataset) -> None:
    splits = split(small_dataset, config)
    assert config.sizes(200) == (len(splits.train), len(splits.validation), len(splits.test))
    assert np.unique(splits.train.rows).size == len(splits.train)


def test_words() -> None:
    assert split_words(SplitConfig()) == "45000 images train, 5000 validate"
    two_layer = SplitConfig(train_batches=(1,), validation_batches=(2,))
    assert split_words(two_layer) == "10000 images train, 10000 validate (train batch 1, validation batch 2)"


@pytest.mark.parametrize("stored", ['{"subseT": null}', '{"validation": 0}', "[1]"])
def test_a_stored_split_that_is_none_is_a_damaged_database(stored: str) -> None:
    with pytest.raises(StoreError, match="damaged"):
        split_of({"split": stored})
