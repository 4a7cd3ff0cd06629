"""Settings: the properties derived from the single declaration of a field."""

import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klcli.errors import ConfigError
from klcli.settings.columns import columns, virtual_columns
from klcli.settings.sameness import SETTINGS, differences, not_default, settings_and_seeds, stack_key, without_seeds
from klcli.settings.setting import Role, Settings, flag, setting, settings_of, with_values
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Kettle(Settings):
    """A dataclass of settings of another program."""

    volume: float = setting(1.5, Role.NETWORK, "In litres.", above=0, at_most=3, example="1.5")
    cups: int = setting(4, Role.DATA, "How many.", option="--tea-cups", at_least=1)
    whistles: bool = setting(False, Role.OUTPUT, "Loudly.", label="whistle")
    colour: str | None = setting(None, Role.OUTPUT, "Of its lid.", choices=("red", "blue"))
    sugar: tuple[int, ...] = setting((), Role.DATA, "Lumps.", at_least=0)


def test_a_field_is_a_setting_with_all_that_follows_from_it() -> None:
    volume, cups, whistles, colour, sugar = settings_of(Kettle).values()
    assert (volume.option, volume.kind, volume.metavar, volume.label, volume.column) == (
        "--volume", float, "X", "volume", "volume",
    )  # fmt: skip
    assert (cups.option, cups.kind, cups.role, cups.default) == ("--tea-cups", int, Role.DATA, 4)
    assert (whistles.kind, whistles.phrase(True), whistles.phrase(False)) == (bool, "whistle", "not whistle")
    assert (colour.is_optional, colour.metavar, colour.words(None)) == (True, "red|blue", "-")
    assert (sugar.kind, sugar.words((2, 3)), sugar.metavar) == (tuple, "2 3", "N...")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"volume": 0}, "--volume 0: must be above 0 and at most 3, for example --volume 1.5"),
        ({"volume": "big"}, "--volume 'big': must be a number, for example --volume 1.5"),
        ({"cups": 0}, "--tea-cups 0: must be at least 1"),
        ({"cups": 2.0}, "--tea-cups 2.0: must be a whole number"),
        ({"cups": True}, "--tea-cups True: must be a whole number"),
        ({"whistles": 1}, "--whistles 1: must be true or false"),
        ({"colour": "green"}, "--colour 'green': choose one of red, blue"),
        ({"sugar": (1, -2)}, "--sugar -2: must be at least 0"),
        ({"sugar": 7}, "--sugar 7: must be a list of whole numbers"),
    ],
)
def test_a_wrong_value_gets_one_line_with_the_option_and_the_cure(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Kettle(**values)  # type: ignore[arg-type]
    assert str(refusal.value) == message
    with pytest.raises(ConfigError) as refusal:
        with_values(Kettle(), values)
    assert str(refusal.value) == message


def test_what_is_typed_is_read_and_refused_like_any_value() -> None:
    known = settings_of(Kettle)
    assert known["volume"].read("2.5") == 2.5
    assert known["sugar"].read(["1", "2,3"]) == (1, 2, 3)
    assert settings_of(Order)["receipt"].read("~/tea.txt") == Path.home() / "tea.txt"
    with pytest.raises(ConfigError) as refusal:
        known["volume"].read("big")
    assert str(refusal.value) == "--volume 'big': must be a number, for example --volume 1.5"


@dataclass(frozen=True, kw_only=True)
class Order(Settings):
    """What else the options of commands are: texts, numbers, paths, flags and counts."""

    spices: tuple[str, ...] = setting((), "Till", "Add these.")
    degrees: tuple[float, ...] = setting((60.0, 80.0), "Till", "Serve between these.", at_least=0)
    receipt: Path | None = setting(None, "Till", "Write a receipt.")
    to_go: bool = flag("Till", "Put a lid on it.", short="-t")
    stir: int = setting(0, "Till", "Stir once more.", is_counted=True)
    milk: bool | None = setting(None, "Till", "With or without milk.")


def test_options_of_commands_are_settings_too() -> None:
    known = settings_of(Order)
    assert [one.metavar for one in known.values()] == ["NAME...", "X...", "PATH", "", "N", ""]
    assert known["to_go"].names == ["--to-go", "-t"]
    assert known["milk"].names == ["--milk/--no-milk"]
    typed = {
        "spices": ["mint,", "anise"], "degrees": ["1e1,20"], "receipt": "a/b.txt", "to_go": True, "stir": 2,
        "milk": None,
    }  # fmt: skip
    order = Order(**{key: known[key].read(value) for key, value in typed.items()})
    assert order == Order(spices=("mint", "anise"), degrees=(10.0, 20.0), receipt=Path("a/b.txt"), to_go=True, stir=2)


@pytest.mark.parametrize(
    ("key", "typed", "message"),
    [
        ("degrees", ["warm"], "--degrees 'warm': must be a number"),
        ("degrees", ["-3"], "--degrees -3.0: must be a finite number, at least 0"),
        ("degrees", ["nan"], "--degrees nan: must be a finite number, at least 0"),
        ("degrees", ["0,.1E-400"], "--degrees .1E-400: float64 rounds it to 0, give 0 or a number of at least 5e-324"),
    ],
)
def test_what_is_typed_for_a_command_is_refused_by_its_option(key: str, typed: object, message: str) -> None:
    one = settings_of(Order)[key]
    with pytest.raises(ConfigError) as refusal:
        one.checked(one.read(typed))
    assert str(refusal.value) == message


@pytest.mark.parametrize("typed", ["0", "-0.0", "0e-5", "0.000E400", "5e-324", "1e-323"])
def test_a_typed_number_that_float64_holds_is_read(typed: str) -> None:
    assert settings_of(Order)["degrees"].read([typed]) == (float(typed),)


def test_a_count_of_python_must_fit_the_database() -> None:
    with pytest.raises(ConfigError, match="--stir 9223372036854775808: must be at most 9223372036854775807"):
        Order(stir=2**63)


def test_a_whole_number_is_stored_as_the_number_that_it_is() -> None:
    assert repr(Kettle(volume=2).volume) == "2.0"
    assert Kettle(sugar=[1]).sugar == (1,)  # type: ignore[arg-type]


def test_every_setting_has_one_option_and_one_column_of_its_own_and_a_help_that_is_a_sentence() -> None:
    known = SETTINGS.values()
    assert len({one.option for one in known}) == len({one.column for one in known}) == len(SETTINGS)
    assert all(one.help.endswith(".") and one.help[0].isupper() for one in known)
    assert all(one.default is None or one.checked(one.default) == one.default for one in known)


def test_differences_name_both_values_of_what_differs_and_of_nothing_else() -> None:
    one = TrainConfig(hidden=(20, 10), lam=0.1, preset="course")
    other = replace(one, lam=0.2, split=SplitConfig(subset=500), preset=None)
    assert differences(one, other) == {"lam": (0.1, 0.2), "split.subset": (None, 500)}
    assert differences(one, replace(one, preset="other")) == {}
    assert not_default(other) == {"hidden": (20, 10), "lam": 0.2, "split.subset": 500}


def test_repeats_differ_in_their_seeds_and_in_a_name_alone() -> None:
    one = TrainConfig(preset="course")
    repeats = [replace(one, seed=3), replace(one, seed=4, order_seed=9), replace(one, preset=None)]
    assert all(without_seeds(one) == without_seeds(other) for other in repeats)
    assert len({without_seeds(other) for other in repeats}) == 1
    assert without_seeds(one) != without_seeds(replace(one, bn_eps=1e-5))
    assert settings_and_seeds(one) == settings_and_seeds(repeats[2]) != settings_and_seeds(repeats[0])


def test_a_config_of_an_older_klcli_is_the_same_setting() -> None:
    older = TrainConfig.from_json('{"hidden": [50, 50], "lam": 0.005, "split": {"validation": 5000}}')
    assert differences(older, TrainConfig()) == {}
    assert settings_and_seeds(older) == settings_and_seeds(TrainConfig())


def test_replicas_of_a_stack_may_differ_in_seed_lambda_sigma_and_rates_alone() -> None:
    one = TrainConfig(initializer="normal", sigma=0.1, order_seed=1)
    assert stack_key(one) == stack_key(replace(one, seed=5, lam=0.3, sigma=0.2, eta_min=1e-4, eta_max=0.2))
    assert {key for key, setting in SETTINGS.items() if setting.differs_in_stack} == {
        "seed", "lam", "sigma", "eta_min", "eta_max"
    }  # fmt: skip
    assert stack_key(one) != stack_key(replace(one, order_seed=2))


def test_sqlite_reads_from_the_stored_config_what_klcli_writes_into_columns() -> None:
    config = TrainConfig(
        hidden=(30, 20), batch_norm=True, lam=0.25, flip=True, bn_eps=1e-5, seed=8, whitening=12,
        split=SplitConfig(subset=700, train_batches=(1, 3)),
    )  # fmt: skip
    connection = sqlite3.connect(":memory:")
    defined = virtual_columns()
    columns_text = ", ".join(f'"{name}" {text}' for name, text in defined.items())
    connection.execute(f"CREATE TABLE runs (config TEXT, {columns_text})")
    connection.execute("INSERT INTO runs (config) VALUES (?)", [config.to_json()])
    connection.execute("INSERT INTO runs (config) VALUES (?)", ['{"hidden": [50, 50]}'])
    names = ", ".join(f'"{name}"' for name in defined)
    mine, oldest = connection.execute(f"SELECT {names} FROM runs").fetchall()
    assert dict(zip(defined, mine, strict=True)) == {name: columns(config)[name] for name in defined}
    usual = columns(TrainConfig(batch_norm=True)) | {"batch_norm": 0}
    assert dict(zip(defined, oldest, strict=True)) == {name: usual[name] for name in defined}
    assert columns(config)["hidden"] == "30 20"
    assert (columns(config)["train_batches"], columns(config)["validation_batches"]) == ("1 3", "")  # NULL for neither


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"seed": np.int64(3)}, 3),
        ({"lam": np.float32(0.5)}, 0.5),
        ({"batch_norm": np.True_}, True),
        ({"hidden": tuple(np.array([5, 6]))}, (5, 6)),
        ({"hidden": tuple(np.array([50, 50]))}, (50, 50)),  # equal to the default
        ({"hidden": np.array([5, 6])}, (5, 6)),
        ({"hidden": range(6, 4, -1)}, (6, 5)),
        ({"initializer": np.str_("xavier")}, "xavier"),
        ({"lam": 10**19}, 1e19),  # beyond the integers of SQLite, not beyond float64
    ],
    ids=str,
)
def test_numbers_of_numpy_are_stored_as_those_of_python(given: dict[str, Any], stored: Any) -> None:
    [(key, _)] = given.items()
    config = TrainConfig(**given)
    assert getattr(config, key) == stored and type(getattr(config, key)) is type(stored)
    assert TrainConfig.from_json(config.to_json()) == config


def test_a_negative_zero_is_zero() -> None:
    assert TrainConfig(lam=-0.0).to_json() == TrainConfig(lam=0).to_json()
    assert TrainConfig(momentum=-0.0).to_json() == TrainConfig().to_json()


def test_an_array_is_no_number() -> None:
    dtype = {"dtype": np.dtype("float32")}
    for wrong in (dtype, {"seed": np.array([3])}, {"hidden": np.array([[5, 6]])}, {"hidden": np.array([50.0, 50.0])}):
        with pytest.raises(ConfigError, match="must be"):
            TrainConfig(**wrong)
