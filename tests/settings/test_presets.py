"""Presets: those of klcli, and presets with the user's own settings."""

from dataclasses import replace
from typing import Any

import pytest

from klcli.errors import ConfigError
from klcli.settings.presets import override, preset, presets
from klcli.settings.sameness import not_default
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig

BASE = TrainConfig(
    preset="wide", hidden=(512, 256), batch_norm=True, initializer="normal", sigma=0.01, epochs=30,
    activation="silu", silu_slope=1.7,
    bn_statistics="precise", bn_samples=5000, split=SplitConfig(validation=1000),
)  # fmt: skip


def test_the_course_is_what_klcli_does_without_a_preset() -> None:
    assert presets()["course"].config == replace(TrainConfig(), preset="course")
    assert not_default(presets()["course"].config) == {}


def test_every_preset_has_a_line_that_describes_it() -> None:
    for name, one in presets().items():
        assert one.name == name == one.config.preset
        assert one.description and "\n" not in one.description
        assert one.config == preset(name).config


@pytest.mark.parametrize(
    ("own", "changes"),
    [
        ({}, {}),
        ({"lam": 0.1, "hidden": (9,)}, {"lam": 0.1, "hidden": (9,)}),
        ({"cycles": 3}, {"cycles": 3, "epochs": None}),  # whose epochs would hide it
        ({"cycles": 3, "epochs": 4}, {"cycles": 3, "epochs": 4}),
        ({"step_epochs": 3.0}, {"step_epochs": 3.0, "epochs": None}),
        ({"step_size": 40}, {"step_size": 40, "epochs": None}),
        ({"step_epochs": 3.0, "epochs": 4}, {"step_epochs": 3.0, "epochs": 4}),
        ({"initializer": "he"}, {"initializer": "he", "sigma": None}),
        ({"sigma": 0.5}, {"sigma": 0.5}),
        ({"activation": "relu"}, {"activation": "relu", "silu_slope": 1.0}),
        ({"bn_statistics": "ema"}, {"bn_statistics": "ema", "bn_samples": None}),
        ({"activation": "silu"}, {}),  # what suits the typed value stays
        ({"bn_statistics": "precise"}, {}),
        ({"bn_statistics": "adaptive"}, {"bn_statistics": "adaptive"}),
        ({"initializer": "normal"}, {}),
        ({"cycles": 2}, {"epochs": None}),  # the value of the preset, but the preset's epochs would hide it
        ({"split.subset": 300}, {"split": SplitConfig(validation=1000, subset=300)}),
    ],
)
def test_what_a_user_types_replaces_the_setting_and_what_belonged_to_it(
    own: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert override(BASE, own) == replace(BASE, **changes)


def test_a_setting_that_does_not_fit_is_refused_with_the_name_of_the_preset() -> None:
    with pytest.raises(ConfigError, match=r"with --preset quick: --momentum 0\.9: .* adam has its own"):
        override(presets()["quick"].config, {"momentum": 0.9})


@pytest.mark.parametrize(
    ("own", "weak"),
    [
        ({"shift": 0}, 0.1),
        ({"contrast": 0.0}, 0.1),
        ({"shift": 0, "contrast": 0.0}, 0.0),
        ({"shift": 0, "contrast": 0.0, "flip": False}, 0.0),
        ({"shift": 1, "weak_augmentation": 0.2}, 0.2),
    ],
)
def test_without_shifts_and_contrast_nothing_of_a_preset_weakens_them(own: dict[str, Any], weak: float) -> None:
    assert override(presets()["quick"].config, own).weak_augmentation == weak
