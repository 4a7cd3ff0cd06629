"""The training options, from the command line to the database: stored, warned of, or refused."""

import json
import os
import re
import signal
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Klcli, Refused, Rows, change, succeeded

from klcli import Lab
from klcli.errors import Interrupted
from klcli.report.words import options_words
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store import checkpoints
from klcli.training.result import EpochMetrics

pytestmark = pytest.mark.usefixtures("unrendered")


TINY = ("--data", "synthetic", "--subset", "300", "--hidden", "10", "--bn", "--step-epochs", "1", "--cycles", "2")
ADAM = ("--optimizer", "adam", "--eta-max", "1e-3")


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (["--optimizer", "adam", "--eta-max", "0.001"], {"optimizer": "adam", "momentum": 0.0}),
        (["--momentum", "0.9", "--weight-decay", "0.01"], {"momentum": 0.9, "weight_decay": 0.01}),
        (["--eta-decay", "0.6"], {"eta_decay": 0.6, "schedule": "cyclical"}),
        (["--schedule", "one-cycle"], {"schedule": "one-cycle"}),
        (["--flip", "--shift", "2", "--mixup", "0.2"], {"flip": True, "shift": 2, "mixup": 0.2}),
        (["--dropout", "0.1", "--label-smoothing", "0.2"], {"dropout": 0.1, "label_smoothing": 0.2}),
        (["--weight-average", "0.9", "--snapshots"], {"weight_average": 0.9}),
        (["--schedule", "cosine", "--eta-decay", "0.5"], {"schedule": "cosine", "eta_decay": 0.5}),
        (["--standardise", "image", "--no-shuffle"], {"standardise": "image", "shuffle": False}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_was_chosen_is_in_the_database(
    here: Klcli, rows: Rows, options: list[str], settings: dict[str, Any]
) -> None:
    succeeded(here("train", *TINY, *options))
    [run] = rows("runs")
    config = json.loads(run["config"])
    assert {name: config[name] for name in settings} == settings
    assert {name: run[name] for name in settings if name in run} == {n: v for n, v in settings.items() if n in run}


def test_studies_pass_on_how_images_are_seen(here: Klcli, rows: Rows) -> None:
    own = ("--standardise", "image", "--no-shuffle")
    tiny = ("--data", "synthetic", "--subset", "200", "--hidden", "5", "--epochs", "2", "--step-size", "2")
    assert here("search-lambda", *tiny, *own, "--values", "0.1,0.01", "--jobs", "1").returncode == 0
    in_a_group = rows("runs")[1]
    again = ("--bn", "--lambda", str(in_a_group["lambda"]))
    assert here("train", *tiny, *own, *again).returncode == 0
    assert here("train", *tiny, *again).returncode == 0
    alone, usual = rows("runs")[2:]
    assert in_a_group["validation_loss"] == pytest.approx(alone["validation_loss"], rel=1e-4)
    assert alone["validation_loss"] != pytest.approx(usual["validation_loss"], rel=1e-3)
    compared = here("report", "--run", "3", "4").stdout
    assert re.search("standardised by +image +pixel", compared)
    assert re.search("shuffled +no +yes", compared)
    configs = [TrainConfig.from_json(run["config"]) for run in (alone, usual)]
    assert [options_words(config) for config in configs] == ["standardised by image, not shuffled", ""]


@pytest.mark.parametrize("command", ["train", "search-lambda"])
def test_adam_with_the_rates_of_sgd_is_warned_of_with_the_cure(here: Klcli, command: str) -> None:
    tiny = (command, "--data", "synthetic", "--subset", "200", "--hidden", "5", "--epochs", "1")
    tiny = (*tiny, "--values", "0.1", "--jobs", "1") if command == "search-lambda" else tiny
    assert "try --eta-max 0.001" in here(*tiny, "--optimizer", "adam").stderr
    assert "try --eta-max" not in here(*tiny, *ADAM).stderr
    assert "try --eta-max" not in here(*tiny).stderr
    if command == "train":  # a range test goes up to eta_max 1 to find where it is too large
        assert "try --eta-max" not in succeeded(here(*tiny, "--optimizer", "adam", "--lr-range-test")).stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["train", "--bn-eps", "1e-5"], ["--bn-eps 1e-05", "add --bn"]),
        (["train", "--bn-momentum", "0.5", "--repeats", "2"], ["--bn-momentum 0.5", "add --bn"]),
        (["train", "--bn-statistics", "precise", "--bn-samples", "9"], ["--bn-statistics precise", "add --bn"]),
        (["train", "--preset", "quick", "--no-bn", "--bn-position", "after"], ["--bn-position after", "add --bn"]),
        (["search-lambda", "--no-bn", "--bn-position", "after"], ["--bn-position after", "add --bn"]),
        (["train", "--executor", "tcp://host:1"], ["--executor tcp://host:1", "--repeats 2"]),
        (["train", "--jobs", "4"], ["--jobs 4: a single training", "--repeats 2"]),
        (["train", "--resume", "last", "-j", "2"], ["--jobs 2: a single training", "--repeats 2"]),
        (["search-lambda", "-j", "2", "--executor", "tcp://host:1"], ["--jobs 2: no effect", "--executor"]),
        (["train", "--whitening-eps", "3"], ["--whitening-eps 3", "--whitening N"]),
        (
            ["train", "--shift", "1", "--weak-augmentation", "0.1"],
            ["--weak-augmentation 0.1", "--shift and --contrast"],
        ),
        (["train", "--no-shuffle", "--order-seed", "3"], ["--order-seed 3", "without shuffling"]),
        (["train", "--mixup", "0.2", "--batch-size", "1"], ["--mixup 0.2", "no partner"]),
        (["train", "--dropout", "5e-6"], ["--dropout 5e-06", "at least 1e-5"]),
        (["train", "--schedule", "constant", "--eta-min", "0.01"], ["--eta-min 0.01", "--eta-max"]),
        (["train", "--validation", "9", "--validation-batches", "2"], ["--validation 9", "--validation-batches 2"]),
    ],
    ids=" ".join,
)
def test_options_without_an_effect_are_refused(
    here: Klcli, refused: Refused, options: list[str], named: list[str]
) -> None:
    refused(here(*options, "--data", "synthetic", "--subset", "300"), 2, *named)


