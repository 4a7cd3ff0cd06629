"""`klcli predict`: the classes that NumPy alone computes from the checkpoint, and what is refused."""

import json
import os
import shutil
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Klcli, Refused, Rows, change, succeeded
from PIL import Image

from klcli import Lab, SplitConfig, TrainConfig
from klcli.data.sources import open_dataset
from klcli.store import checkpoints
from klcli.training.result import EpochMetrics

SHOWN = (50_100, 59_000)  # two of the test images
TRAINED_ON = 200  # --subset of the stored runs


@pytest.fixture
def images(known_machine: None, trained: Path) -> np.ndarray:
    """Two pictures in the folder, and all images of the set they come from."""
    images = open_dataset("synthetic").images
    for name, row in zip(("one.png", "two [draft].png"), SHOWN, strict=True):
        Image.fromarray(images[row].reshape(3, 32, 32).transpose(1, 2, 0).copy()).save(trained / name)
    return images


def by_hand(
    folder: Path, run: int, images: np.ndarray, mirror: bool = False, axis: int = 0, move: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """The probabilities of the two pictures, from the arrays in the checkpoint."""
    untracked = {"batch_norm1.running_mean": np.zeros(20), "batch_norm1.running_variance": np.ones(20)}
    state = untracked | dict(np.load(folder / f"results/checkpoints/run-{run:06d}.npz"))
    train = images[:TRAINED_ON].astype(np.float64)
    shown = images[list(SHOWN)].astype(np.float64)
    down, right = move
    moved = np.tile(np.rint(train.mean(axis=0)), (2, 1)).reshape(2, 3, 32, 32)  # the mean image around the picture
    for row, column in product(range(32), range(32)):
        if 0 <= row + down < 32 and 0 <= column + right < 32:
            moved[:, :, row + down, column + right] = shown.reshape(2, 3, 32, 32)[:, :, row, column]
    shown = moved.reshape(2, -1)
    if mirror:
        shown = np.flip(shown.reshape(2, -1, 32), axis=2).reshape(2, -1)
    seen = shown if axis else train  # axis 1: each picture by itself
    X = (shown - seen.mean(axis=axis, keepdims=True)) / seen.std(axis=axis, keepdims=True)
    X = (X @ state["whitening.V"] if "whitening.V" in state else X) @ state["linear1.W"] + state["linear1.b"]
    X = (X - state["batch_norm1.running_mean"]) / np.sqrt(state["batch_norm1.running_variance"] + 1e-8)
    X = X * state["batch_norm1.gamma"] + state["batch_norm1.beta"]
    X = X / (1 + np.exp(-1.5 * X)) if "whitening.V" in state else np.maximum(X, 0)
    S = np.exp(X @ state["linear2.W"] + state["linear2.b"])
    return S / S.sum(axis=1, keepdims=True)


def assert_equal(document: dict[str, Any], P: np.ndarray, rel: float = 1e-3) -> None:
    for picture, row in zip(document["pictures"], P, strict=True):
        assert list(picture["probabilities"].values()) == pytest.approx(list(row), rel=rel)


def test_the_probabilities_are_those_of_the_network(here: Klcli, trained: Path, images: np.ndarray) -> None:
    done = succeeded(here("predict", "one.png", "two [draft].png", "--run", "2", "--json"))
    document = json.loads(done.stdout)
    assert (document["command"], document["run"]) == ("predict", 2)
    P = by_hand(trained, 2, images)
    for found, row in zip(document["pictures"], P, strict=True):
        assert list(found["probabilities"]) == [f"class {i}" for i in range(10)]
        assert list(found["probabilities"].values()) == pytest.approx(list(row), rel=1e-3)
        assert found["class"] == f"class {row.argmax()}"


def test_both_mirror_images_and_the_last_run(here: Klcli, trained: Path, images: np.ndarray) -> None:
    found = json.loads(here("predict", "one.png", "two [draft].png", "--run", "last", "--flips", "--json").stdout)
    P = (by_hand(trained, 3, images) + by_hand(trained, 3, images, mirror=True)) / 2
    assert_equal(found, P)


@pytest.mark.slow
def test_whitening_activation_and_views_are_those_of_the_training(
    here: Klcli, trained: Path, images: np.ndarray
) -> None:
    tiny = ("--data", "synthetic", "--subset", str(TRAINED_ON), "--epochs", "1", "--hidden", "20", "--bn", "--quiet")
    how = ("--whitening", "9", "--activation", "silu", "--silu-slope", "1.5", "--flip", "--shift", "3")
    assert here("train", *tiny, *how).returncode == 0
    moves = [(0, 0), (2, 0), (-2, 0), (0, 2), (0, -2)]
    P = np.mean([by_hand(trained, 4, images, mirror=m, move=v) for v in moves for m in (False, True)], axis=0)
    found = json.loads(here("predict", "one.png", "two [draft].png", "--run", "last", "--json").stdout)
    assert (found["flips"], found["shifts"]) == (True, 2)
    assert_equal(found, P)
    alone = here("predict", "one.png", "two [draft].png", "--run", "last", "--no-flips", "--shifts", "0", "--json")
    plain = by_hand(trained, 4, images)
    assert_equal(json.loads(alone.stdout), plain)
    assert "mean over flips and shifts by 2, test accuracy" in here("predict", "one.png", "--run", "last").stdout


@pytest.mark.usefixtures("unrendered")
def test_pictures_are_standardised_as_the_training_images(here: Klcli, trained: Path, images: np.ndarray) -> None:
    tiny = ("--data", "synthetic", "--subset", "200", "--epochs", "1", "--hidden", "20", "--bn")
    assert here("train", *tiny, "--standardise", "image").returncode == 0
    found = json.loads(here("predict", "one.png", "two [draft].png", "--run", "last", "--json").stdout)
    assert_equal(found, by_hand(trained, 4, images, axis=1))


@pytest.mark.slow
def test_the_networks_at_the_ends_of_the_cycles(here: Klcli, trained: Path, images: np.ndarray) -> None:
    options = f"--data synthetic --subset {TRAINED_ON} --hidden 20 --bn --quiet --dtype float64".split()
    assert here("train", *options, "--snapshots", "--step-epochs", "1", "--cycles", "2").returncode == 0
    found = json.loads(here("predict", "one.png", "two [draft].png", "--run", "last", "--snapshots", "--json").stdout)
    assert "mean over flips and snapshots" in here("predict", "one.png", "--run", "4", "--snapshots", "--flips").stdout
    last = by_hand(trained, 4, images)
    assert here("train", *options, "--step-epochs", "1", "--cycles", "1").returncode == 0  # the same first cycle
    first = by_hand(trained, 5, images)
    assert not np.allclose(first, last)
    assert_equal(found, (first + last) / 2, 1e-9)


def test_one_table_with_the_most_likely_classes(here: Klcli, trained: Path, rows: Rows, images: np.ndarray) -> None:
    done = succeeded(here("predict", "one.png", "two [draft].png", "--top", "2"))
    best = max(rows("runs"), key=lambda run: run["validation_accuracy"])["id"]
    assert f"Classes by run {best}: 2-layer 20 with BN on synthetic" in done.stdout
    for name, row in zip(("one.png", "two [draft].png"), by_hand(trained, best, images), strict=True):
        [line] = [line for line in done.stdout.splitlines() if line.startswith(f" {name}")]
        first, second = np.argsort(-row)[:2]
        cells = line.removeprefix(f" {name}").split()
        assert cells == ["class", str(first), f"{row[first]:.4f}", "class", str(second), f"{row[second]:.4f}"]
    assert "SYNTHETIC" in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "named"),
    [
        (("notes.txt",), 3, ("notes.txt", "not a readable picture")),
        (("one.png", "missing.png"), 3, ("missing.png",)),
        (("one.png", "--run", "first"), 2, ("first", "best")),
        (("one.png", "--run", "8"), 4, ("run 8",)),
        (("one.png", "--top", "0"), 2, ("0",)),
        (("one.png", "--run", "2", "--snapshots"), 2, ("run 2", "--snapshots")),
        (("one.png", "--db", "other.db"), 4, ("other.db",)),
        ((), 2, ("IMAGE",)),
    ],
)
def test_wrong_usage(
    here: Klcli, refused: Refused, images: np.ndarray, trained: Path, args: Any, code: int, named: Any
) -> None:
    (trained / "notes.txt").write_text("a cat")
    refused(here("predict", *args), code, *named)


