"""The command of a run: what it parses to is the config, whatever the config, but for settings without an effect."""

import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from hypothesis import given
from test_train_config import configs

from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import KlcliCommand, takes
from klcli.settings.run_command import in_database, resuming_command, run_command
from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import with_values
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.text import command_text

app = typer.Typer()


@app.command(cls=KlcliCommand)
@takes(TrainConfig)
@invoked("data", "threads", "db")
def train(config: TrainConfig, *, invocation: Invocation) -> tuple[TrainConfig, Invocation]:
    return config, invocation


COMMAND = typer.main.get_command(app)  # building it takes longer than all else here


def parsed(command: str) -> tuple[TrainConfig, Invocation]:
    """What the options of `klcli train` make of a command line."""
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("klcli", "train")
    return COMMAND(arguments, standalone_mode=False)


@given(configs())
def test_a_command_gives_its_config(config: TrainConfig) -> None:
    command = run_command(config, data="a folder/it's", threads=3, db=Path("some where/a.db"))
    found, invocation = parsed(command)
    assert found == with_values(config, {key: SETTINGS[key].default for key in config.unused()})
    assert (invocation.data, invocation.threads, invocation.db) == ("a folder/it's", 3, Path("some where/a.db"))


def test_every_setting_that_is_not_the_default_is_in_the_command() -> None:
    config = TrainConfig(
        hidden=(7, 5), batch_norm=True, shuffle=False, flip=True, lam=1e-7, order_seed=3, standardise="image", mixup=0.2
    )
    command = run_command(config, data="synthetic", threads=1, db=Path("results/klcli.db"))
    assert command == (
        "klcli train --hidden 7 5 --bn --lambda 1e-07 --flip --mixup 0.2 --standardise image --no-shuffle "
        "--order-seed 3 --data synthetic"
    )


@pytest.mark.parametrize("variable", [None, "elsewhere/all.db", "results/klcli.db"])
@pytest.mark.parametrize("db", ["results/klcli.db", "elsewhere/all.db"])
def test_a_command_uses_its_database_whatever_klcli_db_is(
    monkeypatch: pytest.MonkeyPatch, db: str, variable: str | None
) -> None:
    """`klcli train --resume 1` continued run 1 of the database in KLCLI_DB."""
    if variable:
        monkeypatch.setenv("KLCLI_DB", variable)
    _, invocation = parsed(run_command(TrainConfig(), data="synthetic", threads=1, db=Path(db)))
    assert invocation.db == Path(db)


ODD = "it's/a \\ \" $b.db"


@pytest.mark.parametrize("variable", [None, "elsewhere/all.db"])
@pytest.mark.parametrize("db", ["results/klcli.db", "elsewhere/all.db", ODD, "caf\udce9.db"])
@pytest.mark.parametrize(
    "own", [[], ["--db", ODD], ["--db", "caf\udce9'.db"], ["--db=it's.db"], ["--db=caf\udce9.db"], ["--db=a.db"]]
)
def test_the_command_of_a_merged_study_names_its_new_database(
    monkeypatch: pytest.MonkeyPatch, own: list[str], db: str, variable: str | None
) -> None:
    if variable:
        monkeypatch.setenv("KLCLI_DB", variable)
    others = ["klcli", "train", "--data", ODD, "-H", "50", "30", "--seed=3"]
    command = in_database(command_text([*others[:2], *own, *others[2:]]), Path(db))
    # What a shell makes of it.
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    option = [] if own or (db == "results/klcli.db" and not variable) else ["--db", db]
    assert [*map(os.fsdecode, words.split(b"\0")[:-1])] == [*others[:2], *own, *others[2:], *option]
    assert in_database("Lab('a.db').repeat(TrainConfig(), 3)", Path(db)) == "Lab('a.db').repeat(TrainConfig(), 3)"


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["--only", "T2"], ["--", "a3-2024"]),
        (["--only", "T2"], ["--", "my reports/it's.toml", "a3-2024"]),
        (["--data", "a -- b", "--only", "T2"], ["--", "a -- b"]),
        (["--data", "it's -- b", "--only", "T2"], ["--", "a3-2024"]),
        (["--data", "a -- b"], []),
        (["--data", "it's -- b"], []),
        (["a3-2024"], []),
    ],
)
def test_what_is_added_to_a_command_is_no_argument(options: list[str], arguments: list[str]) -> None:
    """Behind a `--`, `--resume` and `--db` were taken for names of reports."""
    command = command_text(["klcli", "reproduce", *options, *arguments])
    added = resuming_command(in_database(command, Path("b.db")), "reproduce")
    assert shlex.split(added) == ["klcli", "reproduce", *options, "--db", "b.db", "--resume", *arguments]


def test_settings_that_a_network_does_not_use_are_not_in_its_command() -> None:
    """A sweep gives its options of BN to the networks without BN, too."""
    split = SplitConfig(validation=9, validation_batches=(2,))
    config = TrainConfig(bn_eps=1e-5, bn_position="after", whitening_eps=3.0, eta_min=1e-3, schedule="constant")
    command = run_command(replace(config, split=split), data="synthetic", threads=1, db=Path("results/klcli.db"))
    assert command == "klcli train --schedule constant --validation-batches 2 --data synthetic"
    again = run_command(
        config, "sigma-sweep", only=["bn_eps"], data="synthetic", threads=1, db=Path("results/klcli.db")
    )
    assert again == "klcli sigma-sweep --bn-eps 1e-05 --data synthetic"


def test_a_path_that_is_not_text_is_storable() -> None:
    command = run_command(TrainConfig(), data="caf\udce9", threads=1, db=Path("results/klcli.db"))
    assert command.encode() == b"klcli train --data $'caf\\xe9'"


@pytest.mark.parametrize("one", SETTINGS.values(), ids=lambda one: one.key)
def test_the_arguments_of_a_setting_are_read_back(one: object) -> None:
    """A bool has no value; every other kind has at least one."""
    name, *values = one.arguments(one.default if one.default is not None else 1)  # type: ignore[attr-defined]
    assert name.startswith("--")
    assert (not values) == (one.kind is bool or one.default == ())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("command", "kind", "expected"),
    [
        ("klcli train --repeats 3", "repeats", "klcli train --repeats 3 --resume last"),
        ("klcli sigma-sweep", "sigma", "klcli sigma-sweep --resume"),
        ("klcli reproduce all --resume", "reproduce", "klcli reproduce all --resume"),
        ("Lab('a.db').repeat(TrainConfig(), 3)", "repeats", "Lab('a.db').repeat(TrainConfig(), 3, resume=True)"),
        ("list(Lab('a.db').reproduce('all'))", "reproduce", "list(Lab('a.db').reproduce('all', resume=True))"),
        ("notebook (week 3)", "repeats", "notebook (week 3), resume=True"),  # whatever a program gives its Lab
    ],
)
def test_a_study_is_completed_by_its_own_command(command: str, kind: str, expected: str) -> None:
    assert resuming_command(command, kind) == expected
    assert resuming_command(expected, kind) == expected