def test_a_decay_of_eta_is_obeyed_by_the_final_training_and_warned_of_in_a_single_cycle(
    here: Klcli, rows: Rows
) -> None:
    tiny = ("--data", "synthetic", "--subset", "200", "--hidden", "5", "--step-size", "2", "--eta-decay", "0.5")
    said = "--eta-decay 0.5: no effect, the training ends with its first cycle"
    for short in (["--cycles", "1"], ["--epochs", "1"]):
        assert said in succeeded(here("train", *tiny, *short)).stderr
    assert said not in succeeded(here("train", *tiny)).stderr
    search = ("search-lambda", *tiny, "--cycles", "1", "--values", "0.1", "--jobs", "1")
    assert said in succeeded(here(*search)).stderr
    assert said not in succeeded(here(*search, "--final")).stderr
    [*_, final] = rows("runs")
    assert (final["cycles"], final["eta_decay"]) == (3, 0.5)


def test_the_final_training_of_a_search_keeps_snapshots_that_its_stages_are_too_short_for(
    here: Klcli, rows: Rows
) -> None:
    tiny = ("--data", "synthetic", "--subset", "200", "--hidden", "5", "--step-size", "2", "--epochs", "1")
    search = ("search-lambda", *tiny, "--snapshots", "--values", "0.1", "--jobs", "1")
    said = "--snapshots: no network is kept"
    assert said in succeeded(here(*search)).stderr
    assert said not in succeeded(here(*search, "--final")).stderr
    assert [run["snapshots"] for run in rows("runs")] == [None, None, 3]


def test_options_of_bn_of_a_gradient_check_without_bn_are_refused(here: Klcli, refused: Refused) -> None:
    refused(here("gradcheck", "--bn-position", "after"), 2, "--bn-position after", "add --bn")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("train", "--preset", "quick", "--no-bn", "--epochs", "0"), marks=pytest.mark.slow),  # whitening
        ("sigma-sweep", "--bn-eps", "1e-5", "--sigmas", "0.1", "--cycles", "1", "--jobs", "1"),
    ],
    ids=" ".join,
)
def test_settings_of_a_preset_or_of_some_networks_of_a_sweep_are_accepted(
    here: Klcli, rows: Rows, options: tuple[str, ...]
) -> None:
    succeeded(here(*options, "--data", "synthetic", "--subset", "300", "--hidden", "5"))
    assert {json.loads(run["config"])["batch_norm"] for run in rows("runs")} >= {False}


