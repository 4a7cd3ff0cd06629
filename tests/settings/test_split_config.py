"""SplitConfig: which divisions of the images are refused, each in one line."""

import pytest

from klcli.errors import ConfigError
from klcli.settings.split_config import SplitConfig


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
        ({"train_batches": (2, 2)}, "--train-batches 2, 2:"),
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