def test_a_checkpoint_needs_no_database_and_no_images(
    here: Klcli, refused: Refused, trained: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied alone into an empty folder, it gives the bits that the images give."""
    by_images = json.loads(
        here("predict", "one.png", "--run", "2", "--data", "synthetic", "--shifts", "1", "--json").stdout
    )
    row = by_hand(trained, 2, images)[0]
    alone = trained / "alone"
    alone.mkdir()
    files = [shutil.copy(trained / name, alone) for name in ("one.png", "results/checkpoints/run-000002.npz")]
    monkeypatch.chdir(alone)
    monkeypatch.setenv("KLCLI_CACHE", "cache")
    ours = ("predict", "one.png", "--checkpoint", "run-000002.npz")
    found = json.loads(here(*ours, "--shifts", "1", "--json").stdout)
    assert (found["run"], found["checkpoint"], found["dataset"]) == (None, "run-000002.npz", "synthetic")
    assert found["pictures"] == by_images["pictures"]
    done = here(*ours)
    assert "Classes by run-000002.npz: 2-layer 20 with BN on synthetic" in done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith(" one.png")]
    assert line.split()[1:4] == ["class", str(row.argmax()), f"{row.max():.4f}"]
    assert "SYNTHETIC" in done.stderr
    refused(here(*ours, "--run", "2"), 2, "--run 2 and --checkpoint run-000002.npz")
    refused(here(*ours, "--data", "synthetic"), 2, "a checkpoint needs no images")
    refused(here(*ours, "--db", "other.db"), 2, "--db other.db", "a checkpoint needs no database, omit --db")
    monkeypatch.setenv("KLCLI_DB", "other.db")  # for all commands
    assert json.loads(here(*ours, "--shifts", "1", "--json").stdout) == found
    np.savez(alone / "network.npz", x=np.zeros(3))
    (alone / "half.npz").write_bytes((alone / "run-000002.npz").read_bytes()[:2000])
    for name, why in [
        ("other.npz", "this checkpoint is missing"),
        ("network.npz", "this is not a checkpoint"),
        ("half.npz", "this checkpoint is damaged (File is not a zip file)"),
        (".", "this is a folder, not a checkpoint"),
        ("one.png/a.npz", "this checkpoint cannot be read (Not a directory), make it readable or remove it"),
    ]:
        done = here("predict", "one.png", "--checkpoint", name)
        refused(done, 4, f"{name}: {why}: name one that klcli has trained")
    (alone / "network.npz").unlink()
    (alone / "half.npz").unlink()
    assert sorted(alone.iterdir()) == sorted(map(Path, files))  # no cache of images, no database


def test_a_checkpoint_of_an_earlier_update_is_named(here: Klcli, trained: Path, images: np.ndarray) -> None:
    def interrupt(metrics: EpochMetrics) -> None:
        if metrics.epoch == 1:
            raise KeyboardInterrupt

    small = TrainConfig(hidden=(5,), batch_size=20, epochs=3, split=SplitConfig(subset=TRAINED_ON))
    with pytest.raises(KeyboardInterrupt):
        Lab(data="synthetic").train(small, on_evaluation=interrupt)
    folder = "results/checkpoints"
    early, last = (here("predict", "one.png", "--checkpoint", f"{folder}/run-00000{i}.npz").stderr for i in (4, 3))
    assert f"{folder}/run-000004.npz is not complete: this is its network after 10 of 30 updates" in early
    assert "not complete" not in last


def test_a_checkpoint_of_an_older_klcli_needs_the_images(
    here: Klcli, refused: Refused, trained: Path, images: np.ndarray
) -> None:
    probabilities = json.loads(here("predict", "one.png", "--run", "2", "--json").stdout)["pictures"]
    path = trained / "results/checkpoints/run-000002.npz"
    found = checkpoints.load(path)
    sha256 = checkpoints.save(path, found.state, found.config, found.step)
    change(trained, "UPDATE runs SET checkpoint_sha256 = ? WHERE id = 2", values=[sha256])
    assert json.loads(here("predict", "one.png", "--run", "2", "--json").stdout)["pictures"] == probabilities
    refused(here("predict", "one.png", "--checkpoint", str(path)), 4, "an older klcli wrote this checkpoint", "--run")
    change(trained, "UPDATE runs SET dataset_sha256 = printf('%064d', 7)")
    refused(here("predict", "one.png", "--run", "2"), 3, "run 2", "--data")


def test_other_images_and_a_damaged_checkpoint(
    here: Klcli, refused: Refused, images: np.ndarray, trained: Path
) -> None:
    probabilities = json.loads(here("predict", "one.png", "--run", "2", "--json").stdout)["pictures"]
    change(trained, "UPDATE runs SET dataset_sha256 = printf('%064d', 7)")
    assert json.loads(here("predict", "one.png", "--run", "2", "--json").stdout)["pictures"] == probabilities
    refused(here("predict", "one.png", "--run", "2", "--data", "synthetic"), 3, "run 2", "--data")
    (trained / "results/checkpoints/run-000003.npz").write_bytes(b"nothing")
    refused(here("predict", "one.png", "--run", "3"), 4, "run-000003.npz", "damaged")


def test_a_folder_named_like_the_built_in_set_is_not_its_place(here: Klcli, trained: Path, images: np.ndarray) -> None:
    (trained / "built in").mkdir()
    succeeded(here("predict", "one.png", "--run", "2"))


@pytest.mark.timeout(60)
@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="pipes and names of any bytes are POSIX's")
def test_files_that_are_no_regular_ones_and_names_of_any_bytes(
    here: Klcli, refused: Refused, trained: Path, images: np.ndarray
) -> None:
    os.mkfifo(trained / "pipe.png")
    refused(here("predict", "pipe.png"), 3, "pipe.png: this is a pipe")
    refused(here("predict", "one.png", "/dev/zero"), 3, "/dev/zero: this is a device")
    refused(here("predict", "."), 3, "this is a folder")
    name = os.fsdecode(b"caf\xe9\x1b[31m.png")
    refused(here("predict", name), 3, "caf\\xe9\\x1b[31m.png: there is no such picture")
    (trained / "one.png").rename(trained / name)
    assert "caf\\xe9\\x1b[31m.png" in here("predict", name).stdout
    [picture] = json.loads(here("predict", name, "--json").stdout)["pictures"]
    assert picture["picture"] == "caf\\xe9\\x1b[31m.png"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read every file")
def test_a_picture_without_permission(here: Klcli, refused: Refused, trained: Path, images: np.ndarray) -> None:
    (trained / "one.png").chmod(0)
    refused(here("predict", "one.png"), 3, "one.png: this is not a readable picture", "Permission denied", "give a PNG")
