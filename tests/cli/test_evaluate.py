"""`klcli evaluate`: the printed and stored results, their view in the report, and refused options."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Klcli, Refused, Rows, change, succeeded
from PIL import Image

from klcli import Lab, SplitConfig, TrainConfig
from klcli.data import dataset
from klcli.data.sources import open_dataset
from klcli.evaluation.metrics import log_probabilities
from klcli.procedures.run_lookup import trained_networks
from klcli.training.result import EpochMetrics

pytestmark = pytest.mark.usefixtures("unrendered")


def test_the_last_run_as_it_was_trained(here: Klcli, trained: Path, rows: Rows) -> None:
    done = succeeded(here("evaluate", "last"))
    assert "Run 3: " in done.stdout and "evaluated again: ema statistics" in done.stdout
    run = rows("runs")[2]
    [row] = rows("evaluations")
    assert rows("evaluation_runs") == [{"evaluation_id": 1, "run_id": 3}]
    for split in ("validation", "test"):
        assert row[f"{split}_accuracy"] == run[f"{split}_accuracy"]
        assert row[f"{split}_loss"] == pytest.approx(run[f"{split}_loss"], rel=1e-5)
        [line] = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == [split]]
        accuracy, loss = f"{run[f'{split}_accuracy']:.4f}", f"{run[f'{split}_loss']:.4f}"
        assert line == [split, accuracy, accuracy, "0.0000", loss, loss, "0.0000"]
    assert (row["bn_statistics"], row["bn_samples"], row["seed"], row["transductive"]) == ("ema", None, None, 0)
    assert row["command"] == "klcli evaluate 3"


def test_several_runs_are_compared_with_themselves(here: Klcli, trained: Path, rows: Rows) -> None:
    options = ("--bn-statistics", "adaptive", "--bn-samples", "30", "--seed", "5", "--flips")
    done = succeeded(here("evaluate", "1", "2,3", *options))
    assert "adaptive statistics (30 images, transductive), seed 5, flips" in done.stdout
    assert "klcli report --run 1-3\n" in done.stderr  # the next command fits a line, however many runs there are
    kept, runs = rows("evaluations"), rows("runs")
    own = "--bn-statistics adaptive --bn-samples 30 --flips --seed 5"
    assert [row["command"] for row in kept] == [f"klcli evaluate {number} {own}" for number in (1, 2, 3)]
    assert [row["transductive"] for row in kept] == [1, 1, 1]
    differences = [row["test_accuracy"] - run["test_accuracy"] for row, run in zip(kept, runs, strict=True)]
    assert f"test accuracy differs by {np.mean(differences):+.4f} on the mean of 3 runs" in done.stdout
    error = np.std(differences, ddof=1) / np.sqrt(3) * 4.302652729911275  # the 97.5 % quantile of t with 2 degrees
    assert f"to {np.mean(differences) + error:+.4f}" in done.stdout

    assert here("evaluate", "1", "2", "3", *options, "--quiet").returncode == 0
    assert len(rows("evaluations")) == 3  # made again, they take the place of the earlier ones

    document = json.loads(here("evaluate", "1", "2", *options, "--json").stdout)
    assert [one["runs"] for one in document["evaluations"]] == [[1], [2]]
    assert document["evaluations"][0]["transductive"] == 1
    assert [one["test_accuracy"] for one in document["stored"]] == [run["test_accuracy"] for run in runs[:2]]


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("best -1 --ensemble --shifts 2 --db results/klcli.db", ["2-3 --ensemble --shifts 2"]),
        ("1-2 --bn-statistics precise --data synthetic", [
            f"{number} --bn-statistics precise --bn-samples 10000 --data synthetic" for number in (1, 2)
        ]),
    ],
)  # fmt: skip
def test_the_stored_command_repeats_an_evaluation(
    here: Klcli, trained: Path, rows: Rows, typed: str, stored: list[str]
) -> None:
    change(trained, "UPDATE runs SET validation_accuracy = 0.9 WHERE id = 2")
    succeeded(here("evaluate", *typed.split()))
    numbers = [[row[f"{split}_loss"] for split in ("validation", "test")] for row in rows("evaluations")]
    assert [row["command"] for row in rows("evaluations")] == [f"klcli evaluate {one}" for one in stored]
    for row in rows("evaluations"):
        succeeded(here(*row["command"].split()[1:]))
    again = sorted(rows("evaluations"), key=lambda row: row["id"])
    assert [[row[f"{split}_loss"] for split in ("validation", "test")] for row in again] == numbers


def test_the_title_names_the_images_of_every_run(here: Klcli, trained: Path) -> None:
    assert " on synthetic, subset" in here("evaluate", "1", "2").stdout
    change(trained, "UPDATE runs SET dataset = 'cifar10' WHERE id = 2")
    assert " on synthetic and cifar10, subset" in succeeded(here("evaluate", "1", "2", "3")).stdout


def test_an_ensemble_and_where_it_is_shown(here: Klcli, trained: Path, rows: Rows) -> None:
    done = succeeded(here("evaluate", "2", "3", "--ensemble"))
    [row] = rows("evaluations")
    assert [one["run_id"] for one in rows("evaluation_runs")] == [2, 3]
    runs = rows("runs")[1:]
    [line] = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["test"]]
    mean, best = (f([run["test_accuracy"] for run in runs]) for f in (np.mean, np.max))
    assert line[1:3] + line[-1:] == [f"{row['test_accuracy']:.4f}", f"{mean:.4f}", f"{best:.4f}"]

    report = here("report", "--run", "1", "2").stdout
    [line] = [line for line in report.splitlines() if "test accuracy, ema statistics, ensemble of runs 2, 3" in line]
    assert line.split()[-2:] == ["-", f"{row['test_accuracy']:.4f}"]
    document = json.loads(here("report", "--run", "2", "--json").stdout)
    assert document["evaluations"][0]["runs"] == [2, 3]
    assert here("report", "--html", "page.html").returncode == 0
    assert "Stored networks, evaluated again" in (trained / "page.html").read_text()

    assert here("runs", "delete", "3", "--yes").returncode == 0
    assert rows("evaluations") == rows("evaluation_runs") == []  # a part of its networks is gone


@pytest.mark.parametrize("order", [("3", "4"), pytest.param(("4", "3"), marks=pytest.mark.slow)])
def test_an_ensemble_of_two_precisions(here: Klcli, trained: Path, rows: Rows, order: tuple[str, ...]) -> None:
    options = "--data synthetic --subset 200 --epochs 2 --hidden 20 --bn --dtype float64 --seed 1 --quiet"
    assert here("train", *options.split()).returncode == 0
    succeeded(here("evaluate", *order, "--ensemble"))
    lab = Lab("results/klcli.db")
    test = dataset.split(open_dataset("synthetic"), lab.run().split).test
    networks = [one for number in order for one in trained_networks(lab.store, lab.run(number))]
    P = np.mean([np.exp(log_probabilities(one.network, test, one.config.dtype)) for one in networks], axis=0)
    [row] = rows("evaluations")
    assert row["test_accuracy"] == np.mean(P.argmax(axis=1) == test.labels)
    assert row["test_loss"] == pytest.approx(-np.mean(np.log(P[np.arange(len(test)), test.labels])), rel=1e-5)


def test_the_best_run(here: Klcli, trained: Path, rows: Rows) -> None:
    change(trained, "UPDATE runs SET validation_accuracy = 0.9 WHERE id = 2")
    assert here("evaluate", "best").returncode == 0
    assert rows("evaluation_runs")[0]["run_id"] == 2


# What is refused


@pytest.mark.parametrize(
    ("args", "code", "named"),
    [
        (("first",), 2, ("first", "last")),
        ((",",), 2, ("last",)),
        (("1", "--ensemble"), 2, ("--ensemble", "at least two")),
        (("1", "1", "--ensemble"), 2, ("--ensemble", "at least two")),
        (("1", "--bn-statistics", "exact"), 2, ("exact", "precise")),
        (("1", "--bn-samples", "50"), 2, ("50", "--bn-statistics")),
        (("1", "--seed", "3"), 2, ("3", "precise")),
        (("9",), 4, ("run 9",)),
    ],
)
def test_wrong_usage(
    here: Klcli, refused: Refused, trained: Path, rows: Rows, args: tuple[str, ...], code: int, named: tuple[str, ...]
) -> None:
    refused(here("evaluate", *args), code, *named)
    assert rows("evaluations") == []


def test_a_policy_that_one_of_the_runs_cannot_have_stops_before_the_first(
    here: Klcli, refused: Refused, trained: Path, rows: Rows
) -> None:
    change(
        trained, "UPDATE runs SET config = json_set(config, '$.batch_norm', json('false')), batch_norm = 0 WHERE id = 2"
    )
    refused(
        here("evaluate", "1", "2", "--bn-statistics", "batch"), 2, "run 2 has no batch normalisation", "name others"
    )
    change(
        trained, "UPDATE runs SET config = json_set(config, '$.batch_norm', json('false')), batch_norm = 0 WHERE id = 3"
    )
    line = refused(here("evaluate", "2-3", "--bn-statistics", "batch"), 2)
    assert line == "klcli: --bn-statistics batch: runs 2-3 have no batch normalisation, omit the option"
    assert rows("evaluations") == []


@pytest.mark.parametrize(
    ("sql", "options", "code", "named"),
    [
        ("checkpoint = NULL, state = 'diverged'", (), 4, ("run 1", "no checkpoint")),
        ("checkpoint_sha256 = 'x'", (), 4, ("run-000001.npz", "not the one of run 1")),
        ("config = json_set(config, '$.snapshots', json('true'))", ("--snapshots",), 2, ("run 1 has none",)),
    ],
)
def test_a_run_without_its_networks_stops_before_the_first(
    here: Klcli, refused: Refused, trained: Path, rows: Rows, sql: str, options: Any, code: int, named: Any
) -> None:
    if options:  # run 4 has a network at the end of a cycle
        train = "--data synthetic --subset 200 --hidden 20 --bn --snapshots --cycles 1 --step-epochs 1 --quiet"
        succeeded(here("train", *train.split()))
    change(trained, f"UPDATE runs SET {sql} WHERE id = 1")
    refused(here("evaluate", "4" if options else "2", "1", *options, "-q"), code, *named)
    assert rows("evaluations") == []


def test_without_a_run(here: Klcli, refused: Refused, trained: Path) -> None:
    refused(here("evaluate", "1", "--db", "other.db"), 4, "other.db")
    change(trained, "DELETE FROM runs")
    refused(here("evaluate", "last"), 2, "no complete run", "klcli train")


def test_other_images(here: Klcli, refused: Refused, trained: Path, rows: Rows) -> None:
    change(trained, "UPDATE runs SET dataset_sha256 = printf('%064d', 7) WHERE id = 2")
    refused(here("evaluate", "1", "2", "-q"), 3, "run 2", "00000000", "--data")
    refused(here("evaluate", "1", "2", "--ensemble", "-q"), 2, "runs 1 and 2", "different images")
    assert rows("evaluations") == []


@pytest.mark.parametrize("state", ["interrupted", "diverged"])
def test_a_training_that_is_not_complete_is_named(here: Klcli, trained: Path, state: str) -> None:
    change(trained, f"UPDATE runs SET state = '{state}', epochs_done = 1, epochs = 4 WHERE id = 1")
    Image.new("RGB", (32, 32)).save(trained / "grey.png")
    expected = f"run 1 is not complete, but {state}: this is its network after epoch 1 of 4"
    for command in (("evaluate", "1"), ("predict", "grey.png", "--run", "1")):
        assert expected in here(*command).stderr
    assert "not complete" not in here("evaluate", "2").stderr


@pytest.mark.parametrize("policy", ["precise", "adaptive", "batch"])
def test_a_network_of_an_earlier_update_has_running_averages(
    here: Klcli, rows: Rows, tmp_path: Path, policy: str
) -> None:
    """Only after the last update do others take their place: until then, the accuracies were measured with them."""

    def interrupt(metrics: EpochMetrics) -> None:
        if metrics.epoch == 1:
            raise KeyboardInterrupt

    small = TrainConfig(hidden=(20,), batch_norm=True, batch_size=20, epochs=2, split=SplitConfig(subset=200))
    with pytest.raises(KeyboardInterrupt):
        Lab(data="synthetic").train(replace(small, bn_statistics=policy), on_evaluation=interrupt)
    assert "evaluated again: ema statistics" in succeeded(here("evaluate", "-1")).stdout
    [row], last = rows("evaluations"), rows("epochs")[-1]
    assert (row["bn_statistics"], row["bn_samples"], row["transductive"]) == ("ema", None, 0)
    assert row["validation_accuracy"] == last["validation_accuracy"]
    assert row["validation_loss"] == pytest.approx(last["validation_loss"], rel=1e-5)
    found = json.loads(succeeded(here("evaluate", "-1", "--bn-statistics", "ema", "--json")).stdout)
    assert [one["bn_statistics"] for one in (*found["evaluations"], *found["stored"])] == ["ema", "ema"]
    Image.new("RGB", (32, 32)).save(tmp_path / "grey.png")
    assert "batch statistics" not in succeeded(here("predict", "grey.png", "--run", "-1")).stderr
    succeeded(here("train", "--resume", "-1"))
    [stored] = json.loads(succeeded(here("evaluate", "-1", "--json")).stdout)["stored"]
    assert stored["bn_statistics"] == policy


def test_a_checkpoint_that_is_not_what_it_was(here: Klcli, refused: Refused, trained: Path, rows: Rows) -> None:
    folder = trained / "results/checkpoints"
    shutil.copy(folder / "run-000003.npz", folder / "run-000002.npz")
    refused(here("evaluate", "2", "-q"), 4, "run-000002.npz", "not the one of run 2", "klcli report --run 2")
    content = bytearray((folder / "run-000003.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "run-000003.npz").write_bytes(content)
    refused(here("evaluate", "3", "-q"), 4, "run-000003.npz", "damaged", "klcli report --run 3")
    (folder / "run-000001.npz").unlink()
    refused(here("evaluate", "1", "-q"), 4, "run-000001.npz", "missing")
    change(trained, "UPDATE runs SET checkpoint = NULL, state = 'diverged' WHERE id = 1")
    refused(here("evaluate", "1", "-q"), 4, "run 1", "no checkpoint")
    assert rows("evaluations") == []