def test_a_stored_command_with_an_option_without_effect_can_be_resumed(here: Klcli) -> None:
    """As an older klcli accepted it."""
    tiny = TrainConfig(hidden=(5,), bn_eps=1e-5, step_size=2, cycles=1, split=SplitConfig(subset=200))
    lab = Lab("results/klcli.db", data="synthetic", jobs=1)
    study = lab.repeat(tiny, 2)
    options = ("--hidden", "5", "--bn-eps", "1e-5", "--step-size", "2", "--cycles", "1", "--subset", "200")
    again = succeeded(here("train", *options, "--data", "synthetic", "--repeats", "2", "--resume", "last"))
    assert f"Study {study.id}" in again.stdout


@pytest.mark.slow
def test_runs_on_the_same_batch_files_are_compared_in_whatever_order_they_were_typed(
    here: Klcli, rows: Rows, tmp_path: Path
) -> None:
    tiny = ("--data", "synthetic", "--hidden", "5", "--subset", "200", "--step-size", "2", "--cycles", "1")
    for files in (["2", "1"], ["1", "2"]):
        succeeded(here("train", *tiny, "--train-batches", *files, "--repeats", "2"))
    assert "different images" not in succeeded(here("report", "--run", "1", "--run", "3")).stdout
    assert len(json.loads(succeeded(here("report", "--json")).stdout)["runs"]) == 4
    succeeded(here("evaluate", "2", "3", "--ensemble"))
    # As an older klcli stored them, and was killed.
    for table, column in (("studies", "settings"), ("runs", "config")):
        typed = f"replace({column}, '\"train_batches\": [1, 2]', '\"train_batches\": [2, 1]')"
        change(tmp_path, f"UPDATE {table} SET {column} = {typed}")
    assert json.loads(rows("runs")[3]["config"])["split"]["train_batches"] == [2, 1]
    change(tmp_path, "UPDATE studies SET state = 'running' WHERE id = 2")
    change(tmp_path, "UPDATE runs SET state = 'interrupted' WHERE id = 4")
    for files in (["1", "2"], ["2", "1"]):
        again = succeeded(here("train", *tiny, "--train-batches", *files, "--repeats", "2", "--resume", "last"))
        assert "Study 2" in again.stdout
    assert [run["state"] for run in rows("runs")] == ["complete"] * 4


@pytest.mark.parametrize(
    "options",
    [
        ADAM,
        ("--momentum", "0.9"),
        ("--dropout", "0.2", "--flip", "--shift", "1"),
        ("--weight-average", "0.9", "--snapshots"),
        ("--standardise", "image", "--no-shuffle", "--bn-statistics", "batch"),
    ],
    ids=" ".join,
)
def test_an_interrupted_run_goes_on_to_the_bits_of_an_uninterrupted_one(
    here: Klcli, rows: Rows, tmp_path: Path, options: tuple[str, ...]
) -> None:
    assert here("train", *TINY, *options).returncode == 0
    config = TrainConfig.from_json(rows("runs")[0]["config"])

    def interrupt(metrics: EpochMetrics) -> None:
        if metrics.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        Lab("results/klcli.db", data="synthetic").train(config, on_evaluation=interrupt)
    assert here("train", "--resume", "last").returncode == 0
    whole, resumed = rows("runs")
    assert resumed["state"] == "complete"
    assert [whole[name] for name in ("test_loss", "validation_loss")] == [
        resumed[name] for name in ("test_loss", "validation_loss")
    ]
    states = [checkpoints.load(tmp_path / "results" / run["checkpoint"]).state for run in (whole, resumed)]
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)


