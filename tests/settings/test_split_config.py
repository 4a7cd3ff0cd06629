"""SplitConfig: which divisions of the images are refused, each in one line, and which are equal."""

import json

import pytest

from klcli.errors import ConfigError
from klcli.settings.sameness import settings_and_seeds
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig

FILES = ("train_batches", "validation_batches")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"validation": 0}, "--validation 0:"),
        ({"validation": -5}, "--validation -5:"),
        ({"validation": True}, "--validation True:"),
        ({"validation": 10.0}, "--validation 10.0:"),
        ({"train_batches": (0,)}, "--train-batches 0:"),
        ({"train_batches": (6,)}, "--train-batches 6:"),
        ({"validation_batches": ("1",)}, "--validation-batches '1':"),
        ({"train_batches": (1, 2), "validation_batches": (2, 3)}, "--validation-batches 2:"),
        ({"validation_batches": (1, 2, 3, 4, 5)}, "--validation-batches 1, 2, 3, 4, 5:"),
        ({"split_seed": 2**32}, "--split-seed 4294967296:"),
        ({"split_seed": 3, "validation_batches": (2,)}, "--split-seed 3:"),
        ({"subset": 0}, "--subset 0:"),
        ({"subset": 1.5}, "--subset 1.5:"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(settings: dict, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SplitConfig(**settings)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "known"),
    [
        ({"train_batches": [2, 1]}, {"train_batches": [1, 2]}),
        ({"validation_batches": [5, 1, 4]}, {"validation_batches": [1, 4, 5]}),
        ({"train_batches": [2, 1, 2]}, {"train_batches": [1, 2]}),
        ({"train_batches": [1, 2, 3, 4, 5]}, {}),
        ({"train_batches": [5, 3, 1, 2, 4], "validation": 9}, {"validation": 9}),
        ({"train_batches": [4, 1, 3, 2], "validation_batches": [5]}, {"validation_batches": [5]}),
        ({"train_batches": [3], "validation_batches": [5, 4, 2, 1]}, {"validation_batches": [1, 2, 4, 5]}),
    ],
)
def test_equal_sets_of_batch_files_are_equal_settings(typed: dict, known: dict) -> None:
    """Runs of both are ranked together; what an older klcli stored as typed is still the same run and study."""
    assert SplitConfig(**typed) == SplitConfig(**known)
    one, other = (TrainConfig.from_json(json.dumps({"split": split})) for split in (typed, known))
    assert settings_and_seeds(one) == settings_and_seeds(other)
    stored = json.loads(one.to_json())["split"]
    assert stored == json.loads(other.to_json())["split"]
    assert [stored[name] for name in FILES] == [known.get(name, []) for name in FILES]


def test_some_of_the_batch_files_are_not_the_default() -> None:
    assert SplitConfig(train_batches=(4, 3, 2, 1)).train_batches == (1, 2, 3, 4)
    assert SplitConfig(train_batches=(2, 1), validation_batches=(5,)).train_batches == (1, 2)
