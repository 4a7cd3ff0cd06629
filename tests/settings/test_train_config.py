"""TrainConfig: to JSON and back, and every refusal in one line that names the value."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klcli.errors import ConfigError, ExitCode
from klcli.settings.setting import MAX_INTEGER
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig

finite = st.floats(min_value=0, max_value=1e300, allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=1e-300, max_value=1e300, allow_nan=False, allow_infinity=False)
seeds = st.integers(0, MAX_INTEGER)


@st.composite
def configs(draw: st.DrawFn) -> TrainConfig:
    initializer = draw(st.sampled_from(["he", "xavier", "normal"]))
    eta_min, eta_max = sorted([draw(finite), draw(finite)])
    optimizer = draw(st.sampled_from(["sgd", "adam"]))
    schedule = draw(st.sampled_from(["cyclical", "one-cycle", "cosine", "constant"]))
    return TrainConfig(
        optimizer=optimizer,
        momentum=draw(st.floats(0, 1, exclude_max=True)) if optimizer == "sgd" else 0.0,
        weight_decay=draw(finite),
        weight_average=draw(st.floats(0, 1, exclude_max=True)),
        snapshots=draw(st.booleans()) if schedule in ("cyclical", "cosine") else False,
        flip=draw(st.booleans()),
        shift=draw(st.integers(0, 31)),
        mixup=draw(finite),
        dropout=draw(st.floats(0, 1, exclude_max=True)),
        label_smoothing=draw(st.floats(0, 1, exclude_max=True)),
        standardise=draw(st.sampled_from(["pixel", "image"])),
        shuffle=draw(st.booleans()),
        hidden=tuple(draw(st.lists(st.integers(1, 5000), min_size=1, max_size=9))),
        batch_norm=draw(st.booleans()),
        bn_position=draw(st.sampled_from(["before", "after"])),
        bn_momentum=draw(st.floats(0, 1, exclude_max=True)),
        bn_eps=draw(positive),
        bn_statistics=draw(st.sampled_from(["ema", "precise", "adaptive", "batch"])),
        initializer=initializer,
        sigma=draw(positive) if initializer == "normal" else None,
        lam=draw(finite),
        schedule=schedule,
        eta_decay=draw(st.floats(0, 1, exclude_min=True)) if schedule in ("cyclical", "cosine") else 1.0,
        eta_min=eta_min,
        eta_max=eta_max,
        batch_size=draw(st.integers(2, 10**6)),
        step_epochs=draw(positive),
        step_size=draw(st.none() | st.integers(1, 10**9)),
        cycles=draw(st.integers(1, 10**6)),
        epochs=draw(st.none() | st.integers(0, 10**6)),
        split=SplitConfig(
            validation=draw(st.integers(1, 50_000)),
            train_batches=draw(st.sampled_from([(), (1,), (3, 1)])),
            validation_batches=(whole := draw(st.sampled_from([(), (2,), (4, 5)]))),
            split_seed=None if whole else draw(st.none() | st.integers(0, 2**32 - 1)),
            subset=draw(st.none() | st.integers(1, 50_000)),
        ),
        seed=draw(seeds),
        order_seed=draw(st.none() | seeds),
        dtype=draw(st.sampled_from(["float32", "float64"])),
        evaluations_per_cycle=draw(st.none() | st.integers(0, 1000)),
    )


@given(configs())
def test_a_config_comes_back_from_json_exactly(config: TrainConfig) -> None:
    text = config.to_json()
    assert json.loads(text)["lam"] == config.lam
    assert TrainConfig.from_json(text) == config
    assert hash(TrainConfig.from_json(text)) == hash(config)


def test_the_defaults_are_those_of_the_course() -> None:
    config = TrainConfig()
    assert (config.hidden, config.initializer, config.batch_norm, config.lam) == ((50, 50), "he", False, 0.005)
    assert (config.eta_min, config.eta_max, config.batch_size, config.cycles) == (1e-5, 1e-1, 100, 2)
    assert (config.step_epochs, config.bn_eps, config.bn_momentum, config.dtype) == (5, 1e-8, 0.9, "float32")


NAN, INFINITY = float("nan"), float("inf")

REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"hidden": ()}, "hidden"),
    ({"hidden": (50, 0)}, "0"),
    ({"hidden": (-3,)}, "-3"),
    ({"hidden": (65_537,)}, "65537"),
    ({"initializer": "glorot"}, "glorot"),
    ({"schedule": "sawtooth"}, "sawtooth"),
    ({"optimizer": "lion"}, "--optimizer 'lion': choose one of sgd, adam"),
    ({"weight_average": 1.0}, "--weight-average 1.0"),
    ({"snapshots": 1}, "1"),
    ({"snapshots": True, "schedule": "constant"}, "constant has no cycles, choose cyclical or cosine"),
    ({"flip": "yes"}, "'yes'"),
    ({"shift": -1}, "-1"),
    ({"shift": 32}, "--shift 32: must be from 0 to 31"),
    ({"activation": "gelu"}, "gelu"),
    ({"activation": "silu", "silu_slope": 0.0}, "0.0"),
    ({"silu_slope": 1.7}, "--activation silu"),
    ({"contrast": -0.1}, "-0.1"),
    ({"contrast": 1.01}, "1.01"),
    ({"weak_augmentation": 0.1, "flip": True}, "--shift and --contrast, which are 0"),
    ({"weak_augmentation": 1.1, "shift": 1}, "1.1"),
    ({"mixup": -0.5}, "-0.5"),
    ({"mixup": INFINITY}, "--mixup inf"),
    ({"dropout": 1.0}, "--dropout 1.0: must be a"),
    ({"dropout": NAN}, "nan"),
    ({"label_smoothing": -0.1}, "--label-smoothing -0.1"),
    ({"momentum": 1.0}, "--momentum 1.0: must be at least 0 and below 1, for example"),
    ({"momentum": NAN}, "nan"),
    ({"momentum": 0.9, "optimizer": "adam"}, "--optimizer sgd"),
    ({"weight_decay": -0.1}, "-0.1"),
    ({"weight_decay": INFINITY}, "inf"),
    ({"bn_position": "behind"}, "behind"),
    ({"bn_statistics": "exact"}, "exact"),
    ({"bn_statistics": "precise", "bn_samples": 1}, "1"),
    ({"bn_samples": 100}, "precise and adaptive"),
    ({"bn_statistics": "batch", "bn_samples": 100}, "batch"),
    ({"standardise": "batch"}, "--standardise 'batch': choose one of pixel, image"),
    ({"whitening": 0}, "--whitening 0"),
    ({"whitening": 3073}, "--whitening 3073"),
    ({"whitening_eps": 0.0}, "--whitening-eps 0.0"),
    ({"dtype": "float16"}, "float16"),
    ({"lam": -0.1}, "-0.1"),
    ({"lam": NAN}, "nan"),
    ({"schedule": "range", "eta_min": 0.1, "eta_max": 0.1}, "--eta-min 0.1: a range test rises"),
    ({"lam": INFINITY}, "inf"),
    ({"bn_momentum": 1.0}, "1.0"),
    ({"bn_momentum": -0.1}, "-0.1"),
    ({"bn_momentum": NAN}, "nan"),
    ({"bn_eps": 0.0}, "0.0"),
    ({"bn_eps": INFINITY}, "inf"),
    ({"eta_min": -1e-5}, "-1e-05"),
    ({"eta_max": NAN}, "nan"),
    ({"eta_max": INFINITY}, "inf"),
    ({"eta_min": 0.2, "eta_max": 0.1}, "0.2"),
    ({"eta_decay": 0.0}, "0.0"),
    ({"eta_decay": 1.5}, "--eta-decay 1.5: must be above 0 and at most 1"),
    ({"eta_decay": NAN}, "nan"),
    ({"eta_decay": 0.5, "schedule": "one-cycle"}, "one-cycle"),
    ({"initializer": "normal"}, "--sigma"),
    ({"initializer": "normal", "sigma": 0.0}, "0.0"),
    ({"initializer": "normal", "sigma": -1.0}, "-1.0"),
    ({"initializer": "normal", "sigma": NAN}, "nan"),
    ({"sigma": 0.3}, "0.3"),
    ({"batch_size": 0}, "0"),
    ({"batch_size": 1, "batch_norm": True}, "1"),
    ({"cycles": 0}, "0"),
    ({"epochs": -1}, "-1"),
    ({"step_size": 0}, "0"),
    ({"step_epochs": 0.0}, "0.0"),
    ({"step_epochs": NAN}, "nan"),
    ({"evaluations_per_cycle": -2}, "-2"),
    ({"seed": -7}, "-7"),
    ({"seed": 2**63}, str(2**63)),
    ({"cycles": 2**63}, f"--cycles {2**63}: must be at most {2**63 - 1}"),
    ({"order_seed": -8}, "--order-seed -8"),
    ({"batch_norm": "no"}, "--bn 'no'"),
    ({"shuffle": 0}, "--shuffle 0"),
    ({"preset": 3}, "--preset 3"),
    ({"lam": 10**400}, "--lambda 1000"),
    ({"hidden": 50}, "--hidden 50"),
]

FRACTIONS = [
    {"hidden": (50.5,)},
    {"batch_size": 10.5},
    {"cycles": 1.5},
    {"epochs": 2.5},
    {"step_size": 7.5},
    {"seed": 1.5},
    {"evaluations_per_cycle": 0.5},
]


@pytest.mark.parametrize(("settings", "named"), REFUSALS, ids=str)
def test_a_value_that_cannot_be_trained_is_refused_in_one_line_that_names_it(
    settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        TrainConfig(**settings)
    message = str(refusal.value)
    assert named in message
    assert "\n" not in message
    assert len(message) < 600
    assert refusal.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("settings", FRACTIONS, ids=str)
def test_a_count_that_is_no_integer_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TrainConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden": [65_536]},
        {"lam": 0.0},
        {"bn_momentum": 0.0},
        {"eta_min": 0.1, "eta_max": 0.1},
        {"eta_min": 0.0, "eta_max": 0.0},
        {"contrast": 1, "weak_augmentation": 1},
        {"batch_size": 1},
        {"batch_size": 2, "batch_norm": True},
        {"epochs": 0},
        {"evaluations_per_cycle": 0},
        {"seed": MAX_INTEGER},
        {"initializer": "normal", "sigma": 1e-300},
    ],
    ids=str,
)
def test_the_edge_of_what_can_be_trained_is_accepted(settings: dict[str, Any]) -> None:
    assert TrainConfig.from_json(TrainConfig(**settings).to_json()) == TrainConfig(**settings)


def test_a_changed_config_is_validated_again() -> None:
    with pytest.raises(ConfigError, match="-1"):
        replace(TrainConfig(), lam=-1.0)


def _json_with(**values: Any) -> str:
    return json.dumps(json.loads(TrainConfig().to_json()) | values)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param(_json_with(droput=0.5), "droput", id="unknown key"),
        pytest.param(_json_with(lam=-2), "-2", id="wrong value"),
        pytest.param(_json_with(split={"validation": 0}), "0", id="wrong value in the split"),
        pytest.param(_json_with(split={"fold": 3}), "split.fold", id="unknown key in the split"),
        pytest.param(
            _json_with(split={"train_batches": 5}), "--train-batches 5", id="a number for a list in the split"
        ),
        pytest.param(_json_with(split={"subset": True}), "--subset True", id="truth for a number in the split"),
        pytest.param(_json_with(split=None), "object", id="no split"),
        pytest.param(_json_with(lam="small"), "small", id="text for a number"),
        pytest.param(_json_with(hidden="wide"), "hidden", id="text for a list"),
        pytest.param("[]", "", id="a list"),
        pytest.param("{]", "", id="no JSON"),
        pytest.param({"lam": 0.1}, "config \"{'lam': 0.1}\": not JSON (", id="no text"),
    ],
)
def test_json_that_is_no_config_is_refused_in_one_line(text: Any, named: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        TrainConfig.from_json(text)
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_constant_rate_may_be_below_the_default_of_the_lower_end() -> None:
    assert TrainConfig(schedule="constant", eta_max=1e-6).eta_min > 1e-6


@pytest.mark.parametrize("value", [2.0**-150, 2.0**-149, 1e-300, 1e38, 2.0**128 - 2.0**103, 3.4e38, 1e80])
@pytest.mark.parametrize("key", ["sigma", "lam", "bn_eps", "whitening_eps", "silu_slope", "weight_decay", "eta_max"])
def test_a_setting_that_float32_does_not_have_is_named(key: str, value: float) -> None:
    used: dict[str, Any] = {"whitening": 3, "activation": "silu", "batch_norm": True, "initializer": "normal"}
    config = TrainConfig(**used | {"sigma": 1.0, "eta_min": 0.0, key: value})
    with np.errstate(over="ignore"):
        stored = np.float32(value)
    expected = {} if 0 < stored < np.inf else {key: "infinite" if stored else "0"}
    assert config.lost_in_float32 == expected
    assert replace(config, dtype="float64").lost_in_float32 == {}