def test_a_config_from_before_these_options_still_trains_on(here: Klcli, rows: Rows, tmp_path: Path) -> None:
    """A run that an older klcli left: its config knows none of the newer settings."""
    assert here("train", *TINY).returncode == 0
    config = json.loads(rows("runs")[0]["config"])
    old = {name: value for name, value in config.items() if name not in NEWER}
    assert len(old) == len(config) - len(NEWER)
    change(tmp_path, "UPDATE runs SET state = 'interrupted', config = ?", values=[json.dumps(old)])
    succeeded(here("train", "--resume", "last"))
    [run] = rows("runs")
    assert run["state"] == "complete"
    assert (run["momentum"], run["weight_decay"], run["eta_decay"]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("options", "is_warned"),
    [
        (["--schedule", "one-cycle"], False),
        (["--schedule", "constant"], False),
        (["--schedule", "cosine"], True),
        ([], True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_unfinished_cycle_is_warned_of_where_there_are_cycles(
    here: Klcli, options: list[str], is_warned: bool
) -> None:
    done = succeeded(here("train", *TINY, "--epochs", "1", *options))
    assert ("0.50 cycles" in done.stderr) == is_warned


NEWER = {
    "momentum", "weight_decay", "eta_decay", "flip", "shift", "mixup", "dropout", "label_smoothing", "weight_average",
    "snapshots", "standardise", "shuffle",
}  # fmt: skip


def test_the_mean_of_the_snapshots_is_shown_and_stored(here: Klcli, rows: Rows, tmp_path: Path) -> None:
    done = succeeded(here("train", *TINY, "--snapshots", "--weight-average", "0.9"))
    [run] = rows("runs")
    assert run["snapshots"] == 2
    for split in ("validation", "test"):
        [line] = [line for line in done.stdout.splitlines() if line.startswith(f" {split}, mean of 2 snapshots")]
        assert f"{run[f'ensemble_{split}_accuracy']:.4f}" in line
        assert f"{run[f'ensemble_{split}_loss']:.4f}" in line
    state = checkpoints.load(tmp_path / "results" / run["checkpoint"]).state
    assert {name.split(".")[0] for name in state if name.startswith("cycle")} == {"cycle1", "cycle2"}
    np.testing.assert_array_equal(state["cycle2.linear1.W"], state["linear1.W"])
    again = succeeded(here("evaluate", "1", "--snapshots"))
    assert "snapshots" in again.stdout.splitlines()[0]
    [row] = rows("evaluations")
    assert row["snapshots"] == 1
    for name in ("validation_accuracy", "test_accuracy", "validation_loss", "test_loss"):
        assert row[name] == pytest.approx(run[f"ensemble_{name}"], rel=1e-6)
    assert here("evaluate", "1", "--snapshots", "--flips").returncode == 0
    assert here("evaluate", "1").returncode == 0
    assert len(rows("evaluations")) == 3
    shown = here("report", "--run", "1").stdout
    assert "ensemble test accuracy" in shown
    assert here("runs", "check").returncode == 0


def test_a_run_without_snapshots_has_none_to_average(here: Klcli, refused: Refused) -> None:
    assert here("train", *TINY).returncode == 0
    refused(here("evaluate", "1", "--snapshots", "--quiet"), 2, "run 1", "train with --snapshots")


def test_a_study_keeps_the_snapshots_of_each_member(here: Klcli, rows: Rows) -> None:
    done = succeeded(here("train", *TINY, "--snapshots", "--repeats", "2", "--jobs", "1"))
    assert [run["snapshots"] for run in rows("runs")] == [2, 2]
    shown = here("report", "--study", "1").stdout
    for split, name in product(("validation", "test"), ("accuracy", "loss")):
        values = [run[f"ensemble_{split}_{name}"] for run in rows("runs")]
        for text in (done.stdout, shown):
            [line] = re.findall(rf"^ +{split}, mean of 2 snapshots +{name} +(.*)", text, re.MULTILINE)
            assert line.split()[:3] == [f"{np.mean(values):.4f}", f"{np.std(values, ddof=1):.4f}", "2"]


@pytest.mark.parametrize("more", [[], ["--repeats", "2"]], ids=" ".join)
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--batch-size", "301"], ["--batch-size 301", "300"]),
        (["--step-epochs", "1e9"], ["--step-epochs 1e+09", "1000000 evaluations"]),
        (["--eta-max", "1e-6"], ["--eta-min 1e-05", "--eta-max 1e-06", "lower"]),
    ],
    ids=" ".join,
)
def test_a_length_that_cannot_be_trained_is_refused_before_the_images_are_opened(
    here: Klcli, refused: Refused, options: list[str], named: list[str], more: list[str]
) -> None:
    refused(here("train", "--data", "nowhere", "--subset", "300", *options, *more), 2, *named)
