"""Another BLAS kernel, as another processor has it: recorded, and said where a run or a study continues under it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import Klcli, Rows, change, succeeded
from dask_cluster import cluster

from klcli.training.environment import changes, continued, environment

TRAIN = ("train", "--data", "synthetic", "--subset", "300", "--hidden", "40", "--bn", "--step-epochs", "3")
OLD, NEW = "Haswell", "Nehalem"

has_kernels = pytest.mark.skipif(
    not any(kernel in environment().versions["blas"] for kernel in ("SkylakeX", OLD, "Zen", "Cooperlake", "Sapphire")),
    reason="needs OpenBLAS for x86 with AVX2, where OPENBLAS_CORETYPE chooses the kernel of another processor",
)


def stopped_after_an_epoch(folder: Path, *args: str, **more: str) -> None:
    """Start a training and interrupt it after its first evaluation."""
    process = subprocess.Popen(
        [sys.executable, "-m", "klcli", *args],
        cwd=folder,
        env=os.environ | more,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith("epoch 1/"):
        assert line, "it ended before"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


@has_kernels
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_run_that_continues_under_another_kernel_says_so_and_records_both(
    klcli: Klcli, rows: Rows, tmp_path: Path
) -> None:
    stopped_after_an_epoch(tmp_path, *TRAIN, "--cycles", "50", OPENBLAS_CORETYPE=OLD)
    [run] = rows("runs")
    first = json.loads(run["versions"])
    assert f" {OLD}" in first["blas"]
    done = succeeded(klcli("train", "--resume", "last", OPENBLAS_CORETYPE=NEW))
    [warning] = [line for line in done.stderr.splitlines() if "its bits can differ" in line]
    assert warning.startswith("run 1 was trained with BLAS openblas")
    assert warning.index(OLD) < warning.index("now openblas") < warning.index(NEW)
    [run] = rows("runs")
    versions = json.loads(run["versions"])
    [later] = versions.pop("later")
    assert versions == first
    assert NEW in later["blas"]
    assert later["epoch"] == run_epochs_before(done)
    shown = klcli("report", "--run", "1").stdout
    [blas] = [line for line in shown.splitlines() if line.strip().startswith("BLAS ")]
    assert f"{OLD}, after epoch {later['epoch']:g} openblas" in blas
    assert NEW in blas


def run_epochs_before(done: "subprocess.CompletedProcess[str]") -> float:
    [line] = [line for line in done.stderr.splitlines() if "continues after epoch" in line]
    return float(line.rsplit(" ", 1)[1])


@has_kernels
@pytest.mark.slow
def test_a_study_that_continues_under_another_kernel_says_so(light: Klcli, rows: Rows, tmp_path: Path) -> None:
    study = (*TRAIN, "--repeats", "2", "--jobs", "1")
    assert light(*study, OPENBLAS_CORETYPE=OLD).returncode == 0
    without = "UPDATE runs SET state = 'interrupted', checkpoint = NULL WHERE id = 2"
    change(tmp_path, without, "UPDATE studies SET state = 'interrupted'")
    done = succeeded(light(*study, "--resume", "last", OPENBLAS_CORETYPE=NEW))
    [warning] = [line for line in done.stderr.splitlines() if "the bits of the others can differ" in line]
    assert "1 run of study 1 was trained with BLAS openblas" in warning
    assert OLD in warning
    assert NEW in warning
    assert [OLD in run["versions"] for run in rows("runs")] == [True, False]
    again = light(*study, "--resume", "last", OPENBLAS_CORETYPE=NEW)
    assert "bits" not in again.stderr  # nothing is left to train


@has_kernels
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="processes as POSIX has them")
def test_workers_of_dask_have_kernels_of_their_own(light: Klcli, rows: Rows, tmp_path: Path) -> None:
    """Those of the command train nothing there: no warning compares them, and no run has them."""
    study, stopped = (*TRAIN, "--repeats", "2"), "UPDATE studies SET state = 'interrupted'"
    with cluster(tmp_path, os.environ | {"OPENBLAS_CORETYPE": OLD}, workers=1) as workers:
        there = ("--executor", workers.address)
        succeeded(light(*study, *there, OPENBLAS_CORETYPE=NEW))
        change(tmp_path, "UPDATE runs SET state = 'interrupted', checkpoint = NULL WHERE id = 2", stopped)
        assert "bits" not in succeeded(light(*study, *there, "--resume", "last", OPENBLAS_CORETYPE=NEW)).stderr
        begun = (*study, "--seed", "7")
        succeeded(light(*begun, "--jobs", "1", OPENBLAS_CORETYPE=NEW))
        change(tmp_path, "UPDATE runs SET state = 'interrupted' WHERE id = 4", stopped)
        done = succeeded(light(*begun, *there, "--resume", "last", OPENBLAS_CORETYPE="Prescott"))
        assert "bits" not in done.stderr
    *others, continues = [json.loads(run["versions"]) for run in rows("runs")]
    [later] = continues.pop("later")
    kernels = [versions["blas"].split()[-1] for versions in (*others, continues, later)]
    assert kernels == [OLD, OLD, NEW, NEW, OLD]
    assert later["epoch"] == run_epochs_before(done)


NOW = environment().versions


@pytest.mark.parametrize("key", ["klcli", "numpy", "blas", "simd"])
def test_each_version_that_decides_bits_is_compared(key: str) -> None:
    before = NOW | {key: "another"}
    versions, changed = continued(before, 3.0, NOW)
    assert "another, now " in changed
    assert NOW[key] in changed
    assert versions == before | {"later": [{"epoch": 3.0, **NOW}]}
    assert continued(versions, 5.0, NOW) == (versions, "")  # under the same one again


@pytest.mark.parametrize("key", ["python", "platform"])
def test_others_are_not(key: str) -> None:
    assert continued(NOW | {key: "another"}, 3.0, NOW)[1] == ""


def test_an_environment_that_trained_nothing_is_forgotten() -> None:
    before = NOW | {"later": [{"epoch": 2.0, **NOW, "blas": "first"}, {"epoch": 4.0, **NOW, "blas": "second"}]}
    versions, changed = continued(before, 4.0, NOW)  # interrupted before an evaluation under the second one
    assert changed == f"BLAS first, now {NOW['blas']}"
    assert [one["blas"] for one in versions["later"]] == ["first", NOW["blas"]]
    assert continued(before, 0.0, NOW) == (NOW, "")  # the run begins again


def test_a_run_of_an_older_klcli_has_not_changed_where_it_recorded_less() -> None:
    older = {"klcli": NOW["klcli"], "numpy": NOW["numpy"], "blas": f"{NOW['blas']}, openblas 0.3.1 Prescott"}
    assert changes(older, NOW) == ""  # the second one is that of SciPy
    assert changes({}, NOW) == ""
